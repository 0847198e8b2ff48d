package api

import (
	"context"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Overlay is one node's part of the network over all sites.
type Overlay struct {
	APIVersion string         `json:"apiVersion"`
	Kind       string         `json:"kind"`
	AsOf       time.Time      `json:"asOf"`
	SeenFrom   Place          `json:"seenFrom"`
	Up         bool           `json:"up"`
	Why        string         `json:"why,omitempty"` // why it is not up, or what does not work
	Hint       string         `json:"hint,omitempty"`
	Bridge     string         `json:"bridge,omitempty"`
	Datapath   string         `json:"datapath,omitempty"` // "system": the kernel's; "netdev": in user space
	Version    string         `json:"openVSwitch,omitempty"`
	Range      string         `json:"range,omitempty"`
	Range6     string         `json:"range6,omitempty"`
	Address    string         `json:"address,omitempty"`
	Address6   string         `json:"address6,omitempty"`
	MAC        string         `json:"mac,omitempty"`
	MTU        int            `json:"mtu,omitempty"`    // inner IP packet, bytes
	Label      string         `json:"label,omitempty"`  // of a gateway; empty: it is none …
	Uplink     string         `json:"uplink,omitempty"` // … and reaches other sites over this node; empty: over none
	Encrypt    bool           `json:"encrypt"`          // between sites, encrypted links only
	ClearText  bool           `json:"clearText"`        // traffic between sites can be read on its way
	Flows      int            `json:"flows"`
	Groups     int            `json:"groups"`
	Written    time.Time      `json:"written"` // when flows were last changed
	Sites      int            `json:"sites"`   // other sites that are reached; of no meaning where Uplink is set
	SitesOf    int            `json:"sitesOf"` // other sites that take part
	Links      int            `json:"links"`   // that are up …
	LinksOf    int            `json:"linksOf"` // … of those there are
	Overrun    uint64         `json:"overrun"` // frames of sealed links that came faster than this machine could open them
	Guests     int            `json:"guests"`  // attached to this node
	Faults     []OverlayFault `json:"faults"`  // what the last round could not do
}

// OverlayFault is something that could not be done; it is tried again.
type OverlayFault struct {
	Part    string `json:"part"` // "bridge", "flows", "interface", "neighbours", "guard", "sealed links", "guests", "guests that leave"
	Message string `json:"message"`
}

// Link is what a node measures of the way to one other.
type Link struct {
	Node        string    `json:"node"`
	Site        string    `json:"site"`
	Label       string    `json:"label,omitempty"`
	Kind        string    `json:"kind"`             // "GRE" or "sealed"
	Stream      bool      `json:"stream,omitempty"` // sealed frames go over a stream, by TCP or through a relay: there is no direct way by UDP
	To          string    `json:"to,omitempty"`     // where the tunnel's packets go; empty: nowhere, or into a stream
	Up          bool      `json:"up"`
	Measured    bool      `json:"measured"`
	RTTMilli    float64   `json:"rttMillis,omitempty"` // 0: not measured
	JitterMilli float64   `json:"jitterMillis,omitempty"`
	LossOut     float64   `json:"lossOut"` // 0 to 1, on the way there
	LossIn      float64   `json:"lossIn"`  // on the way back
	MTU         int       `json:"mtu,omitempty"`
	Since       time.Time `json:"since"`
	Flaps       int       `json:"flaps"`
	Protected   bool      `json:"protected"`     // watched by BFD …
	BFD         string    `json:"bfd,omitempty"` // … whose session is in this state
	Frames      *Frames   `json:"frames,omitempty"`
}

// Frames is what became of the frames of a sealed link since the node started. A large one counts as the segments that it
// travels in.
type Frames struct {
	Sent     uint64 `json:"sent"`
	Received uint64 `json:"received"`
	Waiting  int    `json:"waitingBytes"`
	Drops    Drops  `json:"drops"`
}

// Drops are frames that went no further, by cause.
type Drops struct {
	Full      uint64 `json:"full"`      // the queue was full
	Late      uint64 `json:"late"`      // they had waited too long in the queue
	NoWay     uint64 `json:"noWay"`     // the other end was not reached just then
	TooLarge  uint64 `json:"tooLarge"`  // for the path, as the system says
	System    uint64 `json:"system"`    // the system did not send or deliver them
	Replayed  uint64 `json:"replayed"`  // came a second time, or too late to tell
	Forged    uint64 `json:"forged"`    // could not be opened
	Malformed uint64 `json:"malformed"` // were sealed well and made badly
}

// All is the sum.
func (d Drops) All() uint64 {
	return d.Full + d.Late + d.NoWay + d.TooLarge + d.System + d.Replayed + d.Forged + d.Malformed
}

// Path is how one gateway sends to another.
type Path struct {
	From        string    `json:"from"`
	FromSite    string    `json:"fromSite"`
	To          string    `json:"to"`
	ToSite      string    `json:"toSite"`
	Via         []string  `json:"via"` // transit gateways in order; empty: direct
	RTTMilli    float64   `json:"rttMillis,omitempty"`
	DirectMilli float64   `json:"directMillis,omitempty"` // 0: the direct link cannot be used, or is not measured
	GainPercent float64   `json:"gainPercent,omitempty"`  // of the direct RTT that the path saves
	MTU         int       `json:"mtu,omitempty"`
	Since       time.Time `json:"since"`
	Switches    int       `json:"switches"`
	Cause       string    `json:"cause,omitempty"`
	Backup      []string  `json:"backup"` // transit gateways of the path that takes over; see HasBackup
	HasBackup   bool      `json:"hasBackup"`
}

// PathWhy is how frames get from one place to another, and why so.
type PathWhy struct {
	APIVersion string    `json:"apiVersion"`
	Kind       string    `json:"kind"`
	AsOf       time.Time `json:"asOf"`
	SeenFrom   Place     `json:"seenFrom"` // who chose, or who computed
	From       string    `json:"from"`     // node or site, as asked
	To         string    `json:"to"`       // node, guest or site, as asked
	FromSite   string    `json:"fromSite"`
	ToSite     string    `json:"toSite"`
	Way        []string  `json:"way"`             // every node that frames pass, both ends included; empty: there is no way
	Path       *Path     `json:"path,omitempty"`  // between the gateways; nil: within one site, or there is none
	Kinds      []string  `json:"kinds,omitempty"` // of the links of the path: "GRE", "sealed", "sealed stream"
	Losers     []Loser   `json:"losers"`
	Computed   string    `json:"computed,omitempty"` // not empty: why this is not the word of the gateway that chooses
}

// Loser is a path that was not chosen.
type Loser struct {
	Via      []string `json:"via"` // empty: the direct link
	RTTMilli float64  `json:"rttMillis,omitempty"`
	MTU      int      `json:"mtu,omitempty"`
	Why      []string `json:"why"`
}

// PingAsk asks for probes.
type PingAsk struct {
	To       string
	Direct   bool // by the direct link, not by the chosen path
	Count    int  // 0: until the context ends
	Interval time.Duration
	Size     int // of IP packets as large, bytes; 0: small
}

// PingLine is one line of the answer to a ping: Way at first and whenever it changes, else Pong.
type PingLine struct {
	Way  *PingWay `json:"way,omitempty"`
	Pong *Pong    `json:"pong,omitempty"`
}

// PingWay says to whom probes go, and how.
type PingWay struct {
	To      string   `json:"to"`
	Address string   `json:"address,omitempty"`
	By      string   `json:"by"`            // "probe": vcpeer's own, answered by the other vcpeer; "echo": ICMP, answered by its kernel
	Way     []string `json:"way,omitempty"` // every node they pass, as far as that is known
	Size    int      `json:"size"`          // of the IP packet, bytes
}

// Pong is what became of one probe.
type Pong struct {
	Seq      int     `json:"seq"`
	Lost     bool    `json:"lost,omitempty"`
	RTTMilli float64 `json:"rttMillis,omitempty"`
}

// How probes are made, in [PingWay].
const (
	ByProbe = "probe"
	ByEcho  = "echo"
)

// Trace is the way to a node, hop by hop.
type Trace struct {
	APIVersion string    `json:"apiVersion"`
	Kind       string    `json:"kind"`
	AsOf       time.Time `json:"asOf"`
	SeenFrom   Place     `json:"seenFrom"`
	To         string    `json:"to"`
	Address    string    `json:"address,omitempty"`
	Hops       []Hop     `json:"hops"`
	Notes      []string  `json:"notes,omitempty"` // what could not be found out
}

// Hop is a node on the way, and the link that leads to it.
type Hop struct {
	Node     string  `json:"node"`
	Site     string  `json:"site"`
	Role     string  `json:"role"`                // "gateway", "transit", "node" or "guest"
	Link     string  `json:"link,omitempty"`      // "GRE" or "sealed"; "site": within a site; "guest": out of its port
	MTU      int     `json:"mtu,omitempty"`       // of that link
	RTTMilli float64 `json:"rttMillis,omitempty"` // from the start to here; 0: nothing came back, or not asked
	Sent     int     `json:"sent"`
	Answered int     `json:"answered"`
}

// Guest is a machine on the network that is no node.
type Guest struct {
	ID       string    `json:"id"`
	Name     string    `json:"name"` // the name in force
	Asked    string    `json:"asked,omitempty"`
	Node     string    `json:"node,omitempty"` // where it is attached
	Site     string    `json:"site,omitempty"`
	Address  string    `json:"address,omitempty"`
	Address6 string    `json:"address6,omitempty"`
	MAC      string    `json:"mac,omitempty"`
	State    string    `json:"state"` // "attached", "detached", "waiting" (for this node's network), "failed", "lost" (its node is)
	Detail   string    `json:"detail,omitempty"`
	Since    time.Time `json:"since"`
	Iface    string    `json:"iface,omitempty"` // of a guest of the node that answers
	Inner    string    `json:"inner,omitempty"` // the guest's own interface, where it was found
	Here     bool      `json:"here,omitempty"`
}

// AttachAsk puts an interface of this machine on the network.
type AttachAsk struct {
	Iface string `json:"iface"`
	Name  string `json:"name,omitempty"`
	Move  bool   `json:"move,omitempty"` // also if the guest is attached to another node
}

// Attached is a guest that was put on the network, and what it needs to know.
type Attached struct {
	Guest
	PrefixLen  int      `json:"prefixLen"`
	PrefixLen6 int      `json:"prefixLen6,omitempty"`
	MTU        int      `json:"mtu"`
	Commands   []string `json:"commands,omitempty"` // to type inside; empty: its own end was found and set up
}

// Encrypt is the cluster's setting for traffic between sites.
type Encrypt struct {
	Encrypt bool `json:"encrypt"`
}

// asked makes a query of pairs, leaving out empty values.
func asked(pairs ...string) url.Values {
	q := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			q.Set(pairs[i], pairs[i+1])
		}
	}
	return q
}

