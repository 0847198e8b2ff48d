package ovs

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"

	"github.com/ovn-kubernetes/libovsdb/ovsdb"
)

// Bridge is one that is wanted. It is made with fail_mode=secure, so that it forwards nothing before Program says so.
type Bridge struct {
	Name        string // at most 15 bytes, as the kernel's interfaces
	Datapath    string // "netdev" or "system"; see Info
	MAC         net.HardwareAddr
	MTU         int // of its own port; 0: Open vSwitch's choice
	OtherConfig map[string]string
	Ports       []Port // without its own
}

// Port is one that is wanted in a Bridge. A name must not come back with another type: Open vSwitch 3.1 may hold the old
// device for a while, and then fails an assertion (tnl_port_add__) and is gone.
type Port struct {
	Name        string
	Type        string // "gre", "tap", "internal"; empty: an interface of the system
	Options     map[string]string
	OFPort      int               // number asked for; 0: any. Open vSwitch may give another; see Ports
	BFD         map[string]string // "enable": "true"
	MTU         int
	MAC         net.HardwareAddr  // of an internal port
	ExternalIDs map[string]string // beside the owner
}

// ownerKey stands in external_ids of what we make.
const ownerKey = "vcpeer-owner"

// protocols that a bridge speaks: 1.0 for people's ovs-ofctl, 1.4 for bundles, 1.5 for groups.
var protocols = []string{"OpenFlow10", "OpenFlow13", "OpenFlow14", "OpenFlow15"}

func check(want []Bridge) error {
	seen := map[string]bool{}
	name := func(kind, n string) error {
		switch {
		case n == "" || len(n) > 15:
			return fmt.Errorf("ovs: %s %q: a name has 1 to 15 bytes", kind, n)
		case seen[n]:
			return fmt.Errorf("ovs: %s %s is wanted twice", kind, n)
		}
		seen[n] = true
		return nil
	}
	var errs []error
	for _, b := range want {
		errs = append(errs, name("bridge", b.Name))
		for _, p := range b.Ports {
			errs = append(errs, name("port", p.Name))
		}
	}
	return errors.Join(errs...)
}

// clone shares nothing that a caller might change.
func clone(want []Bridge) []Bridge {
	want = slices.Clone(want)
	for i, b := range want {
		want[i].OtherConfig, want[i].Ports = maps.Clone(b.OtherConfig), slices.Clone(b.Ports)
		for j, p := range want[i].Ports {
			p.Options, p.BFD, p.ExternalIDs = maps.Clone(p.Options), maps.Clone(p.BFD), maps.Clone(p.ExternalIDs)
			want[i].Ports[j] = p
		}
	}
	return want
}

// local is the bridge's own port.
func (b Bridge) local() Port { return Port{Name: b.Name, Type: "internal", MTU: b.MTU} }

func (b Bridge) otherConfig() map[string]string {
	m := maps.Clone(b.OtherConfig)
	if m == nil {
		m = map[string]string{}
	}
	if b.MAC != nil {
		m["hwaddr"] = b.MAC.String()
	}
	return m
}

// plan turns have into want; no operations: it is so already. Equal inputs give equal operations.
func plan(owner string, want []Bridge, have *content) ([]ovsdb.Operation, error) {
	p := planner{owner: owner, have: have}
	want = slices.SortedFunc(slices.Values(want), func(a, b Bridge) int { return cmp.Compare(a.Name, b.Name) })
	for _, b := range want {
		if err := p.bridge(b); err != nil {
			return nil, err
		}
	}
	for _, b := range have.sorted() {
		wanted := slices.ContainsFunc(want, func(w Bridge) bool { return w.Name == b.name })
		if b.externalIDs[ownerKey] == owner && !wanted {
			p.mutate("Open_vSwitch", have.root, *ovsdb.NewMutation("bridges", ovsdb.MutateOperationDelete, uuidSet(b.uuid)))
		}
	}
	return p.ops, nil
}

// planner gathers the operations of one transaction.
type planner struct {
	owner string
	have  *content
	ops   []ovsdb.Operation
	rows  int // inserted
}

func (p *planner) bridge(want Bridge) error {
	have := p.have.bridges[want.Name]
	if have != nil && have.externalIDs[ownerKey] != p.owner {
		return &ForeignError{"bridge", want.Name, have.externalIDs[ownerKey]}
	}
	ports := slices.SortedFunc(slices.Values(want.Ports), func(a, b Port) int { return cmp.Compare(a.Name, b.Name) })
	var add, remove []string
	for _, w := range append([]Port{want.local()}, ports...) {
		id, err := p.port(want.Name, w)
		if err != nil {
			return err
		}
		if id != "" {
			add = append(add, id)
		}
	}
	if have == nil {
		id := p.insert("Bridge", ovsdb.Row{
			"name": want.Name, "datapath_type": want.Datapath, "fail_mode": "secure", "protocols": stringSet(protocols),
			"other_config": stringMap(want.otherConfig()), "external_ids": stringMap(map[string]string{ownerKey: p.owner}),
			"ports": uuidSet(add...),
		})
		p.mutate("Open_vSwitch", p.have.root, *ovsdb.NewMutation("bridges", ovsdb.MutateOperationInsert, uuidSet(id)))
		return nil
	}
	row := ovsdb.Row{}
	if have.datapath != want.Datapath {
		row["datapath_type"] = want.Datapath
	}
	if have.failMode != "secure" {
		row["fail_mode"] = "secure"
	}
	if !slices.Equal(slices.Sorted(slices.Values(have.protocols)), protocols) {
		row["protocols"] = stringSet(protocols)
	}
	p.update("Bridge", have.uuid, row)
	for _, port := range have.ports {
		wanted := port.name == want.Name || slices.ContainsFunc(ports, func(w Port) bool { return w.Name == port.name })
		if port.externalIDs[ownerKey] == p.owner && !wanted {
			remove = append(remove, port.uuid)
		}
	}
	changes := mapChanges("other_config", want.otherConfig(), have.otherConfig)
	if len(add) > 0 {
		changes = append(changes, *ovsdb.NewMutation("ports", ovsdb.MutateOperationInsert, uuidSet(add...)))
	}
	if len(remove) > 0 {
		changes = append(changes, *ovsdb.NewMutation("ports", ovsdb.MutateOperationDelete, uuidSet(remove...)))
	}
	p.mutate("Bridge", have.uuid, changes...)
	return nil
}

