package topology

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"

	"vcpeer/deploy/lab/shape"
	"vcpeer/peer/config"
)

// field reads the value of one key.
type field func(*yaml.Node) error

// Parse reads a topology. Errors name path and line.
func Parse(path string, b []byte) (Topology, error) {
	t, err := parse(b)
	if err != nil {
		return Topology{}, fmt.Errorf("%s:%w", path, err)
	}
	return t, nil
}

func parse(b []byte) (t Topology, err error) {
	root, err := document(b)
	if err != nil {
		return t, err
	}
	node := nodeDefaults()
	var sites, links *yaml.Node
	keep := func(to **yaml.Node) field { return func(n *yaml.Node) error { *to = n; return nil } }
	if err := mapping(root, withNode(&node, map[string]field{
		"name":  text(&t.Name),
		"sites": keep(&sites), // read when the defaults of their nodes are known
		"links": keep(&links),
	})); err != nil {
		return t, err
	}
	if t.Name != "" {
		if err := checkName(t.Name); err != nil {
			return t, at(root, err)
		}
	}
	if sites == nil {
		return t, at(root, errors.New("want a key sites"))
	}
	if err := pairs(sites, func(k, v *yaml.Node) error {
		s, err := parseSite(k.Value, v, node)
		t.Sites = append(t.Sites, s)
		return err
	}); err != nil {
		return t, err
	}
	if links != nil {
		if t.Links, err = parseLinks(links); err != nil {
			return t, err
		}
	}
	if err := t.finish(); err != nil {
		return t, at(root, err)
	}
	return t, nil
}

func document(b []byte) (*yaml.Node, error) {
	dec := yaml.NewDecoder(bytes.NewReader(b))
	var doc yaml.Node
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return nil, errors.New("1: the file is empty; want at least sites")
	} else if err != nil {
		return nil, fmt.Errorf(" %w", err)
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, errors.New("1: more than one document")
	}
	if doc.Kind == yaml.DocumentNode && len(doc.Content) > 0 {
		return doc.Content[0], nil
	}
	return &doc, nil
}

// withNode adds the keys of nodes, which a topology and a site may say for all of theirs.
func withNode(n *Node, more map[string]field) map[string]field {
	fields := map[string]field{
		"start":   yesNo(&n.Start),
		"ovs":     yesNo(&n.OVS),
		"overlay": word(&n.Overlay, "auto", "on", "off"),
		"args":    list(&n.Args),
	}
	for k, f := range more {
		fields[k] = f
	}
	return fields
}

func parseSite(name string, v *yaml.Node, node Node) (Site, error) {
	s := newSite(name)
	if isNull(v) {
		v = &yaml.Node{Kind: yaml.MappingNode, Line: v.Line}
	}
	var nodes, router *yaml.Node
	keep := func(to **yaml.Node) field { return func(n *yaml.Node) error { *to = n; return nil } }
	err := mapping(v, withNode(&node, map[string]field{
		"nodes":        keep(&nodes),
		"router":       keep(&router),
		"nat":          word((*string)(&s.NAT), nats...),
		"port-mapping": word((*string)(&s.Mapping), portMappings...),
		"double-nat":   yesNo(&s.DoubleNAT),
		"ip":           word((*string)(&s.IP), families...),
		"mtu":          number(&s.MTU),
		"udp":          blocked(&s.NoUDP),
		"gre":          blocked(&s.NoGRE),
		"inbound":      blocked(&s.NoInbound),
	}))
	if err != nil {
		return s, err
	}
	if err := s.parseNodes(nodes, node); err != nil {
		return s, err
	}
	why := s.needsRouter()
	s.Router = why != ""
	if router != nil {
		if err := yesNo(&s.Router)(router); err != nil {
			return s, err
		}
		if !s.Router && why != "" {
			return s, at(router, fmt.Errorf("router: site %s needs one, since %s", name, why))
		}
	}
	return s, nil
}

// parseNodes reads a number, a list of names, or a mapping of names to what is special of each.
func (s *Site) parseNodes(v *yaml.Node, like Node) error {
	switch {
	case v == nil || isNull(v):
		s.number(1, like)
	case v.Kind == yaml.ScalarNode:
		n, err := strconv.Atoi(v.Value)
		if err != nil || n < 0 || n > maxNodes {
			return at(v, fmt.Errorf("nodes: want a number from 0 to %d, or names", maxNodes))
		}
		s.number(n, like)
	case v.Kind == yaml.SequenceNode:
		for _, c := range v.Content {
			if c.Kind != yaml.ScalarNode {
				return at(c, errors.New("nodes: want a list of names"))
			}
			n := like
			n.Name = c.Value
			s.Nodes = append(s.Nodes, n)
		}
	default:
		return pairs(v, func(k, v *yaml.Node) error {
			n := like
			n.Name = k.Value
			s.Nodes = append(s.Nodes, n)
			if isNull(v) {
				return nil
			}
			return mapping(v, withNode(&s.Nodes[len(s.Nodes)-1], nil))
		})
	}
	return nil
}

// parseLinks reads pairs; the one named default comes first wherever it stands.
func parseLinks(v *yaml.Node) ([]Link, error) {
	var links []Link
	err := pairs(v, func(k, v *yaml.Node) error {
		words, err := shapeWords(v)
		if err != nil {
			return err
		}
		if k.Value == "default" {
			links = slices.Insert(links, 0, Link{shape.Pair{From: shape.Any, To: shape.Any, Both: true}, words})
			return nil
		}
		p, err := shape.ParsePair(k.Value)
		if err != nil {
			return at(k, err)
		}
		links = append(links, Link{p, words})
		return nil
	})
	return links, err
}

// shapeWords reads "delay=5ms loss=1%" or {delay: 5ms, loss: 1%}.
func shapeWords(v *yaml.Node) ([]string, error) {
	var words []string
	if v.Kind == yaml.ScalarNode {
		words = strings.Fields(v.Value)
	} else if err := pairs(v, func(k, v *yaml.Node) error {
		if v.Kind != yaml.ScalarNode {
			return at(v, fmt.Errorf("%s: want a value", k.Value))
		}
		words = append(words, k.Value+"="+v.Value)
		return nil
	}); err != nil {
		return nil, err
	}
	if _, err := (shape.Shape{}).With(words...); err != nil {
		return nil, at(v, err)
	}
	return words, nil
}

// unknown names the nearest of the keys that are known.
func unknown(key string, fields map[string]field) error {
	var names []string
	for name := range fields {
		names = append(names, name)
	}
	slices.Sort(names)
	return shape.Unknown(key, names)
}

func notAmong(value string, words []string) error {
	if near := config.Nearest(value, words); near != "" {
		return fmt.Errorf("%q: want %s; did you mean %s?", value, strings.Join(words, ", "), near)
	}
	return fmt.Errorf("%q: want %s", value, strings.Join(words, ", "))
}
