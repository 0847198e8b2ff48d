package crdt

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Site is a set of machines that stand together.
type Site struct {
	ID      SiteID
	Asked   string // the name it was given
	Name    string // the name in force: Asked, unless another site holds that
	Founder NodeID // the node that made it
	Made    time.Time
	Nodes   int // members, neither left nor evicted, whose host record names it
}

// Host is a machine as it describes itself.
type Host struct {
	ID       NodeID
	Standing Standing
	Asked    string // the name it asked for
	Name     string // the name in force: Asked, unless another host holds that
	Site     SiteID
	Addrs    []string // multiaddrs of its port
	OS       string
	Arch     string
	CPUs     int
	MemBytes int64
	Version  string
	Address  netip.Addr // in the overlay; not valid while it has none, or has lost it and not claimed another yet
	Address6 netip.Addr // goes with Address
	Label    uint16     // in force, 1 to 16,382; 0 while it has none, or has lost it and not claimed another yet
	UnderlayFacts
}

// MAC returns the host's Ethernet address in the overlay; zero while it has no address.
func (h Host) MAC() MAC { return MACOf(h.Address) }

// UnderlayFacts is what a node says of how it takes part in the overlay. Zero: it does not.
type UnderlayFacts struct {
	Overlay     int          // the layout of labels that it understands, at most 255; 0: it takes no part
	Underlay    []netip.Addr // at which it takes GRE, IPv4 and IPv6, at most 8; outside the overlay
	UnderlayMTU int          // bytes, the smallest of their interfaces; 0: unknown
	NoTransit   bool         // it forwards nothing for others
}

// places is the part of a view about sites and hosts.
type places struct {
	sites     []Site
	hosts     []Host
	guests    []Guest
	hostByID  map[NodeID]int
	guestByID map[GuestID]int
	evicted   map[NodeID]string // what the hosts of evicted nodes asked to be called
	book      book
	conflicts []Conflict
}

// Ranks of claims on a place: what lives goes before what has gone.
const (
	rankLive = iota
	rankGone
)

func (s *State) buildPlaces(v *View, r *reader) *places {
	n := len(s.objects.kinds[kindHost])
	p := &places{book: make(book, 2*n), hostByID: make(map[NodeID]int, n), evicted: map[NodeID]string{}}
	nodes := map[SiteID]int{}
	records := make([]member, 0, n)
	for id := range s.objects.kinds[kindHost] {
		h, standing := s.host(id, v, r, p.book)
		switch {
		case h != nil:
			records = append(records, member{h, standing})
			if standing == Joined {
				nodes[h.host.Site]++
			}
		case standing == Evicted:
			p.evicted[NodeID([]byte(id))] = r.host(id).host.Asked
		}
	}
	var guests []*guestRecord
	for id := range s.objects.kinds[kindGuest] {
		if g := s.guest(id, v, r, p.book); g != nil {
			guests = append(guests, g)
		}
	}
	var sites []Site
	for id := range s.objects.kinds[kindSite] {
		if site, ok := s.site(id, nodes, r, p.book); ok {
			sites = append(sites, site)
		}
	}
	s.decide(p.book, r.now)
	p.putHosts(s.range6, records)
	p.putGuests(s.range6, guests)
	p.putSites(sites)
	p.listConflicts()
	return p
}

// member is a host and what its node is to the cluster.
type member struct {
	*hostRecord
	standing Standing
}

// putHosts lists the hosts by what they are called. It sorts references, since a host is large.
func (p *places) putHosts(range6 netip.Prefix, records []member) {
	type named struct {
		name string
		h    member
	}
	order := make([]named, len(records))
	for i, h := range records {
		order[i] = named{p.book.name(ClaimHostName, h.host.Asked, h.text, "node"), h}
	}
	slices.SortFunc(order, func(a, b named) int {
		return cmp.Or(cmp.Compare(a.name, b.name), a.h.host.ID.Compare(b.h.host.ID))
	})
	p.hosts = make([]Host, len(records))
	for i, o := range order {
		h := &p.hosts[i]
		*h = o.h.host
		h.Name, h.Standing = o.name, o.h.standing
		if o.h.slot != "" && p.book.holder(ClaimAddress, o.h.slot) == o.h.text {
			h.Address, h.Address6 = o.h.addr, Address6(range6, o.h.addr)
		}
		if o.h.label != "" && p.book.holder(ClaimLabel, o.h.label) == o.h.text {
			h.Label = o.h.labelNumber
		}
		p.hostByID[h.ID] = i
	}
}

func (p *places) putSites(sites []Site) {
	for i := range sites {
		sites[i].Name = p.book.name(ClaimSiteName, sites[i].Asked, sites[i].ID.String(), "site")
	}
	slices.SortFunc(sites, func(a, b Site) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), bytes.Compare(a.ID[:], b.ID[:]))
	})
	p.sites = sites
}

// hostRecord is what one object says of a host.
type hostRecord struct {
	host        Host
	text        string // the ID
	addr        netip.Addr
	slot        string // addr as text
	labelNumber uint16
	label       string // labelNumber as text; empty: none
	nameFact    fact
	addressFact fact
	labelFact   fact
}

