package cli

import (
	"testing"

	"vcpeer/peer/api"
)

// What the router does is told in a sentence, for all that it may do.
func TestRouterText(t *testing.T) {
	const at = "44.1.2.3:7475"
	for _, tt := range []struct {
		in   api.NetRouter
		want string
	}{
		{api.NetRouter{}, ""},
		{api.NetRouter{Off: true}, "not asked for a port: the setting port-mapping is off"},
		{api.NetRouter{Refused: "no IPv4 gateway"}, "none can be asked for a port: no IPv4 gateway"},
		{api.NetRouter{Addr: "192.168.1.1"}, "192.168.1.1 passes no ports on by itself: it answers neither to PCP nor to NAT-PMP nor to UPnP"},
		{api.NetRouter{Addr: "192.168.1.1", Protocol: "UPnP", Refused: "the router refuses"}, "192.168.1.1 answers to UPnP but passes no port on: the router refuses"},
		{api.NetRouter{Addr: "192.168.1.1", Protocol: "PCP", UDP: at, TCP: at, UDPWorks: "yes", TCPWorks: "yes"}, "192.168.1.1 passes 44.1.2.3:7475 on to this node (PCP); others get in by UDP and TCP"},
		{api.NetRouter{Addr: "192.168.1.1", Protocol: "PCP", UDP: at, TCP: "44.1.2.3:9", UDPWorks: "no", TCPWorks: "yes"}, "192.168.1.1 passes 44.1.2.3:7475 (UDP) and 44.1.2.3:9 (TCP) on to this node (PCP); others get in by TCP"},
		{api.NetRouter{Addr: "192.168.1.1", Protocol: "PCP", UDP: at, UDPWorks: "no"}, "192.168.1.1 says that it passes 44.1.2.3:7475 (UDP) on to this node (PCP), but nobody gets in there"},
		{api.NetRouter{Addr: "192.168.1.1", Protocol: "PCP", TCP: at, TCPWorks: "unknown"}, "192.168.1.1 says that it passes 44.1.2.3:7475 (TCP) on to this node (PCP), but that is not where others see it: another NAT is behind that router, or nobody has tried yet"},
	} {
		if got := routerText(tt.in); got != tt.want {
			t.Errorf("%+v:\n got %s\nwant %s", tt.in, got, tt.want)
		}
	}
}
