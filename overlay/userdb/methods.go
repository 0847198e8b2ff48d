package userdb

import (
	"bytes"
	"encoding/json"
	"errors"
	"iter"
	"math"
	"slices"
	"strings"
)

const interfaceName = "io.systemd.UserDatabase"

// Errors of the interface and of varlink itself.
const (
	errNoRecord     = interfaceName + ".NoRecordFound"
	errBadService   = interfaceName + ".BadService"
	errConflicting  = interfaceName + ".ConflictingRecordFound"
	errNonMatching  = interfaceName + ".NonMatchingRecordFound"
	errNotAvailable = interfaceName + ".ServiceNotAvailable"
	errExpectedMore = "org.varlink.service.ExpectedMore"
	errNoInterface  = "org.varlink.service.InterfaceNotFound"
	errNoMethod     = "org.varlink.service.MethodNotFound"
	errBadParameter = "org.varlink.service.InvalidParameter"
)

// userRecord is what we say of an account (https://systemd.io/USER_RECORD).
type userRecord struct {
	UserName      string `json:"userName"`
	RealName      string `json:"realName,omitempty"`
	UID           uint32 `json:"uid"`
	GID           uint32 `json:"gid"`
	HomeDirectory string `json:"homeDirectory"`
	Shell         string `json:"shell"`
	Disposition   string `json:"disposition"`
	Locked        bool   `json:"locked,omitempty"`
	NotAfterUSec  uint64 `json:"notAfterUSec,omitempty"` // expiry; the C library sees it as that of shadow(5)
	Service       string `json:"service"`
}

// groupRecord is what we say of a group (https://systemd.io/GROUP_RECORD); members are told by GetMemberships alone, for
// clients add the two up.
type groupRecord struct {
	GroupName   string `json:"groupName"`
	GID         uint32 `json:"gid"`
	Disposition string `json:"disposition"`
	Service     string `json:"service"`
}

type membership struct {
	UserName  string `json:"userName"`
	GroupName string `json:"groupName"`
}

type recordReply struct {
	Record     any  `json:"record"`
	Incomplete bool `json:"incomplete"`
}

// query is the parameters of all three methods; a nil pointer is a parameter that was not given.
type query struct {
	UID         *int64   `json:"uid"`
	GID         *int64   `json:"gid"`
	UserName    *string  `json:"userName"`
	GroupName   *string  `json:"groupName"`
	Service     string   `json:"service"`
	FuzzyNames  []string `json:"fuzzyNames"`
	Disposition []string `json:"dispositionMask"`
	UIDMin      *int64   `json:"uidMin"`
	UIDMax      *int64   `json:"uidMax"`
	GIDMin      *int64   `json:"gidMin"`
	GIDMax      *int64   `json:"gidMax"`
}

// answer returns the replies to c, at least one, made as they are asked for, so that a list of any length costs one
// record of memory.
func answer(c call, service string, s *Snapshot) iter.Seq[reply] {
	iface, method := c.Method, ""
	if i := strings.LastIndexByte(c.Method, '.'); i >= 0 {
		iface, method = c.Method[:i], c.Method[i+1:]
	}
	switch iface {
	case "org.varlink.service":
		return one(introspect(method, c))
	case interfaceName:
	default:
		return fail(errNoInterface, map[string]string{"interface": iface})
	}
	if method != "GetUserRecord" && method != "GetGroupRecord" && method != "GetMemberships" {
		return fail(errNoMethod, map[string]string{"method": c.Method})
	}
	q, bad := parseQuery(c.Parameters)
	switch {
	case bad != "":
		return fail(errBadParameter, map[string]string{"parameter": bad})
	case q.Service != service:
		return fail(errBadService, nil)
	case s == nil:
		return fail(errNotAvailable, nil)
	case method == "GetUserRecord":
		return users(q, c.More, service, s)
	case method == "GetGroupRecord":
		return groups(q, c.More, service, s)
	}
	return memberships(q, c.More, s)
}

// parseQuery returns the parameters, or the name of the one that is wrong.
func parseQuery(parameters json.RawMessage) (q query, bad string) {
	if len(bytes.TrimSpace(parameters)) == 0 {
		return q, ""
	}
	if err := json.Unmarshal(parameters, &q); err != nil {
		var wrong *json.UnmarshalTypeError
		if errors.As(err, &wrong) && wrong.Field != "" {
			return q, wrong.Field
		}
		return q, "parameters"
	}
	for name, n := range map[string]*int64{"uid": q.UID, "gid": q.GID} {
		if n != nil && (*n < 0 || *n >= math.MaxUint32) { // 2^32-1 means no user to every system call
			return q, name
		}
	}
	return q, ""
}

