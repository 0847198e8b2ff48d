package admit

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"vcpeer/crdt"
	"vcpeer/peer/fabric"
)

// FuzzMessages feeds every decoder of the handshake: no panic, no more memory than was sent, and what is read is whole.
func FuzzMessages(f *testing.F) {
	sig, id := make([]byte, ed25519.SignatureSize), make([]byte, 32)
	nonce := make([]byte, nonceBytes)
	for _, m := range []any{
		hello{Versions: []uint16{1}, Cluster: id[:prefixBytes], Token: id},
		response{Facts: Facts{"n1", "kyoto"}, Sig: sig},
		answer{Challenge: &challenge{1, nonce}},
		answer{Refusal: refuse(Used).by(crdt.NodeID{1}).at(time.Unix(1e9, 0))},
		answer{Welcome: &welcome{By: id, Member: crdt.Proof{Founding: []byte{1}}, Peers: []wirePeer{{ID: id, Addrs: []string{"/ip4/127.0.0.1/tcp/1"}}}}},
		forward{Newcomer: id, Token: id, Nonce: nonce, Sig: sig, Remote: "127.0.0.1:1"},
		forwarded{Refusal: refuse(Expired)},
		forwarded{Newcomer: &crdt.Proof{Founding: []byte{1}}},
	} {
		body := encode(m)
		f.Add(append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...))
	}
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, m := range []checker{&hello{}, &response{}, &answer{}, &forward{}, &forwarded{}} {
			if err := readMessage(bytes.NewReader(b), m, maxAnswer); err != nil {
				continue
			}
			if !m.check() {
				t.Errorf("%T passes unchecked: %x", m, b)
			}
			if a, ok := m.(*answer); ok && a.Welcome != nil {
				if w, err := believe(a.Welcome, Cluster{}, crdt.NodeID{}, crdt.NodeID{}); err == nil {
					t.Errorf("believed: %+v", w)
				}
			}
			if a, ok := m.(*answer); ok && a.Refusal != nil {
				if s := a.Refusal.Error() + a.Refusal.Hint(); strings.ContainsAny(s, "\x1b\r\n") {
					t.Errorf("a refusal shows %q", s)
				}
			}
			again := encode(m)
			if err := decode(again, m); err != nil {
				t.Errorf("%T is not read as written: %v", m, err)
			}
		}
	})
}

// tape is a connection that a test plays: in is what is read, and out what was written.
type tape struct {
	net.Conn
	in  io.Reader
	out bytes.Buffer
}

func (c *tape) Read(b []byte) (int, error)  { return c.in.Read(b) }
func (c *tape) Write(b []byte) (int, error) { return c.out.Write(b) }
func (c *tape) SetDeadline(time.Time) error { return nil }
func (c *tape) Close() error                { return nil }
func (c *tape) RemoteAddr() net.Addr        { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 5} }
func (c *tape) answers(t testing.TB) (as []answer) {
	t.Helper()
	for c.out.Len() > 0 {
		var a answer
		if err := readMessage(&c.out, &a, maxAnswer); err != nil {
			t.Fatal(err)
		}
		as = append(as, a)
	}
	return as
}

// deaf is a host on which nothing comes in.
type deaf struct{ id crdt.NodeID }

func (d deaf) Self() crdt.NodeID                    { return d.id }
func (deaf) Handle(string, fabric.Handler)          {}
func (deaf) HandleStrangers(string, fabric.Handler) {}
func (deaf) Open(context.Context, crdt.NodeID, string) (net.Conn, error) {
	return nil, errors.New("nobody there")
}

func messages(ms ...any) io.Reader {
	var b bytes.Buffer
	for _, m := range ms {
		_ = writeMessage(&b, m)
	}
	return &b
}