func (r *reader) host(id string) *hostRecord {
	h := &hostRecord{}
	h.host.ID = NodeID([]byte(id))
	h.text = h.host.ID.String()
	r.bytes(h.host.Site[:], kindHost, id, fieldSite)
	if f, ok := r.set(kindHost, id, fieldAddrs); ok {
		readValue(f.value, &h.host.Addrs)
	}
	h.host.OS, h.host.Arch, h.host.Version = r.text(kindHost, id, fieldOS), r.text(kindHost, id, fieldArch), r.text(kindHost, id, fieldVersion)
	h.host.CPUs, h.host.MemBytes = int(min(r.number(kindHost, id, fieldCPUs), 1<<20)), int64(min(r.number(kindHost, id, fieldMem), 1<<60))
	h.nameFact, _ = r.set(kindHost, id, fieldName)
	if name := readText(h.nameFact.value); CheckLabel("", name) == nil {
		h.host.Asked = name
	}
	h.addressFact, _ = r.set(kindHost, id, fieldAddress)
	if addr, ok := slotAddr(r.s.founding.Range, readNumber(h.addressFact.value)); ok {
		h.addr, h.slot = addr, addr.String()
	}
	h.labelFact, _ = r.set(kindHost, id, fieldLabel)
	if n := readNumber(h.labelFact.value); labelText(n) != "" {
		h.labelNumber, h.label = uint16(n), labelText(n)
	}
	h.host.UnderlayFacts = r.underlay(id)
	return h
}

func (r *reader) underlay(id string) UnderlayFacts {
	u := UnderlayFacts{
		Overlay:     int(min(r.number(kindHost, id, fieldOverlay), maxOverlay)),
		UnderlayMTU: int(min(r.number(kindHost, id, fieldUnderlayMTU), maxMTU)),
		NoTransit:   r.bool(kindHost, id, fieldNoTransit),
	}
	var list [][]byte
	if f, ok := r.set(kindHost, id, fieldUnderlay); ok && readValue(f.value, &list) {
		for _, b := range list[:min(len(list), maxUnderlay)] {
			if a, ok := netip.AddrFromSlice(b); ok && r.s.checkUnderlay(a) == nil {
				u.Underlay = append(u.Underlay, a)
			}
		}
	}
	return u
}

// host reads one host and books its claims; nil for strangers and evicted nodes, who have no host and claim nothing.
func (s *State) host(id string, v *View, r *reader, b book) (*hostRecord, Standing) {
	if len(id) != len(NodeID{}) {
		return nil, Stranger
	}
	standing := v.Standing(NodeID([]byte(id)))
	if !standing.Admitted() {
		return nil, standing
	}
	h := record(r, kindHost, id, func() *hostRecord { return r.host(id) })
	rank := rankLive
	if standing == Left {
		rank = rankGone
	}
	b.add(ClaimHostName, h.host.Asked, claim{id: h.text, label: h.host.Asked, f: h.nameFact, rank: rank})
	b.add(ClaimAddress, h.slot, claim{id: h.text, label: h.host.Asked, f: h.addressFact, rank: rank})
	b.add(ClaimLabel, h.label, claim{id: h.text, label: h.host.Asked, f: h.labelFact, rank: rank})
	return h, standing
}

func (s *State) site(id string, nodes map[SiteID]int, r *reader, b book) (Site, bool) {
	f, ok := r.set(kindSite, id, fieldName)
	if name := readText(f.value); !ok || len(id) != len(SiteID{}) || CheckLabel("", name) != nil {
		return Site{}, false
	}
	site := Site{ID: SiteID([]byte(id)), Asked: readText(f.value), Made: f.stamp.Time()}
	r.bytes(site.Founder[:], kindSite, id, fieldFounder)
	site.Nodes = nodes[site.ID]
	rank := rankLive
	if site.Nodes == 0 {
		rank = rankGone
	}
	b.add(ClaimSiteName, site.Asked, claim{id: site.ID.String(), label: site.Asked, f: f, rank: rank})
	return site, true
}

// name returns the name in force for the object: the one it asked for if it holds that, else that name with as much of a
// hash of its ID as makes it free. An object that asked for none is named by what it is and the hash.
func (b book) name(kind, asked, id, what string) string {
	if asked != "" && b.holder(kind, asked) == id {
		return asked
	}
	sum := sha256.Sum256([]byte(id))
	tail := hex.EncodeToString(sum[:])
	for n := 6; ; n += 2 {
		name := what + "-" + tail[:n]
		if asked != "" {
			name = strings.TrimRight(asked[:min(len(asked), 62-n)], "-") + "-" + tail[:n]
		}
		if n >= 60 || b.holder(kind, name) == "" {
			return name
		}
	}
}

// inForce is what an object has in force, by the kind of claim, and the command that renames it.
type inForce struct {
	of     map[string]string
	rename string
}

func (p *places) listConflicts() {
	contested := p.book.contested()
	if len(contested) == 0 {
		return
	}
	now := map[string]inForce{} // by ID as text
	for _, s := range p.sites {
		now[s.ID.String()] = inForce{map[string]string{ClaimSiteName: s.Name}, "vcpeer site rename " + s.Name + " NEWNAME"}
	}
	for _, h := range p.hosts {
		now[h.ID.String()] = inForce{
			map[string]string{ClaimHostName: h.Name, ClaimAddress: addrText(h.Address), ClaimLabel: labelText(uint64(h.Label))},
			"vcpeer host rename " + h.Name + " NEWNAME",
		}
	}
	for _, g := range p.guests {
		now[g.ID.String()] = inForce{
			map[string]string{ClaimHostName: g.Name, ClaimAddress: addrText(g.Address)}, "vcpeer guest rename " + g.Name + " NEWNAME",
		}
	}
	for _, k := range contested {
		claims := p.book[k]
		if claims[1].rank != rankLive {
			continue // what has gone does not contest
		}
		c := p.book.conflict(k, func(id string) string { return now[id].of[k.kind] }, now[claims[1].id].rename)
		c.InForce = "each loser goes by the name shown"
		if k.kind == ClaimAddress || k.kind == ClaimLabel {
			c.InForce = "only the winner has the " + k.kind
			c.Settle = "none needed: the loser claims another " + k.kind + " by itself"
		}
		p.conflicts = append(p.conflicts, c)
	}
}

func addrText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}