func users(q query, more bool, service string, s *Snapshot) iter.Seq[reply] {
	record := func(a Account) reply {
		r := userRecord{UserName: a.Name, RealName: a.FullName, UID: a.UID, GID: a.GID, HomeDirectory: a.Home, Shell: a.Shell,
			Disposition: "regular", Locked: a.Disabled, Service: service}
		if a.Disabled {
			r.NotAfterUSec = 86_400_000_000 // the end of the first day of 1970: 0 would mean never
		}
		return reply{Parameters: recordReply{Record: r}}
	}
	matches := func(a Account) bool { return q.matches(a.UID, q.UIDMin, q.UIDMax, a.Name, a.FullName) }
	if q.UID == nil && q.UserName == nil {
		return list(more, filtered(s.accounts, matches), record)
	}
	a, found, conflict := s.account(q.UserName, id(q.UID))
	return single(found, conflict, found && matches(a), func() reply { return record(a) })
}

func groups(q query, more bool, service string, s *Snapshot) iter.Seq[reply] {
	record := func(g Group) reply {
		return reply{Parameters: recordReply{Record: groupRecord{GroupName: g.Name, GID: g.GID, Disposition: "regular", Service: service}}}
	}
	matches := func(g Group) bool { return q.matches(g.GID, q.GIDMin, q.GIDMax, g.Name) }
	if q.GID == nil && q.GroupName == nil {
		return list(more, filtered(s.groups, matches), record)
	}
	g, found, conflict := s.group(q.GroupName, id(q.GID))
	return single(found, conflict, found && matches(g), func() reply { return record(g) })
}

func memberships(q query, more bool, s *Snapshot) iter.Seq[reply] {
	var all iter.Seq[membership]
	switch {
	case q.UserName != nil && q.GroupName != nil:
		more = true // at most one reply, so it needs no leave for several
		all = func(yield func(membership) bool) {
			if slices.Contains(s.groupsOf[*q.UserName], *q.GroupName) {
				yield(membership{*q.UserName, *q.GroupName})
			}
		}
	case q.UserName != nil:
		all = func(yield func(membership) bool) {
			for _, g := range s.groupsOf[*q.UserName] {
				if !yield(membership{*q.UserName, g}) {
					return
				}
			}
		}
	default:
		all = func(yield func(membership) bool) {
			for _, g := range s.groups {
				if q.GroupName != nil && g.Name != *q.GroupName {
					continue
				}
				for _, m := range g.Members {
					if !yield(membership{m, g.Name}) {
						return
					}
				}
			}
		}
	}
	return list(more, all, func(m membership) reply { return reply{Parameters: m} })
}

// matches applies the optional filters of a query.
func (q query) matches(id uint32, low, high *int64, names ...string) bool {
	if low != nil && int64(id) < *low || high != nil && int64(id) > *high {
		return false
	}
	if len(q.Disposition) > 0 && !slices.Contains(q.Disposition, "regular") {
		return false
	}
	return len(q.FuzzyNames) == 0 || slices.ContainsFunc(q.FuzzyNames, func(part string) bool {
		return slices.ContainsFunc(names, func(n string) bool { return strings.Contains(strings.ToLower(n), strings.ToLower(part)) })
	})
}

func id(n *int64) *uint32 {
	if n == nil {
		return nil
	}
	v := uint32(*n)
	return &v
}

func filtered[T any](items []T, keep func(T) bool) iter.Seq[T] {
	return func(yield func(T) bool) {
		for _, item := range items {
			if keep(item) && !yield(item) {
				return
			}
		}
	}
}

// single answers a lookup by key.
func single(found, conflict, matches bool, record func() reply) iter.Seq[reply] {
	switch {
	case conflict:
		return fail(errConflicting, nil)
	case !found:
		return fail(errNoRecord, nil)
	case !matches:
		return fail(errNonMatching, nil)
	}
	return one(record())
}

// list answers with each item in turn, all but the last marked as continued; an empty list is NoRecordFound.
func list[T any](more bool, items iter.Seq[T], record func(T) reply) iter.Seq[reply] {
	if !more {
		return fail(errExpectedMore, nil)
	}
	return func(yield func(reply) bool) {
		var last reply
		any := false
		for item := range items {
			if any {
				last.Continues = true
				if !yield(last) {
					return
				}
			}
			last, any = record(item), true
		}
		if !any {
			last = reply{Error: errNoRecord}
		}
		yield(last)
	}
}

func one(r reply) iter.Seq[reply] { return func(yield func(reply) bool) { yield(r) } }

func fail(name string, parameters map[string]string) iter.Seq[reply] {
	r := reply{Error: name}
	if parameters != nil {
		r.Parameters = parameters
	}
	return one(r)
}