// The newcomer's bytes of a handshake that succeeded are recorded and played again: under another key, and under the same
// key to another member, they are refused.
func TestReplay(t *testing.T) {
	records := found(t, "a")
	token := records.token(t, time.Hour, true)
	a := start(t, "a", records)
	victim := start(t, "victim", nil)
	rec := &recorder{Dialer: victim}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if _, err := Join(ctx, rec, token, []string{seedOf(a)}, Facts{Name: "n9"}, nil); err != nil {
		t.Fatal(err)
	}
	if rec.sent.Len() == 0 {
		t.Fatal("nothing recorded")
	}

	thief := start(t, "thief", nil)
	id, err := thief.ProbeID(ctx, seedOf(a))
	if err != nil {
		t.Fatal(err)
	}
	release, err := thief.ConnectStranger(ctx, id, seedOf(a))
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	c, err := thief.Open(ctx, id, fabric.JoinProtocol)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write(rec.sent.Bytes()); err != nil {
		t.Fatal(err)
	}
	var got answer
	for range 2 {
		got = answer{}
		if err := readMessage(c, &got, maxAnswer); err != nil {
			t.Fatal(err)
		}
	}
	if got.Refusal == nil || got.Refusal.Code != BadProof {
		t.Errorf("another key with recorded bytes is answered %+v", got)
	}
	if s := records.View().Standing(thief.Self()); s != crdt.Stranger {
		t.Errorf("the thief is a %v", s)
	}

	rb := records.join(t, "b")
	again := &tape{in: bytes.NewReader(rec.sent.Bytes())}
	Serve(Config{Fabric: deaf{idOf("b")}, Records: rb}).serveJoin(ctx, victim.Self(), again)
	as := again.answers(t)
	if last := as[len(as)-1]; last.Refusal == nil || last.Refusal.Code != BadProof {
		t.Errorf("recorded bytes at another member are answered %+v", last)
	}
}

// recorder keeps what a newcomer sends.
type recorder struct {
	Dialer
	sent bytes.Buffer
}

func (r *recorder) Open(ctx context.Context, to crdt.NodeID, proto string) (net.Conn, error) {
	c, err := r.Dialer.Open(ctx, to, proto)
	return &recorded{c, &r.sent}, err
}

type recorded struct {
	net.Conn
	sent *bytes.Buffer
}

func (c *recorded) Write(b []byte) (int, error) { c.sent.Write(b); return c.Conn.Write(b) }

// What a stranger may send instead of a handshake.
func TestBadHandshakes(t *testing.T) {
	records := found(t, "a")
	token := records.token(t, time.Hour, true)
	cluster := ClusterOf(records.f.ID())
	good := hello{Versions: []uint16{9, version}, Cluster: cluster[:], Token: token.Public()}
	forged := response{Sig: make([]byte, ed25519.SignatureSize)}
	for _, tt := range []struct {
		name string
		in   io.Reader
		want Code
	}{
		{"no common version", messages(hello{Versions: []uint16{7}, Cluster: cluster[:], Token: token.Public()}), BadVersion},
		{"other cluster", messages(hello{Versions: []uint16{1}, Cluster: make([]byte, prefixBytes), Token: token.Public()}), WrongCluster},
		{"short token", messages(hello{Versions: []uint16{1}, Cluster: cluster[:], Token: []byte{1}}), Garbled},
		{"forged signature", messages(good, forged), BadProof},
		{"terminal tricks", messages(good, response{Facts: Facts{Name: "\x1b[2J"}, Sig: forged.Sig}), Garbled},
		{"huge frame", bytes.NewReader([]byte{0x7f, 0xff, 0xff, 0xff, 1, 2, 3}), Garbled},
		{"noise", bytes.NewReader([]byte{0, 0, 0, 3, 0xff, 0xff, 0xff}), Garbled},
		{"silence", bytes.NewReader(nil), Internal},
	} {
		var told Event
		c := &tape{in: tt.in}
		s := Serve(Config{Fabric: deaf{idOf("a")}, Records: records, Events: func(e Event) { told = e }})
		s.serveJoin(t.Context(), idOf("n"), c)
		as := c.answers(t)
		last := as[len(as)-1]
		if last.Refusal == nil || last.Refusal.Code != tt.want || told.Err == nil || told.Node != idOf("n") {
			t.Errorf("%s: answered %+v, told %+v; want %s", tt.name, last, told, tt.want)
		}
	}
}

