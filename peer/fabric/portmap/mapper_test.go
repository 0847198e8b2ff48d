package portmap

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"vcpeer/deploy/test/bubble"
)

// router answers on a port of this machine as a router does.
func router(t *testing.T, answer func(ask []byte) []byte) netip.AddrPort {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	go func() {
		b := make([]byte, 2000)
		for {
			n, from, err := c.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			if a := answer(slices.Clone(b[:n])); a != nil {
				_, _ = c.WriteToUDPAddrPort(a, from)
			}
		}
	}()
	return c.LocalAddr().(*net.UDPAddr).AddrPort()
}

func TestServer(t *testing.T) {
	pmp := func(ask []byte) []byte {
		switch {
		case ask[0] != 0:
			return []byte{0, answerBit | ask[1], 0, 1, 0, 0, 0, 1}
		case ask[1] == opAddress:
			return []byte{0, 128, 0, 0, 0, 0, 0, 1, 44, 1, 2, 3}
		}
		return append([]byte{0, answerBit | ask[1], 0, 0, 0, 0, 0, 1}, append(ask[4:8:8], ask[8:12]...)...)
	}
	first := true
	for _, tt := range []struct {
		name   string
		answer func([]byte) []byte
		proto  Protocol
		want   string
	}{
		{"PCP", func(ask []byte) []byte { return pcpAnswer(ask, 0, "44.1.2.3:7000", 50) }, PCP, "44.1.2.3:7000"},
		{"a lost packet", func(ask []byte) []byte {
			if first {
				first = false
				return nil
			}
			return pcpAnswer(ask, 0, "44.1.2.3:7000", 50)
		}, PCP, "44.1.2.3:7000"},
		{"NAT-PMP, which says so", pmp, NATPMP, "44.1.2.3:7475"},
		{"nonsense before the answer", func(ask []byte) []byte {
			if ask[0] != 0 {
				return []byte("hello")
			}
			return pmp(ask)
		}, NATPMP, "44.1.2.3:7475"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := &server{at: router(t, tt.answer), nonce: Nonce{1}}
			g, err := s.ask(t.Context(), request{udp: true, port: 7475, want: netip.AddrPortFrom(netip.Addr{}, 7475), life: lifetime})
			if err != nil || g.at.String() != tt.want || s.protocol() != tt.proto {
				t.Errorf("%v by %s: %v; want %s by %s", g, s.protocol(), err, tt.want, tt.proto)
			}
		})
	}
	t.Run("nobody there", func(t *testing.T) {
		at := router(t, func([]byte) []byte { return nil })
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		began := time.Now()
		if _, err := (&server{at: at}).ask(ctx, request{port: 1, life: lifetime}); !isSilence(err) || time.Since(began) > 5*time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}

const description = `<?xml version="1.0"?><root xmlns="urn:schemas-upnp-org:device-1-0"><device>
<deviceType>urn:schemas-upnp-org:device:InternetGatewayDevice:1</deviceType><serviceList><service>
<serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType><serviceId>x</serviceId>
<SCPDURL>/s</SCPDURL><controlURL>%s</controlURL><eventSubURL>/e</eventSubURL></service></serviceList></device></root>`

var soapField = regexp.MustCompile(`<(New\w+)>([^<]*)`)

// igd is a router with UPnP that knows only mappings without an end, and whose port 7475 is somebody else's.
func igd(t *testing.T, control string) (at *url.URL, mapped func() []string) {
	t.Helper()
	var mu sync.Mutex
	var calls []string
	say := func(w http.ResponseWriter, body string) {
		fmt.Fprintf(w, `<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" s:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/"><s:Body>%s</s:Body></s:Envelope>`, body)
	}
	fault := func(w http.ResponseWriter, code int) {
		w.WriteHeader(500)
		say(w, fmt.Sprintf(`<s:Fault><faultcode>s:Client</faultcode><faultstring>UPnPError</faultstring><detail><UPnPError xmlns="urn:schemas-upnp-org:control-1-0"><errorCode>%d</errorCode><errorDescription>no</errorDescription></UPnPError></detail></s:Fault>`, code))
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/away.xml" {
			http.Redirect(w, r, "/root.xml", http.StatusFound)
			return
		}
		if r.URL.Path == "/endless.xml" {
			fmt.Fprint(w, `<?xml version="1.0"?><root xmlns="urn:schemas-upnp-org:device-1-0"><device><friendlyName>`)
			for range 1000 {
				if _, err := w.Write(bytes.Repeat([]byte("x"), maxAnswerBytes)); err != nil {
					return
				}
			}
			t.Error("an endless description was read")
			return
		}
		if r.URL.Path == "/root.xml" {
			fmt.Fprintf(w, description, control)
			return
		}
		_, action, _ := strings.Cut(strings.Trim(r.Header.Get("SOAPAction"), `"`), "#")
		var b strings.Builder
		_ = r.Write(&b)
		args := map[string]string{}
		for _, m := range soapField.FindAllStringSubmatch(b.String(), -1) {
			args[m[1]] = m[2]
		}
		mu.Lock()
		defer mu.Unlock()
		switch {
		case action == "GetExternalIPAddress":
			say(w, `<u:GetExternalIPAddressResponse xmlns:u="urn:schemas-upnp-org:service:WANIPConnection:1"><NewExternalIPAddress>44.1.2.3</NewExternalIPAddress></u:GetExternalIPAddressResponse>`)
			return
		case action == "AddPortMapping" && args["NewLeaseDuration"] != "0":
			fault(w, upnpPermanent)
			return
		case action == "AddPortMapping" && args["NewExternalPort"] == "7475":
			fault(w, upnpConflict)
			return
		}
		calls = append(calls, fmt.Sprintf("%s %s %s %s", action, args["NewProtocol"], args["NewInternalClient"], args["NewInternalPort"]))
		say(w, fmt.Sprintf(`<u:%sResponse xmlns:u="urn:schemas-upnp-org:service:WANIPConnection:1"/>`, action))
	}))
	t.Cleanup(srv.Close)
	at, err := url.Parse(srv.URL + "/root.xml")
	if err != nil {
		t.Fatal(err)
	}
	return at, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(calls)
	}
}

