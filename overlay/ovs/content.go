package ovs

import (
	"cmp"
	"maps"
	"slices"

	"github.com/ovn-kubernetes/libovsdb/ovsdb"
)

// content is what the database holds, as far as it concerns us.
type content struct {
	root      string // the row of Open_vSwitch
	next, cur int    // how often somebody wanted a change, and the last that ovs-vswitchd has done
	datapaths []string
	kinds     []string // of interfaces

	bridges map[string]*bridgeRow // by name
	ports   map[string]*portRow   // by name
}

type bridgeRow struct {
	uuid, name, datapath, failMode string
	protocols                      []string
	otherConfig, externalIDs       map[string]string
	ports                          []*portRow // sorted by name
}

type portRow struct {
	uuid, name, bridge string
	externalIDs        map[string]string
	interfaces         []*interfaceRow
}

type interfaceRow struct {
	uuid, name, kind, mac     string
	options, bfd              map[string]string
	ofportRequest, mtuRequest int // 0: none

	ofport, mtu              int
	err, linkState, macInUse string
	bfdStatus                map[string]string
}

// questions read all of content in one transaction.
var questions = []ovsdb.Operation{
	question("Open_vSwitch", "bridges", "next_cfg", "cur_cfg", "datapath_types", "iface_types"),
	question("Bridge", "name", "datapath_type", "fail_mode", "protocols", "other_config", "external_ids", "ports"),
	question("Port", "name", "external_ids", "interfaces"),
	question("Interface", "name", "type", "mac", "options", "bfd", "ofport_request", "mtu_request",
		"ofport", "mtu", "error", "link_state", "mac_in_use", "bfd_status"),
}

func question(table string, columns ...string) ovsdb.Operation {
	return ovsdb.Operation{Op: ovsdb.OperationSelect, Table: table, Columns: append(columns, "_uuid")}
}

// newContent reads the answers to questions. A column that is missing or of another type reads as empty.
func newContent(answers [][]ovsdb.Row) *content {
	c := &content{bridges: map[string]*bridgeRow{}, ports: map[string]*portRow{}}
	faces, ports := map[string]*interfaceRow{}, map[string]*portRow{}
	for _, r := range answers[3] {
		faces[uuid(r)] = &interfaceRow{
			uuid: uuid(r), name: text(r["name"]), kind: text(r["type"]), mac: text(r["mac"]),
			options: pairs(r["options"]), bfd: pairs(r["bfd"]),
			ofportRequest: number(r["ofport_request"]), mtuRequest: number(r["mtu_request"]),
			ofport: number(r["ofport"]), mtu: number(r["mtu"]), err: text(r["error"]),
			linkState: text(r["link_state"]), macInUse: text(r["mac_in_use"]), bfdStatus: pairs(r["bfd_status"]),
		}
	}
	for _, r := range answers[2] {
		p := &portRow{uuid: uuid(r), name: text(r["name"]), externalIDs: pairs(r["external_ids"])}
		for _, id := range texts(r["interfaces"]) {
			if f := faces[id]; f != nil {
				p.interfaces = append(p.interfaces, f)
			}
		}
		ports[p.uuid], c.ports[p.name] = p, p
	}
	for _, r := range answers[1] {
		b := &bridgeRow{
			uuid: uuid(r), name: text(r["name"]), datapath: text(r["datapath_type"]), failMode: text(r["fail_mode"]),
			protocols: texts(r["protocols"]), otherConfig: pairs(r["other_config"]), externalIDs: pairs(r["external_ids"]),
		}
		for _, id := range texts(r["ports"]) {
			if p := ports[id]; p != nil {
				p.bridge = b.name
				b.ports = append(b.ports, p)
			}
		}
		slices.SortFunc(b.ports, func(x, y *portRow) int { return cmp.Compare(x.name, y.name) })
		c.bridges[b.name] = b
	}
	for _, r := range answers[0] {
		c.root, c.next, c.cur = uuid(r), number(r["next_cfg"]), number(r["cur_cfg"])
		c.datapaths, c.kinds = texts(r["datapath_types"]), texts(r["iface_types"])
	}
	return c
}

// sorted returns the bridges by name.
func (c *content) sorted() []*bridgeRow {
	return slices.SortedFunc(maps.Values(c.bridges), func(a, b *bridgeRow) int { return cmp.Compare(a.name, b.name) })
}

// states are the ports of a bridge by name, its own among them.
func (c *content) states(bridge string) map[string]PortState {
	b := c.bridges[bridge]
	if b == nil {
		return nil
	}
	states := make(map[string]PortState, len(b.ports))
	for _, p := range b.ports {
		if len(p.interfaces) > 0 {
			states[p.name] = p.interfaces[0].state()
		}
	}
	return states
}

func (i *interfaceRow) state() PortState {
	return PortState{
		OFPort: i.ofport, Error: i.err, Up: i.linkState == "up", MTU: i.mtu, MAC: i.macInUse,
		BFD: BFD{
			On: i.bfd["enable"] == "true", Forwarding: i.bfdStatus["forwarding"] == "true",
			State: i.bfdStatus["state"], Remote: i.bfdStatus["remote_state"], Diagnostic: i.bfdStatus["diagnostic"],
		},
	}
}

// Ports returns what Open vSwitch says of the ports of a bridge, by name, its own among them; nil: there is no such
// bridge. It is as of the last change that the database told of, usually a millisecond ago.
func (s *Switch) Ports(bridge string) map[string]PortState { return s.view.Load().states(bridge) }

// The values of RFC 7047 in Go and back: a set of one is the bare value, an optional one is a set.

func uuid(r ovsdb.Row) string { return text(r["_uuid"]) }

func text(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case ovsdb.UUID:
		return v.GoUUID
	case ovsdb.OvsSet:
		if len(v.GoSet) == 1 {
			return text(v.GoSet[0])
		}
	}
	return ""
}

func texts(v any) []string {
	set, ok := v.(ovsdb.OvsSet)
	if !ok {
		set.GoSet = []any{v}
	}
	var all []string
	for _, e := range set.GoSet {
		if t := text(e); t != "" {
			all = append(all, t)
		}
	}
	return all
}

func number(v any) int {
	switch v := v.(type) {
	case float64:
		return int(v)
	case int:
		return v
	case ovsdb.OvsSet:
		if len(v.GoSet) == 1 {
			return number(v.GoSet[0])
		}
	}
	return 0
}

func pairs(v any) map[string]string {
	m, _ := v.(ovsdb.OvsMap)
	all := make(map[string]string, len(m.GoMap))
	for k, e := range m.GoMap {
		all[text(k)] = text(e)
	}
	return all
}

func stringSet(all []string) ovsdb.OvsSet {
	set := ovsdb.OvsSet{}
	for _, s := range all {
		set.GoSet = append(set.GoSet, s)
	}
	return set
}

func uuidSet(ids ...string) ovsdb.OvsSet {
	set := ovsdb.OvsSet{}
	for _, id := range ids {
		set.GoSet = append(set.GoSet, ovsdb.UUID{GoUUID: id})
	}
	return set
}

func stringMap(m map[string]string) ovsdb.OvsMap {
	all := make(map[any]any, len(m))
	for k, v := range m {
		all[k] = v
	}
	return ovsdb.OvsMap{GoMap: all}
}

func where(id string) []ovsdb.Condition {
	return []ovsdb.Condition{ovsdb.NewCondition("_uuid", ovsdb.ConditionEqual, ovsdb.UUID{GoUUID: id})}
}
