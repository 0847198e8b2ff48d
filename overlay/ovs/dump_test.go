package ovs

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// brief prints a rule for tables of tests.
func (r Rule) brief() string {
	return fmt.Sprintf("%#x %d/%d %q %s packets=%d bytes=%d age=%v rest=%q", r.Cookie, r.Table, r.Priority, r.Match, r.Actions,
		r.Packets, r.Bytes, r.Age, r.Rest)
}

func TestParseDump(t *testing.T) {
	for _, tt := range []struct{ name, line, want string }{
		{"nothing left out",
			` cookie=0x7663000000000002, duration=1.5s, table=3, n_packets=7, n_bytes=686, priority=5,ip,nw_dst=10.77.0.1 actions=dec_ttl,output:9`,
			`0x7663000000000002 3/5 "ip,nw_dst=10.77.0.1" dec_ttl,output:9 packets=7 bytes=686 age=1.5s rest=""`},
		{"priority left out",
			` cookie=0x0, duration=0.005s, table=0, n_packets=0, n_bytes=0, in_port=LOCAL actions=resubmit(,20),goto_table:30`,
			`0x0 0/32768 "in_port=LOCAL" resubmit(,20),goto_table:30 packets=0 bytes=0 age=5ms rest=""`},
		{"priority and match left out",
			` cookie=0x0, duration=0.005s, table=1, n_packets=0, n_bytes=0, actions=group:1`,
			`0x0 1/32768 "" group:1 packets=0 bytes=0 age=5ms rest=""`},
		{"match left out",
			` cookie=0x0, duration=2s, table=2, n_packets=0, n_bytes=0, priority=0 actions=drop`,
			`0x0 2/0 "" drop packets=0 bytes=0 age=2s rest=""`},
		{"timeouts and flags",
			` cookie=0x0, duration=2s, table=2, n_packets=0, n_bytes=0, idle_timeout=60, hard_timeout=30, send_flow_rem reset_counts priority=3,arp actions=drop`,
			`0x0 2/3 "arp" drop packets=0 bytes=0 age=2s rest="idle_timeout=60 hard_timeout=30 send_flow_rem reset_counts"`},
		{"flags without a match",
			` cookie=0x0, duration=2s, table=2, n_packets=0, n_bytes=0, send_flow_rem actions=drop`,
			`0x0 2/32768 "" drop packets=0 bytes=0 age=2s rest="send_flow_rem"`},
		{"actions in actions",
			` cookie=0x0, duration=2s, table=1, n_packets=0, n_bytes=0, priority=3,tun_id=0x40000000/0xc0000000,tun_src=9.8.7.6,in_port=9 actions=learn(table=21,hard_timeout=30,priority=1,cookie=0x7663000000000001,NXM_OF_ETH_DST[]=NXM_OF_ETH_SRC[],load:NXM_NX_TUN_ID[0..31]->NXM_NX_REG0[]),check_pkt_larger(1472)->NXM_NX_REG0[0],clone(set_field:0x1->reg1,output:9),IN_PORT`,
			`0x0 1/3 "tun_id=0x40000000/0xc0000000,tun_src=9.8.7.6,in_port=9" learn(table=21,hard_timeout=30,priority=1,cookie=0x7663000000000001,NXM_OF_ETH_DST[]=NXM_OF_ETH_SRC[],load:NXM_NX_TUN_ID[0..31]->NXM_NX_REG0[]),check_pkt_larger(1472)->NXM_NX_REG0[0],clone(set_field:0x1->reg1,output:9),IN_PORT packets=0 bytes=0 age=2s rest=""`},
		{"controller and note",
			` cookie=0x0, duration=2s, table=2, n_packets=0, n_bytes=0, priority=4,ipv6,ipv6_dst=fd00::1,nw_frag=no actions=controller(max_len=128,userdata=01.02),multipath(symmetric_l4,1024,modulo_n,4,0,NXM_NX_REG2[0..3]),note:01.02.00.00.00.00,write_metadata:0x5`,
			`0x0 2/4 "ipv6,ipv6_dst=fd00::1,nw_frag=no" controller(max_len=128,userdata=01.02),multipath(symmetric_l4,1024,modulo_n,4,0,NXM_NX_REG2[0..3]),note:01.02.00.00.00.00,write_metadata:0x5 packets=0 bytes=0 age=2s rest=""`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rules, err := parseDump("OFPST_FLOW reply (OF1.4) (xid=0x2):\n" + tt.line + "\n")
			if err != nil || len(rules) != 1 {
				t.Fatalf("%v, %v", rules, err)
			}
			if got := rules[0].brief(); got != tt.want {
				t.Errorf("\n got %s\nwant %s", got, tt.want)
			}
		})
	}
	for _, bad := range []string{"nonsense", " cookie=zz, actions=drop", " table=256, actions=drop", " priority=70000 actions=drop"} {
		if _, err := parseDump(bad); err == nil {
			t.Errorf("no error for %q", bad)
		}
	}
}