func TestUPnP(t *testing.T) {
	here := netip.MustParseAddr("127.0.0.1")
	at, calls := igd(t, "/control")
	u, err := openUPnP(t.Context(), at, here)
	if err != nil {
		t.Fatal(err)
	}
	g, err := u.ask(t.Context(), request{udp: true, port: 7475, want: netip.AddrPortFrom(netip.Addr{}, 7475), life: lifetime})
	if err != nil || g.at.Addr().String() != "44.1.2.3" || g.at.Port() < 20000 {
		t.Fatalf("%v %v", g, err)
	}
	if _, err := u.ask(t.Context(), request{udp: true, port: 7475, want: g.at}); err != nil {
		t.Fatal(err)
	}
	want := []string{"AddPortMapping UDP 127.0.0.1 7475", "DeletePortMapping UDP  "}
	if !slices.Equal(calls(), want) {
		t.Errorf("got %q, want %q", calls(), want)
	}
}

// TestUPnPElsewhere: a description that sends its readers to another machine is not followed.
func TestUPnPElsewhere(t *testing.T) {
	at, calls := igd(t, "http://127.0.0.2:1/control")
	if u, err := openUPnP(t.Context(), at, netip.MustParseAddr("127.0.0.1")); err == nil || len(calls()) > 0 {
		t.Errorf("it would ask %v", u.service)
	}
}

// TestUPnPBounds: a router cannot send its readers away, and not feed them for ever.
func TestUPnPBounds(t *testing.T) {
	at, _ := igd(t, "/control")
	for _, path := range []string{"/away.xml", "/endless.xml"} {
		at.Path = path
		if _, err := openUPnP(t.Context(), at, netip.MustParseAddr("127.0.0.1")); err == nil {
			t.Errorf("%s is taken", path)
		}
	}
}

