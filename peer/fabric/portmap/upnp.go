package portmap

import (
	"bufio"
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"github.com/huin/goupnp"
	"github.com/huin/goupnp/dcps/internetgateway2"
	"github.com/huin/goupnp/soap"
)

const (
	ssdpPort   = 1900
	searchFor  = 2 * time.Second // routers answer within this
	soapWithin = 3 * time.Second // one call
	otherPorts = 4               // tried when the port outside is somebody else's

	maxAnswerBytes = 256 << 10

	upnpConflict  = 718 // the port outside is taken
	upnpPermanent = 725 // only mappings without an end
)

var ssdpGroup = netip.AddrPortFrom(netip.AddrFrom4([4]byte{239, 255, 255, 250}), ssdpPort)

// wan is what of WANIPConnection and WANPPPConnection is used.
type wan interface {
	AddPortMappingCtx(ctx context.Context, remoteHost string, externalPort uint16, protocol string, internalPort uint16, internalClient string, enabled bool, description string, leaseSeconds uint32) error
	DeletePortMappingCtx(ctx context.Context, remoteHost string, externalPort uint16, protocol string) error
	GetExternalIPAddressCtx(ctx context.Context) (string, error)
}

// upnp is a router that takes UPnP.
type upnp struct {
	service wan
	local   netip.Addr
	forever bool // it knows no mappings with an end
}

// findUPnP looks for the service of the default gateway. Others on the network that say to be routers are not asked: what
// they would map is nothing that this machine's packets go through.
func findUPnP(ctx context.Context, gateway netip.Addr) (*upnp, error) {
	c, err := net.ListenUDP("udp4", nil)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })()
	for _, to := range []netip.AddrPort{netip.AddrPortFrom(gateway, ssdpPort), ssdpGroup} {
		for _, target := range []string{"urn:schemas-upnp-org:device:InternetGatewayDevice:1", "urn:schemas-upnp-org:device:InternetGatewayDevice:2"} {
			_, _ = c.WriteToUDPAddrPort(search(target), to) // where one way does not pass the other does
		}
	}
	_ = c.SetReadDeadline(time.Now().Add(searchFor))
	buf := make([]byte, 4096)
	err = errNoAnswer
	for tried := map[string]bool{}; ; {
		n, from, rerr := c.ReadFromUDPAddrPort(buf)
		if rerr != nil || ctx.Err() != nil {
			return nil, err
		}
		at, ok := location(buf[:n], gateway)
		if from.Addr().Unmap() != gateway || !ok || tried[at.String()] || len(tried) == otherPorts {
			continue
		}
		tried[at.String()] = true
		var u *upnp
		if u, err = openUPnP(ctx, at, gateway); err == nil {
			return u, nil
		}
	}
}

func search(target string) []byte {
	return fmt.Appendf(nil, "M-SEARCH * HTTP/1.1\r\nHOST: %s\r\nMAN: \"ssdp:discover\"\r\nMX: 1\r\nST: %s\r\n\r\n", ssdpGroup, target)
}

// location finds in an answer where the description is, which must be at the gateway.
func location(b []byte, gateway netip.Addr) (*url.URL, bool) {
	r, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(b)), nil)
	if err != nil {
		return nil, false
	}
	r.Body.Close()
	at, err := r.Location()
	return at, err == nil && isAt(at, gateway)
}

func isAt(u *url.URL, host netip.Addr) bool {
	a, err := netip.ParseAddr(u.Hostname())
	return err == nil && a == host && u.Scheme == "http"
}

// routerClient is for the router alone: it goes through no proxy and nowhere else that the router says, and reads so much of an
// answer. goupnp's own does neither.
func routerClient() *http.Client {
	return &http.Client{
		Timeout:       soapWithin,
		Transport:     bounded{&http.Transport{DisableKeepAlives: true}},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// bounded cuts answers off.
type bounded struct{ http.RoundTripper }

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := b.RoundTripper.RoundTrip(r)
	if err == nil {
		resp.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(resp.Body, maxAnswerBytes), resp.Body}
	}
	return resp, err
}