// A member that lies about a newcomer's signature gets nothing from the issuer.
func TestForwardIsVerified(t *testing.T) {
	records := found(t, "a")
	token := records.token(t, time.Hour, false)
	s := Serve(Config{Fabric: deaf{idOf("a")}, Records: records})
	id, tid := idOf("n"), token.ID()
	text := signed(ClusterOf(records.f.ID()), idOf("other member"), id, make([]byte, nonceBytes), Facts{})
	c := &tape{in: messages(forward{Newcomer: id[:], Token: tid[:], Nonce: make([]byte, nonceBytes), Sig: ed25519.Sign(token.Key(), text)})}
	s.serveForward(t.Context(), idOf("member"), c)
	var out forwarded
	if err := readMessage(&c.out, &out, maxAnswer); err != nil {
		t.Fatal(err)
	}
	if out.Refusal == nil || out.Refusal.Code != BadProof {
		t.Errorf("answered %+v", out)
	}
}

// A false member cannot make a newcomer believe it, whatever proof it copies.
func TestFalseMember(t *testing.T) {
	records := found(t, "a")
	self := idOf("n")
	records.must(t, func(tx *crdt.Tx) error { return tx.AdmitMember(self, crdt.TokenID{}) })
	proof := func(of crdt.NodeID) crdt.Proof {
		p, err := records.AdmissionProof(of)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	forger := found(t, "forger")
	forger.must(t, func(tx *crdt.Tx) error { return tx.AdmitMember(self, crdt.TokenID{}) })
	theirs, err := forger.AdmissionProof(idOf("forger"))
	if err != nil {
		t.Fatal(err)
	}
	by := self[:]
	want := ClusterOf(records.f.ID())
	for _, tt := range []struct {
		name   string
		w      welcome
		member crdt.NodeID
		ok     bool
	}{
		{"true", welcome{Member: proof(idOf("a")), Newcomer: proof(self), By: by}, idOf("a"), true},
		{"another's proof", welcome{Member: proof(idOf("a")), Newcomer: proof(self), By: by}, idOf("forger"), false},
		{"another cluster", welcome{Member: theirs, Newcomer: theirs, By: by}, idOf("forger"), false},
		{"not admitted", welcome{Member: proof(idOf("a")), Newcomer: proof(idOf("a")), By: by}, idOf("a"), false},
		{"empty", welcome{By: by}, idOf("a"), false},
	} {
		w, err := believe(&tt.w, want, tt.member, self)
		if (err == nil) != tt.ok || err != nil && !errors.Is(err, ErrNotInCluster) {
			t.Errorf("%s: %+v, %v", tt.name, w, err)
		}
	}
}

func TestRates(t *testing.T) {
	r, now := newRates(), time.Unix(1e9, 0)
	ip := func(i int) net.Addr { return &net.UDPAddr{IP: net.IPv4(10, 0, byte(i>>8), byte(i)), Port: 1000 + i} }
	passed := 0
	for range 10 * burstPerIP {
		if r.allow(ip(1), now) {
			passed++
		}
	}
	if passed != burstPerIP || r.allow(ip(1), now) || !r.allow(ip(2), now) {
		t.Errorf("%d of one address at once, want %d, and others too", passed, burstPerIP)
	}
	for i := range 5 * maxRatedIPs {
		r.allow(ip(i), now)
	}
	if len(r.perIP) > maxRatedIPs {
		t.Errorf("%d addresses remembered", len(r.perIP))
	}
	if !r.allow(ip(60000), now.Add(time.Hour)) {
		t.Error("an hour later a new address is not served")
	}
}