// askerFunc is a router for the mapper's own decisions.
type askerFunc func(request) (grant, error)

func (askerFunc) protocol() Protocol                                { return PCP }
func (f askerFunc) ask(_ context.Context, r request) (grant, error) { return f(r) }

// story is a mapper with a router of the test's making, and all that it was asked and told.
type story struct {
	mu     sync.Mutex
	lines  []string
	answer func(r request) (grant, error) // nil: no router answers
	m      *Mapper
}

func newStory() *story {
	s := &story{}
	s.m = New(Config{Port: 7475, UDP: true, Told: func(st State) {
		s.add(fmt.Sprintf("told %s udp=%v tcp=%v %s", st.Protocol, st.UDP, st.TCP, st.Refused))
	}})
	s.m.cfg.gateway = func() (netip.Addr, error) { return netip.MustParseAddr("10.0.0.1"), nil }
	s.m.cfg.find = func(ctx context.Context, _ netip.Addr) (asker, *[2]grant, error) {
		s.add("find")
		a := askerFunc(func(r request) (grant, error) {
			s.add(fmt.Sprintf("ask udp=%v outside=%d life=%v", r.udp, r.want.Port(), r.life))
			s.mu.Lock()
			answer := s.answer
			s.mu.Unlock()
			if answer == nil {
				return grant{}, errNoAnswer
			}
			return answer(r)
		})
		var got [2]grant
		if err := s.m.ask(ctx, a, &got); isSilence(err) {
			return nil, nil, err
		} else {
			return a, &got, err
		}
	}
	return s
}

func (s *story) add(line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines = append(s.lines, line)
}

// becomes has the router answer so from now on.
func (s *story) becomes(answer func(request) (grant, error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = answer
}

// since returns what happened since it was last called.
func (s *story) since() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer func() { s.lines = nil }()
	return strings.Join(s.lines, "; ")
}

func TestMapper(t *testing.T) {
	granting := func(r request) (grant, error) {
		return grant{netip.AddrPortFrom(netip.MustParseAddr("44.1.2.3"), r.want.Port()), lifetime}, nil
	}
	bubble.Test(t, func(t *testing.T) {
		s := newStory()
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); s.m.Run(ctx) }()
		expect := func(want string) {
			t.Helper()
			bubble.Wait()
			if got := s.since(); got != want {
				t.Errorf("\n got %s\nwant %s", got, want)
			}
		}
		time.Sleep(time.Hour)
		expect("") // nobody wants it

		s.becomes(granting)
		s.m.Want(true)
		both := "ask udp=false outside=7475 life=10m0s; ask udp=true outside=7475 life=10m0s"
		expect("find; " + both + "; told PCP udp=44.1.2.3:7475 tcp=44.1.2.3:7475 ")
		time.Sleep(renewEvery)
		expect(both)

		s.becomes(nil) // the router goes
		time.Sleep(renewEvery)
		expect("ask udp=false outside=7475 life=10m0s; find; ask udp=false outside=7475 life=10m0s; told  udp=invalid AddrPort tcp=invalid AddrPort ")
		s.becomes(func(r request) (grant, error) {
			if r.udp {
				return granting(r)
			}
			return grant{}, &Refusal{PCP, 2, "not TCP"}
		})
		time.Sleep(retryFirst)
		expect("find; " + both + "; told PCP udp=44.1.2.3:7475 tcp=invalid AddrPort not TCP (PCP, code 2)")

		s.becomes(granting)
		s.m.Again()
		expect("find; " + both + "; told PCP udp=44.1.2.3:7475 tcp=44.1.2.3:7475 ")
		s.m.Want(false)
		back := "ask udp=false outside=7475 life=0s; ask udp=true outside=7475 life=0s"
		expect(back + "; told  udp=invalid AddrPort tcp=invalid AddrPort ")
		s.m.Want(true)
		bubble.Wait()
		s.since()
		cancel()
		<-ended
		expect(back)
	})
}
