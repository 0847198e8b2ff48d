// Package hosts keeps the names of the cluster's nodes in /etc/hosts, in a block of its own (see package marked), so that
// every program of the machine resolves them without a name server. It decides which names are safe to write; which
// address a node has and which host holds a contested name is decided by the records and comes in as entries.
//
// Update is the pure core: old file and wanted entries to new file. A Keeper runs it whenever the wanted entries change,
// and now and then in case somebody edited the file:
//
//	k, err := hosts.NewKeeper(hosts.Config{Instance: "default", Log: log})
//	go k.Run(ctx)
//	k.Set([]hosts.Entry{{Addr: netip.MustParseAddr("10.77.3.1"), Host: "node1", Site: "kyoto"}}) // never blocks
//
// A node is written as HOST.SITE, and as HOST alone when no other entry and no other line of the file gives that name
// to another address. A name that must be left out stays in the block as a comment that says why. A machine's own name
// is often given to 127.0.1.1, where no other machine of a parallel program finds it: the block takes that line's place.
//
// An IPv6 address has names of its own, ip6-HOST.SITE and ip6-HOST, after those that systems ship. Under the same name glibc
// would have all programs try it first (RFC 3484, whose table it keeps), musl and Go the IPv4 address (RFC 6724). It is not
// as good: it has 20 bytes less in each packet, no path takes it that carries less than 1280, a service may listen on
// IPv4 alone, and a machine whose IPv6 is off, or that asked for an IPv4 address only, leaves a program waiting for minutes.
package hosts

import (
	"fmt"
	"net/netip"
	"regexp"
	"strings"
)

// Entry is one host. Two entries may ask for the same host name at different sites.
type Entry struct {
	Addr netip.Addr
	Six  netip.Addr // its IPv6 address beside that; not valid: it has none
	Host string     // a host name without dots, in force at its site
	Site string     // site name without dots; empty: the host is written under its own name alone
	Self bool       // it is the machine itself, see Update
	Note string     // a remark, e.g. who holds the name that the host asked for; becomes a comment line that starts with CONFLICT

	prefix string // of its names
}

// six is the prefix of the names of IPv6 addresses. No host has such a name, see reserved.
const six = "ip6-"

// all is the entry for each address of the host. The remark stands once.
func (e Entry) all() []Entry {
	if !e.Six.IsValid() {
		return []Entry{e}
	}
	second := Entry{Addr: e.Six, Host: e.Host, Site: e.Site, prefix: six}
	e.Six = netip.Addr{}
	return []Entry{e, second}
}

// full is the name that is meant to be unique in the cluster.
func (e Entry) full() string {
	if e.Site == "" {
		return e.short()
	}
	return e.short() + "." + fold(e.Site)
}

// short is the name without the site.
func (e Entry) short() string { return e.prefix + fold(e.Host) }

func (e Entry) compare(o Entry) int {
	if c := strings.Compare(fold(e.Site), fold(o.Site)); c != 0 {
		return c
	}
	if c := strings.Compare(fold(e.Host), fold(o.Host)); c != 0 {
		return c
	}
	if c := e.Addr.Compare(o.Addr); c != 0 {
		return c
	}
	return strings.Compare(e.Note, o.Note)
}

// maxLabel is the longest name between dots, bytes.
const maxLabel = 63

// label is a name between dots (RFC 952, RFC 1123), in either case.
var label = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$`)

// check says why an entry cannot be written at all; nil: it can. Entries come from other sites, so this is also what
// keeps a hostile record from writing lines of its own making or from taking over names of the machine itself.
func (e Entry) check() error {
	switch {
	case !e.Addr.IsValid() || e.Addr.IsUnspecified() || e.Addr.IsLoopback() || e.Addr.IsMulticast() || e.Addr.Zone() != "":
		return fmt.Errorf("%v is not an address that a host can have", e.Addr)
	case !label.MatchString(e.Host):
		return fmt.Errorf("%q is not a host name", clean(e.Host))
	case len(e.prefix)+len(e.Host) > maxLabel:
		return fmt.Errorf("%q is too long a name", clean(e.short()))
	case e.Site != "" && !label.MatchString(e.Site):
		return fmt.Errorf("%q is not a site name", clean(e.Site))
	case reserved(e.Host) || reserved(e.Site):
		return fmt.Errorf("%q is a name of every machine itself", e.full())
	}
	return nil
}

// reserved reports names that mean the machine itself or a multicast group in the files that systems ship.
func reserved(name string) bool {
	name = fold(name)
	return name == "localhost" || name == "localdomain" || name == "broadcasthost" || strings.HasPrefix(name, six)
}

// publicDomain reports site names under which HOST.SITE would read as a name of the public Internet, such as google.com:
// the generic domains of RFC 920 and its successors, and anything of two letters, for those are countries.
func publicDomain(site string) bool {
	switch site = fold(site); site {
	case "com", "net", "org", "edu", "gov", "mil", "int", "arpa", "local":
		return true
	default:
		return len(site) == 2
	}
}

// fold gives the form in which names are compared and written: DNS names ignore the case of ASCII letters.
func fold(name string) string { return strings.ToLower(name) }

// clean makes a text from elsewhere fit for one comment line: printable, at most 200 bytes.
func clean(text string) string {
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == 0x85 || r == 0x2028 || r == 0x2029 || r == '\ufffd' {
			return ' '
		}
		return r
	}, text)
	if len(text) > 200 {
		text = strings.ToValidUTF8(text[:200], "") + "…"
	}
	return strings.TrimSpace(text)
}
