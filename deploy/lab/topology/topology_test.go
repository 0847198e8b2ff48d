package topology

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// show prints a topology in a line for each site, short enough for tables.
func show(t Topology) string {
	var b strings.Builder
	for _, s := range t.Sites {
		fmt.Fprintf(&b, "%s router=%v nat=%s ip=%s mtu=%d", s.Name, s.Router, s.NAT, s.IP, s.MTU)
		if s.DoubleNAT {
			b.WriteString(" double")
		}
		for _, n := range s.Nodes {
			fmt.Fprintf(&b, " [%s start=%v ovs=%v overlay=%s args=%v]", n.Name, n.Start, n.OVS, n.Overlay, n.Args)
		}
		b.WriteByte('\n')
	}
	for _, l := range t.Links {
		fmt.Fprintf(&b, "%s %v\n", l.Pair, l.Words)
	}
	return b.String()
}

func TestParse(t *testing.T) {
	for _, tt := range []struct{ name, file, want string }{
		{"least", "sites:\n  a:\n", "a router=false nat=none ip=v4 mtu=1500 [a-1 start=true ovs=true overlay= args=[]]\n"},
		{"nodes by number", "sites:\n  a: {nodes: 2, ip: both}\n",
			"a router=true nat=none ip=both mtu=1500 [a-1 start=true ovs=true overlay= args=[]] [a-2 start=true ovs=true overlay= args=[]]\n"},
		{"no nodes", "sites:\n  a: {nodes: 0}\n", "a router=false nat=none ip=v4 mtu=1500\n"},
		{"nodes by name, one special", "overlay: on\nsites:\n  a:\n    nodes: {x: {start: no}, y: }\n    args: [--slots, 2]\n",
			"a router=true nat=none ip=v4 mtu=1500 [x start=false ovs=true overlay=on args=[--slots 2]] [y start=true ovs=true overlay=on args=[--slots 2]]\n"},
		{"the default comes first", "sites: {a: , b: }\nlinks:\n  a>b: {loss: 1%}\n  default: delay=5ms jitter=1ms\n",
			"a router=false nat=none ip=v4 mtu=1500 [a-1 start=true ovs=true overlay= args=[]]\n" +
				"b router=false nat=none ip=v4 mtu=1500 [b-1 start=true ovs=true overlay= args=[]]\n*<>* [delay=5ms jitter=1ms]\na>b [loss=1%]\n"},
		{"NAT", "sites:\n  a: {nat: symmetric, double-nat: yes}\n", "a router=true nat=symmetric ip=v4 mtu=1500 double [a-1 start=true ovs=true overlay= args=[]]\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Parse("f", []byte(tt.file))
			if err != nil {
				t.Fatal(err)
			}
			if show(got) != tt.want {
				t.Errorf("got\n%swant\n%s", show(got), tt.want)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	for _, tt := range []struct{ file, want string }{
		{"", "f:1: the file is empty; want at least sites"},
		{"name: x\n", "f:1: want a key sites"},
		{"site:\n  a:\n", `f:1: unknown key "site"; did you mean "sites"?`},
		{"sites:\n  a: {nat: symetric}\n", `f:2: nat: "symetric": want none, full-cone, restricted, port-restricted, symmetric; did you mean symmetric?`},
		{"sites:\n  a: {double_nat: yes}\n", `f:2: unknown key "double_nat"; did you mean "double-nat"?`},
		{"sites:\n  a: {double-nat: yes}\n", "f:1: site a: double-nat: want a kind of nat for the inner one too"},
		{"sites:\n  a: {nodes: 2, router: no}\n", "f:2: router: site a needs one, since it has more than one node"},
		{"sites:\n  a: {nodes: many}\n", "f:2: nodes: want a number from 0 to 200, or names"},
		{"sites:\n  A:\n", `f:1: site A: name "A": want lower-case letters, digits and hyphens, at most 31`},
		{"sites:\n  wan:\n", `f:1: site wan: name "wan" is the lab's own`},
		{"sites:\n  a:\n  a:\n", "f:3: a is there a second time"},
		{"sites:\n  a: {nodes: [x]}\n  b: {nodes: [x]}\n", "f:1: site b: node x: a node of a has that name too"},
		{"sites:\n  a: {nodes: [a-router, x]}\n", "f:1: site a: node a-router: its router has that name too"},
		{"sites:\n  a: {udp: closed}\n", `f:2: udp: "closed": want open, blocked`},
		{"sites: {a: , b: }\nlinks:\n  a<>c: delay=1ms\n", `f:1: link a<>c: there is no site "c"; there are a, b`},
		{"sites: {a: , b: }\nlinks:\n  a<>b: {dely: 1ms}\n", `f:3: dely=1ms: unknown key "dely"; did you mean "delay"?`},
		{"sites: {a: }\n---\nsites: {b: }\n", "f:1: more than one document"},
		{"sites: [a, b]\n", "f:1: want lines of the form key: value"},
	} {
		if _, err := Parse("f", []byte(tt.file)); err == nil || err.Error() != tt.want {
			t.Errorf("%q\n got %v\nwant %s", tt.file, err, tt.want)
		}
	}
}

func TestExamples(t *testing.T) {
	files, err := filepath.Glob("../topologies/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal("no examples", err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		top, err := Parse(f, b)
		if err != nil {
			t.Error(err)
		}
		if want := strings.TrimSuffix(filepath.Base(f), ".yaml"); top.Name != want {
			t.Errorf("%s is called %q", f, top.Name)
		}
	}
}

// FuzzParse: whatever the file, Parse returns, and what it takes is valid and has a shape for every direction.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"sites:\n  a: {nodes: 2}\n  b: {nat: full-cone}\nlinks:\n  default: delay=1ms\n  a>b: {loss: 1%}\n", "sites: {a: {nodes: {x: {args: [1]}}}}", "- &a [*a]", "sites: &s {a: *s}"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		top, err := Parse("f", b)
		if err != nil {
			return
		}
		if err := top.finish(); err != nil {
			t.Fatalf("%q was taken, but %v", b, err)
		}
		for _, x := range top.Sites[:min(4, len(top.Sites))] {
			for _, y := range top.Sites[:min(4, len(top.Sites))] {
				if _, err := top.Shape(x.Name, y.Name); err != nil {
					t.Fatalf("%q: %v", b, err)
				}
			}
		}
	})
}

