package peer

import (
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"time"

	"vcpeer/crdt"
	"vcpeer/peer/api"
	"vcpeer/peer/fabric"
	"vcpeer/peer/server"
)

// overlayProtocol asks another member what it sees of the network over all sites: one question and one answer, each a
// length and JSON. Nothing is changed by it.
const overlayProtocol = "/vcpeer/overlay/1"

const (
	maxOverlayQuestion = 4 << 10
	maxOverlayAnswer   = 8 << 20 // paths to 16,000 gateways, 500 bytes each
	maxOverlayAsks     = 8       // that are answered at once; an explanation costs as much as ten plans
	overlayAskTime     = 5 * time.Second
	overlayTraceTime   = 10 * time.Second
)

// What can be asked.
const (
	askStatus  = "status"
	askLinks   = "links"
	askPaths   = "paths"
	askExplain = "explain"
	askTrace   = "trace"
)

// overlayQuestion is what is asked. Node and Site are IDs; explain and trace want one of them, links may have Node.
type overlayQuestion struct {
	Op   string `json:"op"`
	Node string `json:"node,omitempty"`
	Site string `json:"site,omitempty"`
}

// overlayAnswer holds what was asked for, or an error.
type overlayAnswer struct {
	Error   *api.Problem `json:"error,omitempty"`
	Seen    api.Place    `json:"seenFrom"`
	AsOf    time.Time    `json:"asOf"`
	Overlay *api.Overlay `json:"overlay,omitempty"`
	Links   []api.Link   `json:"links,omitempty"`
	Paths   []api.Path   `json:"paths,omitempty"`
	Why     *api.PathWhy `json:"why,omitempty"`
	Hops    []api.Hop    `json:"hops,omitempty"`
}

// errJSONFrame says that what came is no question or answer.
var errJSONFrame = errors.New("malformed frame")

// readJSONFrame reads a length and that much JSON into v. Fields that are not known are left out: the other may be newer.
func readJSONFrame(r io.Reader, limit int, v any) error {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	size := binary.BigEndian.Uint32(head[:])
	if size == 0 || int64(size) > int64(limit) {
		return fmt.Errorf("%w: %d bytes", errJSONFrame, size)
	}
	body, err := io.ReadAll(io.LimitReader(r, int64(size))) // grows with what comes, not with what is announced
	if err != nil {
		return err
	}
	if len(body) < int(size) {
		return io.ErrUnexpectedEOF
	}
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("%w: %w", errJSONFrame, err)
	}
	return nil
}

func writeJSONFrame(w io.Writer, limit int, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(body) > limit {
		return fmt.Errorf("%w: %d bytes", errJSONFrame, len(body))
	}
	_, err = w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...))
	return err
}

// serveOverlayAsks answers other members until the fabric closes.
func (n *node) serveOverlayAsks() {
	turns := make(chan struct{}, maxOverlayAsks)
	n.fabric.Handle(overlayProtocol, func(ctx context.Context, from crdt.NodeID, c net.Conn) {
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(overlayTraceTime)) // a stream that cannot be read fails below
		var q overlayQuestion
		if err := readJSONFrame(c, maxOverlayQuestion, &q); err != nil {
			n.log.Debug("a question about the network is not answered", "from", from.Short(), "err", err)
			return
		}
		var a overlayAnswer
		select {
		case turns <- struct{}{}:
			ctx, cancel := context.WithTimeout(ctx, overlayTraceTime)
			a = n.answerOverlay(ctx, q)
			cancel()
			<-turns
		default:
			a.Error = &api.Problem{Code: api.CodeBusy, Message: n.place().Node + " answers too many such questions already", Hint: "try again in a moment"}
		}
		if err := writeJSONFrame(c, maxOverlayAnswer, a); err != nil {
			n.log.Debug("an answer about the network was not sent", "to", from.Short(), "err", err)
		}
	})
}

// answerOverlay answers for this node, which may be the one that asks.
func (n *node) answerOverlay(ctx context.Context, q overlayQuestion) overlayAnswer {
	a := overlayAnswer{Seen: n.place(), AsOf: time.Now()}
	err := n.answerInto(ctx, q, &a)
	var p *api.Problem
	switch {
	case err == nil:
	case errors.As(err, &p):
		a.Error = p
	default:
		a.Error = &api.Problem{Code: api.CodeInternal, Message: err.Error()}
	}
	return a
}