// describe reads a router's description.
func describe(ctx context.Context, by *http.Client, at *url.URL) (*goupnp.RootDevice, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := by.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", at, resp.Status)
	}
	root := new(goupnp.RootDevice)
	dec := xml.NewDecoder(resp.Body)
	dec.DefaultSpace = goupnp.DeviceXMLNamespace
	if err := dec.Decode(root); err != nil {
		return nil, err
	}
	base := at
	if root.URLBaseStr != "" {
		if base, err = url.Parse(root.URLBaseStr); err != nil {
			return nil, err
		}
	}
	root.SetURLBase(base)
	return root, nil
}

// openUPnP finds what maps ports in the description at a URL of the gateway's.
func openUPnP(ctx context.Context, at *url.URL, gateway netip.Addr) (*upnp, error) {
	by := routerClient()
	root, err := describe(ctx, by, at)
	if err != nil {
		return nil, err
	}
	service, err := serviceOf(root, at, gateway, by)
	if err != nil {
		return nil, err
	}
	c, err := net.Dial("udp4", netip.AddrPortFrom(gateway, ssdpPort).String()) // sends nothing
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return &upnp{service: service, local: c.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap()}, nil
}

// serviceOf picks what maps ports.
func serviceOf(root *goupnp.RootDevice, at *url.URL, gateway netip.Addr, by *http.Client) (wan, error) {
	use := func(c *goupnp.ServiceClient) bool {
		c.SOAPClient.HTTPClient = *by
		return isAt(&c.SOAPClient.EndpointURL, gateway)
	}
	ip2, _ := internetgateway2.NewWANIPConnection2ClientsFromRootDevice(root, at)
	for _, c := range ip2 {
		if use(&c.ServiceClient) {
			return c, nil
		}
	}
	ip1, _ := internetgateway2.NewWANIPConnection1ClientsFromRootDevice(root, at)
	for _, c := range ip1 {
		if use(&c.ServiceClient) {
			return c, nil
		}
	}
	ppp, _ := internetgateway2.NewWANPPPConnection1ClientsFromRootDevice(root, at)
	for _, c := range ppp {
		if use(&c.ServiceClient) {
			return c, nil
		}
	}
	return nil, errors.New("the router has no service that maps ports")
}

func (u *upnp) protocol() Protocol { return UPnP }

// ask implements asker.
func (u *upnp) ask(ctx context.Context, r request) (grant, error) {
	name := map[bool]string{true: "UDP", false: "TCP"}[r.udp]
	if r.life == 0 {
		return grant{}, refusal(u.service.DeletePortMappingCtx(ctx, "", r.want.Port(), name))
	}
	text, err := u.service.GetExternalIPAddressCtx(ctx)
	if err != nil {
		return grant{}, refusal(err)
	}
	outside, err := netip.ParseAddr(text)
	if err != nil {
		return grant{}, fmt.Errorf("%w: address %q", errMalformed, text)
	}
	port := r.want.Port()
	for range otherPorts {
		life := uint32(r.life / time.Second)
		if u.forever {
			life = 0
		}
		err = refusal(u.service.AddPortMappingCtx(ctx, "", port, name, r.port, u.local.String(), true, "vcpeer", life))
		var no *Refusal
		switch {
		case err == nil:
			g := grant{netip.AddrPortFrom(outside, port), r.life}
			return g, g.check(r)
		case errors.As(err, &no) && no.Code == upnpPermanent && !u.forever:
			u.forever = true
		case errors.As(err, &no) && no.Code == upnpConflict:
			port = uint16(20000 + rand.IntN(40000))
		default:
			return grant{}, err
		}
	}
	return grant{}, err
}

// refusal makes a router's no out of a SOAP fault.
func refusal(err error) error {
	fault, ok := errors.AsType[*soap.SOAPFaultError](err)
	if !ok {
		return err
	}
	e := fault.Detail.UPnPError
	return &Refusal{UPnP, e.Errorcode, "the router refuses: " + clip(e.ErrorDescription)}
}

// clip bounds what a router may have us print.
func clip(s string) string { return fmt.Sprintf("%.80q", s) }