func TestParseMods(t *testing.T) {
	rules, err := parseMods(`usable protocols: OXM,NXM+table_id
chosen protocol: OXM-OpenFlow14
OFPT_FLOW_MOD (OF1.4) (xid=0x1): ADD priority=5,ip,nw_dst=10.77.0.1 cookie:0x7663000000000002 actions=dec_ttl,output:9
OFPT_FLOW_MOD (OF1.4) (xid=0x3): ADD table:1 cookie:0x7663000000000004 actions=group:1
OFPT_FLOW_MOD (OF1.4) (xid=0x7): ADD table:2 priority=0 cookie:0x7663000000000008 idle:60 send_flow_rem actions=drop
`)
	if err != nil {
		t.Fatal(err)
	}
	want := []Rule{
		{Priority: 5, Cookie: 0x7663000000000002, Match: "ip,nw_dst=10.77.0.1", Actions: "dec_ttl,output:9"},
		{Table: 1, Priority: 32768, Cookie: 0x7663000000000004, Actions: "group:1"},
		{Table: 2, Cookie: 0x7663000000000008, Actions: "drop"},
	}
	if !slices.Equal(rules, want) {
		t.Errorf("\n got %+v\nwant %+v", rules, want)
	}
}

func TestParseGroups(t *testing.T) {
	groups, err := parseGroups(`OFPST_GROUP_DESC reply (OF1.5) (xid=0x2):
 group_id=1,type=ff,bucket=bucket_id:0,watch_port:9,actions=output:9,bucket=bucket_id:1,actions=drop
 group_id=7,type=select
`)
	want := []group{{1, "group_id=1,type=ff,bucket=watch_port:9,actions=output:9,bucket=actions=drop"}, {7, "group_id=7,type=select"}}
	if err != nil || !slices.Equal(groups, want) {
		t.Errorf("%v, %v", groups, err)
	}
	if got := groupsOf("set_field:1->reg1,group:12,clone(group:3),group:4"); !slices.Equal(got, []uint32{12, 3, 4}) {
		t.Errorf("groups of actions: %v", got)
	}
}

// FuzzParse: whatever a command prints is read or refused, and what is read prints as it was.
func FuzzParse(f *testing.F) {
	f.Add(" cookie=0x0, duration=2s, table=2, n_packets=0, n_bytes=0, send_flow_rem priority=3,ip actions=learn(actions=x)")
	f.Add("OFPT_FLOW_MOD (OF1.4) (xid=0x3): ADD table:1 cookie:0x7663000000000004 actions=group:1")
	f.Add(" group_id=1,type=ff,bucket=bucket_id:0,watch_port:9,actions=output:9")
	f.Add("10.0.0.1 02:00:00:00:00:09   br0")
	f.Fuzz(func(t *testing.T, out string) {
		rules, err := parseDump(out)
		if err != nil && rules != nil {
			t.Error("rules and an error")
		}
		for _, r := range rules {
			if !strings.Contains(out, r.Actions) || !strings.Contains(out, r.Match) {
				t.Errorf("%q read as %s", out, r.brief())
			}
		}
		parseMods(out)
		parseGroups(out)
		parseNeighbours(out, "br0")
		groupsOf(out)
	})
}

// BenchmarkParseDump reads a thousand sites' flows.
func BenchmarkParseDump(b *testing.B) {
	line := " cookie=0x7663000000000002, duration=1.5s, table=3, n_packets=7, n_bytes=686, priority=5,ip,nw_dst=10.77.0.1 actions=dec_ttl,set_field:0x50004002->tun_id,set_field:1.2.3.4->tun_dst,output:9\n"
	out := strings.Repeat(line, 2100)
	for b.Loop() {
		if _, err := parseDump(out); err != nil {
			b.Fatal(err)
		}
	}
}