// port plans one, and returns its row if it has yet to be put into the bridge.
func (p *planner) port(bridge string, want Port) (id string, err error) {
	ids := map[string]string{}
	maps.Copy(ids, want.ExternalIDs)
	ids[ownerKey] = p.owner
	have := p.have.ports[want.Name]
	if have == nil {
		face := p.insert("Interface", want.columns())
		return p.insert("Port", ovsdb.Row{"name": want.Name, "interfaces": uuidSet(face), "external_ids": stringMap(ids)}), nil
	}
	if have.externalIDs[ownerKey] != p.owner && want.Name != bridge || len(have.interfaces) != 1 {
		return "", &ForeignError{"port", want.Name, have.externalIDs[ownerKey]}
	}
	if have.bridge != bridge { // from one of ours to another
		from := p.have.bridges[have.bridge]
		if from == nil || from.externalIDs[ownerKey] != p.owner || have.name == have.bridge {
			return "", &ForeignError{"port", want.Name, have.externalIDs[ownerKey]}
		}
		p.mutate("Bridge", from.uuid, *ovsdb.NewMutation("ports", ovsdb.MutateOperationDelete, uuidSet(have.uuid)))
		id = have.uuid
	}
	p.mutate("Port", have.uuid, mapChanges("external_ids", ids, have.externalIDs)...)
	face := have.interfaces[0]
	row := ovsdb.Row{}
	for column, v := range want.columns() {
		if !face.is(want, column) {
			row[column] = v
		}
	}
	p.update("Interface", face.uuid, row)
	return id, nil
}

// columns are those of an Interface that are ours alone.
func (p Port) columns() ovsdb.Row {
	row := ovsdb.Row{"name": p.Name, "type": p.Type, "options": stringMap(p.Options), "bfd": stringMap(p.BFD),
		"ofport_request": ovsdb.OvsSet{}, "mtu_request": ovsdb.OvsSet{}, "mac": ovsdb.OvsSet{}}
	if p.OFPort > 0 {
		row["ofport_request"] = p.OFPort
	}
	if p.MTU > 0 {
		row["mtu_request"] = p.MTU
	}
	if p.MAC != nil {
		row["mac"] = p.MAC.String()
	}
	return row
}

// is reports whether a column is as wanted.
func (i *interfaceRow) is(want Port, column string) bool {
	switch column {
	case "name":
		return true // by it the row was found
	case "type":
		return i.kind == want.Type
	case "options":
		return maps.Equal(i.options, want.Options)
	case "bfd":
		return maps.Equal(i.bfd, want.BFD)
	case "ofport_request":
		return i.ofportRequest == want.OFPort
	case "mtu_request":
		return i.mtuRequest == want.MTU
	case "mac":
		return i.mac == want.MAC.String()
	}
	panic("ovs: column " + column)
}

func (p *planner) insert(tab string, row ovsdb.Row) (id string) {
	p.rows++
	id = fmt.Sprintf("row%d", p.rows)
	p.ops = append(p.ops, ovsdb.Operation{Op: ovsdb.OperationInsert, Table: tab, Row: row, UUIDName: id})
	return id
}

func (p *planner) update(tab, id string, row ovsdb.Row) {
	if len(row) > 0 {
		p.ops = append(p.ops, ovsdb.Operation{Op: ovsdb.OperationUpdate, Table: tab, Row: row, Where: where(id)})
	}
}

func (p *planner) mutate(tab, id string, changes ...ovsdb.Mutation) {
	if len(changes) > 0 {
		p.ops = append(p.ops, ovsdb.Operation{Op: ovsdb.OperationMutate, Table: tab, Mutations: changes, Where: where(id)})
	}
}

// mapChanges sets the wanted keys of a map and leaves the others, which may be somebody else's.
func mapChanges(column string, want, have map[string]string) []ovsdb.Mutation {
	set, old := map[string]string{}, []string{}
	for _, k := range slices.Sorted(maps.Keys(want)) {
		v, ok := have[k]
		if ok && v == want[k] {
			continue
		}
		if ok {
			old = append(old, k)
		}
		set[k] = want[k]
	}
	var changes []ovsdb.Mutation
	if len(old) > 0 {
		changes = append(changes, *ovsdb.NewMutation(column, ovsdb.MutateOperationDelete, stringSet(old)))
	}
	if len(set) > 0 {
		changes = append(changes, *ovsdb.NewMutation(column, ovsdb.MutateOperationInsert, stringMap(set)))
	}
	return changes
}