// Overlay tells of a node's part of the network; node "" is the one that answers.
func (c *Client) Overlay(ctx context.Context, node string) (*Overlay, error) {
	return get[Overlay](ctx, c, "/v1/overlay", asked("of", node))
}

// SetEncrypt says whether traffic between sites, of the whole cluster, goes over encrypted links only.
func (c *Client) SetEncrypt(ctx context.Context, on bool) error {
	return c.call(ctx, http.MethodPost, "/v1/overlay/encrypt", nil, Encrypt{on}, nil)
}

// Links lists what a node measures; node "" is the one that answers.
func (c *Client) Links(ctx context.Context, node string) (*List[Link], error) {
	return get[List[Link]](ctx, c, "/v1/links", asked("of", node))
}

// Paths lists the paths of a node or site, or of its gateway; from "" is the node that answers.
func (c *Client) Paths(ctx context.Context, from string) (*List[Path], error) {
	return get[List[Path]](ctx, c, "/v1/paths", asked("from", from))
}

// PathWhy tells how frames get from one node or site to another, and why so.
func (c *Client) PathWhy(ctx context.Context, from, to string) (*PathWhy, error) {
	return get[PathWhy](ctx, c, "/v1/paths/why", asked("from", from, "to", to))
}

// Ping yields what became of each probe, until all were sent or ctx ends.
func (c *Client) Ping(ctx context.Context, ask PingAsk) iter.Seq2[PingLine, error] {
	q := asked("to", ask.To)
	if ask.Direct {
		q.Set("direct", "1")
	}
	for name, v := range map[string]int64{"count": int64(ask.Count), "intervalNanos": int64(ask.Interval), "size": int64(ask.Size)} {
		if v != 0 {
			q.Set(name, strconv.FormatInt(v, 10))
		}
	}
	return stream[PingLine](ctx, c, "/v1/ping", q)
}

// Trace tells the way to a node hop by hop.
func (c *Client) Trace(ctx context.Context, to string) (*Trace, error) {
	return get[Trace](ctx, c, "/v1/trace", asked("to", to))
}

// Guests lists the machines on the network that are no nodes.
func (c *Client) Guests(ctx context.Context) (*List[Guest], error) {
	return get[List[Guest]](ctx, c, "/v1/guests", nil)
}

// Attach puts an interface of the node's machine on the network.
func (c *Client) Attach(ctx context.Context, ask AttachAsk) (*Attached, error) {
	return post[Attached](ctx, c, "/v1/guests", ask)
}

// Detach takes a guest off the network, by name, ID or interface; with forget its name and address are free again.
func (c *Client) Detach(ctx context.Context, guest string, forget bool) error {
	q := url.Values{}
	if forget {
		q.Set("forget", "1")
	}
	return c.call(ctx, http.MethodDelete, "/v1/guests/"+url.PathEscape(guest), q, nil, nil)
}

// RenameGuest gives a guest another name.
func (c *Client) RenameGuest(ctx context.Context, guest, name string) error {
	return c.call(ctx, http.MethodPost, "/v1/guests/"+url.PathEscape(guest)+"/rename", nil, Rename{name}, nil)
}