func (n *node) answerInto(ctx context.Context, q overlayQuestion, a *overlayAnswer) (err error) {
	st := n.overlayStatus()
	switch q.Op {
	case askStatus:
		o := apiOverlay(n.replica.View(), st, a.Seen, n.site, a.AsOf)
		a.Overlay = &o
	case askLinks:
		for _, l := range st.Links {
			if q.Node == "" || l.Node.String() == q.Node {
				a.Links = append(a.Links, apiLink(l))
			}
		}
		slices.SortFunc(a.Links, func(a, b api.Link) int { return cmp.Or(cmp.Compare(a.Site, b.Site), cmp.Compare(a.Node, b.Node)) })
	case askPaths:
		for _, p := range st.Paths {
			a.Paths = append(a.Paths, apiPath(p, a.Seen))
		}
		slices.SortFunc(a.Paths, func(a, b api.Path) int { return cmp.Or(cmp.Compare(a.ToSite, b.ToSite), cmp.Compare(a.To, b.To)) })
	case askExplain, askTrace:
		to, err := n.askedTarget(q)
		if err != nil {
			return err
		}
		if q.Op == askTrace {
			a.Hops, err = n.traceGateways(ctx, to)
			return err
		}
		why, err := n.explainHere(ctx, to)
		a.Why = &why
		return err
	default:
		return server.Problem(api.CodeBadRequest, "is that node of another version? `vcpeer members` shows it", "%s does not know the question %q", a.Seen.Node, q.Op)
	}
	return nil
}

// askedTarget finds what a question is about.
func (n *node) askedTarget(q overlayQuestion) (target, error) {
	view := n.replica.View()
	if id, err := crdt.ParseSiteID(q.Site); err == nil && q.Node == "" {
		if s, ok := view.Site(id); ok {
			return target{name: s.Name, site: s.ID}, nil
		}
	}
	for _, h := range view.Hosts() {
		if h.ID.String() == q.Node {
			return targetOf(view, h.ID), nil
		}
	}
	return target{}, server.Problem(api.CodeNotFound, "it may have joined just now; try again", "%s does not know that node or site", n.place().Node)
}

// about is a question about a target.
func about(op string, t target) overlayQuestion {
	if t.node.IsZero() {
		return overlayQuestion{Op: op, Site: t.site.String()}
	}
	return overlayQuestion{Op: op, Node: t.node.String()}
}

// askOverlay asks a member, which may be this one. An error of the other comes back as it is, and that of not
// reaching it as an [unreachedError].
func (n *node) askOverlay(ctx context.Context, to crdt.NodeID, q overlayQuestion) (overlayAnswer, error) {
	within := overlayAskTime
	if q.Op == askTrace {
		within = overlayTraceTime
	}
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	var a overlayAnswer
	if to == n.self {
		a = n.answerOverlay(ctx, q)
	} else if err := n.exchangeOverlay(ctx, to, q, &a); err != nil {
		return a, &unreachedError{name: nodeName(n.replica.View(), to), cause: err}
	}
	if a.Error != nil {
		return a, a.Error
	}
	return a, nil
}

func (n *node) exchangeOverlay(ctx context.Context, to crdt.NodeID, q overlayQuestion, a *overlayAnswer) error {
	c, err := n.fabric.Open(ctx, to, overlayProtocol)
	if err != nil {
		return err
	}
	defer c.Close()
	if deadline, ok := ctx.Deadline(); ok {
		_ = c.SetDeadline(deadline)
	}
	defer context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })()
	if err = writeJSONFrame(c, maxOverlayQuestion, q); err == nil {
		err = readJSONFrame(c, maxOverlayAnswer, a)
	}
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// unreachedError is that a member gave no answer.
type unreachedError struct {
	name  string
	cause error
}

func (e *unreachedError) Error() string {
	var late net.Error
	switch {
	case errors.Is(e.cause, fabric.ErrProtocol):
		return e.name + " is of a version that does not answer this"
	case errors.Is(e.cause, context.DeadlineExceeded), errors.Is(e.cause, os.ErrDeadlineExceeded), errors.As(e.cause, &late) && late.Timeout():
		return e.name + " did not answer in time"
	}
	return fmt.Sprintf("%s is not reached: %v", e.name, e.cause)
}

func (e *unreachedError) Unwrap() error { return e.cause }

// As makes a Problem of it for those who hand it to people.
func (e *unreachedError) As(v any) bool {
	p, ok := v.(**api.Problem)
	if ok {
		*p = &api.Problem{Code: api.CodeUnavailable, Message: e.Error(), Hint: "`vcpeer members` shows who is heard"}
	}
	return ok
}