func TestMatrix(t *testing.T) {
	m, err := ParseMatrix("m", []byte("# a b c\n0 10 3\n12, 0, 4\n3;4;0\n"))
	if err != nil {
		t.Fatal(err)
	}
	top, err := New(Options{Sites: 3, Words: []string{"delay=1s", "loss=1%"}})
	if err != nil {
		t.Fatal(err)
	}
	if top, err = top.WithMatrix(m); err != nil {
		t.Fatal(err)
	}
	got, err := top.Matrix()
	if err != nil {
		t.Fatal(err)
	}
	if want := (Matrix{{0, 11, 3}, {11, 0, 4}, {3, 4, 0}}); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v: each direction has half of its entry", got, want)
	}
	if got, want := got.Shortest(), (Matrix{{0, 7, 3}, {7, 0, 4}, {3, 4, 0}}); !reflect.DeepEqual(got, want) {
		t.Errorf("shortest: got %v, want %v", got, want)
	}
	if s, err := top.Shape("site1", "site2"); err != nil || s.Loss != 0.01 {
		t.Errorf("the loss is %v, %v", s.Loss, err)
	}
	for _, bad := range []string{"0 1\n", "0 x\n1 0\n", "0 -1\n1 0\n"} {
		if _, err := ParseMatrix("m", []byte(bad)); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}

func TestRandomMatrix(t *testing.T) {
	m := RandomMatrix(20, 7)
	if !reflect.DeepEqual(m, RandomMatrix(20, 7)) || reflect.DeepEqual(m, RandomMatrix(20, 8)) {
		t.Error("it is not a function of the seed")
	}
	back, err := ParseMatrix("m", []byte(m.String()))
	if err != nil || !reflect.DeepEqual(back, m) {
		t.Errorf("what is printed is not what is read: %v", err)
	}
	faster := 0
	short := m.Shortest()
	for i := range m {
		for j := range i {
			if short[i][j] < 0.9*m[i][j] {
				faster++
			}
		}
	}
	if share := float64(faster) / 190; share < 0.1 || share > 0.7 {
		t.Errorf("%.0f%% of the pairs have a path over others that is faster by a tenth; measured networks have 10 to 40", 100*share)
	}
}
