package crdt

import (
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
}

// places is the part of a view about sites and hosts.
type places struct {
	sites     []Site
	hosts     []Host
	hostByID  map[NodeID]int
	book      book
	conflicts []Conflict
}

// Ranks of claims on a place: what lives goes before what has gone.
const (
	rankLive = iota
	rankGone
)

func (s *State) buildPlaces(v *View, r *reader) *places {
	p := &places{book: book{}, hostByID: map[NodeID]int{}}
	nodes := map[SiteID]int{}
	wanted := map[NodeID]netip.Addr{}
	for id := range s.objects.kinds[kindHost] {
		if h, addr, ok := s.host(id, v, r, p.book); ok {
			p.hosts = append(p.hosts, h)
			wanted[h.ID] = addr
			if h.Standing == Joined {
				nodes[h.Site]++
			}
		}
	}
	for id := range s.objects.kinds[kindSite] {
		if site, ok := s.site(id, nodes, r, p.book); ok {
			p.sites = append(p.sites, site)
		}
	}
	s.decide(p.book, r.now)
	for i := range p.hosts {
		h := &p.hosts[i]
		h.Name = p.book.name(ClaimHostName, h.Asked, h.ID.String())
		if a := wanted[h.ID]; a.IsValid() && p.book.holder(ClaimAddress, a.String()) == h.ID.String() {
			h.Address = a
		}
	}
	for i := range p.sites {
		p.sites[i].Name = p.book.name(ClaimSiteName, p.sites[i].Asked, p.sites[i].ID.String())
	}
	p.sort()
	p.listConflicts()
	return p
}

func (p *places) sort() {
	slices.SortFunc(p.hosts, func(a, b Host) int { return cmp.Or(cmp.Compare(a.Name, b.Name), a.ID.Compare(b.ID)) })
	slices.SortFunc(p.sites, func(a, b Site) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID.String(), b.ID.String()))
	})
	for i := range p.hosts {
		p.hostByID[p.hosts[i].ID] = i
	}
}

// host reads one host and books its claims. Strangers and evicted nodes have no host and claim nothing.
func (s *State) host(id string, v *View, r *reader, b book) (Host, netip.Addr, bool) {
	if len(id) != len(NodeID{}) {
		return Host{}, netip.Addr{}, false
	}
	h := Host{ID: NodeID([]byte(id))}
	h.Standing = v.Standing(h.ID)
	if !h.Standing.Admitted() {
		return Host{}, netip.Addr{}, false
	}
	rank := rankLive
	if h.Standing == Left {
		rank = rankGone
	}
	h.Site = SiteID{}
	r.bytes(h.Site[:], kindHost, id, fieldSite)
	if f, ok := r.set(kindHost, id, fieldAddrs); ok {
		readValue(f.value, &h.Addrs)
	}
	h.OS, h.Arch, h.Version = r.text(kindHost, id, fieldOS), r.text(kindHost, id, fieldArch), r.text(kindHost, id, fieldVersion)
	h.CPUs, h.MemBytes = int(min(r.number(kindHost, id, fieldCPUs), 1<<20)), int64(min(r.number(kindHost, id, fieldMem), 1<<60))
	if f, ok := r.set(kindHost, id, fieldName); ok && CheckLabel("", readText(f.value)) == nil {
		h.Asked = readText(f.value)
		b.add(ClaimHostName, h.Asked, claim{id: h.ID.String(), label: h.Asked, f: f, rank: rank})
	}
	var addr netip.Addr
	if f, ok := r.set(kindHost, id, fieldAddress); ok {
		if addr, ok = slotAddr(readNumber(f.value)); ok {
			b.add(ClaimAddress, addr.String(), claim{id: h.ID.String(), label: h.Asked, f: f, rank: rank})
		}
	}
	return h, addr, true
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
// hash of its ID as makes it free. An object that asked for none is named by the hash alone.
func (b book) name(kind, asked, id string) string {
	if asked != "" && b.holder(kind, asked) == id {
		return asked
	}
	sum := sha256.Sum256([]byte(id))
	tail := hex.EncodeToString(sum[:])
	for n := 6; ; n += 2 {
		name := "node-" + tail[:n]
		if asked != "" {
			name = strings.TrimRight(asked[:min(len(asked), 62-n)], "-") + "-" + tail[:n]
		}
		if n >= 60 || b.holder(kind, name) == "" {
			return name
		}
	}
}

func (p *places) listConflicts() {
	hosts, sites := map[string]Host{}, map[string]Site{}
	for _, h := range p.hosts {
		hosts[h.ID.String()] = h
	}
	for _, s := range p.sites {
		sites[s.ID.String()] = s
	}
	for _, k := range p.book.contested() {
		claims := p.book[k]
		if claims[1].rank != rankLive {
			continue // what has gone does not contest
		}
		var c Conflict
		switch k.kind {
		case ClaimHostName:
			c = p.book.conflict(k, func(id string) string { return hosts[id].Name }, "vcpeer host rename "+hosts[claims[1].id].Name+" NEWNAME")
			c.InForce = "each loser goes by the name shown"
		case ClaimSiteName:
			c = p.book.conflict(k, func(id string) string { return sites[id].Name }, "vcpeer site rename "+sites[claims[1].id].Name+" NEWNAME")
			c.InForce = "each loser goes by the name shown"
		case ClaimAddress:
			inForce := func(id string) string {
				if a := hosts[id].Address; a.IsValid() {
					return a.String()
				}
				return ""
			}
			c = p.book.conflict(k, inForce, "none needed: the loser claims another address by itself")
			c.InForce = "only the winner has the address"
		}
		p.conflicts = append(p.conflicts, c)
	}
}
