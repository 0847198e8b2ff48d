package lab

import (
	"fmt"
	"strings"

	"github.com/vishvananda/netlink"

	"vcpeer/deploy/lab/shape"
	"vcpeer/deploy/lab/wan"
	"vcpeer/peer/api"
)

// Set changes what the network does between sites, by words as delay=50ms; pair as in shape.ParsePair.
func (l *Lab) Set(pair string, words ...string) error {
	p, err := shape.ParsePair(pair)
	if err == nil {
		err = l.wan.Set(p, words...)
	}
	return badRequest(err)
}

// Cut lets nothing pass: between two sites (a<>b), in one direction (a>b), or to and from a site or a node (a).
func (l *Lab) Cut(what string) error { return l.cut(what, true) }

// Heal ends what Cut began; "*" ends every cut.
func (l *Lab) Heal(what string) error { return l.cut(what, false) }

func (l *Lab) cut(what string, cut bool) error {
	if n := l.Node(what); n != nil && n.Name == what && n.site.Router {
		return l.unplug(n, cut)
	}
	if n := l.Node(what); n != nil {
		what = n.Site
	}
	p, err := shape.ParsePair(what)
	if err == nil {
		err = l.wan.Cut(p, cut)
	}
	if err != nil {
		return badRequest(err)
	}
	if !cut && p.From == shape.Any && p.To == shape.Any {
		for _, n := range l.nodes {
			if err := l.unplug(n, false); err != nil {
				return err
			}
		}
	}
	return nil
}

// unplug takes a node off the LAN of its site, so that what it sends goes nowhere; its link stays up.
func (l *Lab) unplug(n *Node, yes bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.unplugs[n.Name] == yes {
		return nil
	}
	if err := l.setPort(n, yes); err != nil {
		return fmt.Errorf("lab: %s: %w", n.Name, err)
	}
	l.unplugs[n.Name] = yes
	return nil
}

func (l *Lab) setPort(n *Node, free bool) error {
	for _, c := range l.plan.cables {
		if c.a.machine != n.Name || c.b.bridge == "" {
			continue
		}
		net, err := openNetwork(l.machines[c.b.machine].Space)
		if err != nil {
			return err
		}
		defer net.close()
		port, err := net.link.LinkByName(c.b.name)
		if err != nil {
			return err
		}
		if free {
			return net.link.LinkSetNoMaster(port)
		}
		lan, err := net.link.LinkByName(c.b.bridge)
		if err != nil {
			return err
		}
		return net.link.LinkSetMaster(port, lan.(*netlink.Bridge))
	}
	return nil
}

// Links returns every direction between two sites: what the network does to packets, and what passed.
func (l *Lab) Links() ([]wan.Line, error) { return l.wan.Lines() }

func badRequest(err error) error {
	if err == nil {
		return nil
	}
	return &api.Problem{Code: api.CodeBadRequest, Message: err.Error(), Hint: "vcpeer lab status lists sites and nodes"}
}

func (l *Lab) noMachine(name string) error {
	var names []string
	for _, n := range l.nodes {
		names = append(names, n.Name)
	}
	return noMachine(name, names)
}

func noMachine(name string, names []string) error {
	return &api.Problem{Code: api.CodeNotFound, Message: fmt.Sprintf("the lab has no node %q; it has %s", name, strings.Join(names, ", ")),
		Hint: "vcpeer lab status lists sites and nodes; a site's name will do where it has one node"}
}
