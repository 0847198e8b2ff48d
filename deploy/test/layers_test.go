// Package layers holds the rules of who may import whom, as a test.
package layers

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// rule says that packages below a path do not import anything below another, and why.
type rule struct{ from, not, why string }

var rules = []rule{
	{"vcpeer/crdt", "vcpeer/gossip", "records know nothing of how they travel"},
	{"vcpeer/crdt", "vcpeer/queue", "records are below every part"},
	{"vcpeer/crdt", "vcpeer/overlay", "records are below every part"},
	{"vcpeer/gossip", "vcpeer/queue", "the parts meet in peer"},
	{"vcpeer/gossip", "vcpeer/overlay", "the parts meet in peer"},
	{"vcpeer/queue", "vcpeer/gossip", "the parts meet in peer"},
	{"vcpeer/queue", "vcpeer/overlay", "the parts meet in peer"},
	{"vcpeer/overlay", "vcpeer/gossip", "the parts meet in peer"},
	{"vcpeer/overlay", "vcpeer/queue", "the parts meet in peer"},
	{"vcpeer/queue/blob", "vcpeer/queue/group", "a store knows no consensus"},
	{"vcpeer/queue/blob", "vcpeer/queue/exec", "a store knows no jobs"},
	{"vcpeer/queue/exec", "vcpeer/queue/group", "an executor knows no consensus"},
	{"vcpeer/queue/exec", "vcpeer/queue/blob", "blobs come through the interface Blobs"},
	{"vcpeer/queue/group", "vcpeer/queue/exec", "a log knows no jobs"},
	{"vcpeer/overlay/path", "vcpeer/overlay/ovs", "what is chosen knows no switch"},
	{"vcpeer/overlay/flow", "vcpeer/overlay/ovs", "tables are a pure function"},
	{"vcpeer/overlay/probe", "vcpeer/overlay/ovs", "probes know a port, no switch"},
	{"vcpeer/peer/api", "vcpeer/crdt", "a client needs the values of the API and nothing behind it"},
	{"vcpeer/peer/api", "vcpeer/queue", "a client needs the values of the API and nothing behind it"},
}

// below says that nothing below these parts imports the daemon or the command line.
var below = []string{"vcpeer/crdt", "vcpeer/gossip", "vcpeer/queue", "vcpeer/overlay"}

// homes says where an outside library may be imported: there and below.
var homes = []rule{
	{"github.com/hashicorp/serf", "vcpeer/gossip", "Serf stops at gossip"},
	{"github.com/hashicorp/memberlist", "vcpeer/gossip", "memberlist stops at gossip"},
	{"github.com/libp2p/go-libp2p", "vcpeer/peer/fabric", "libp2p stops at the fabric"},
	{"github.com/quic-go/quic-go", "vcpeer/peer/fabric", "libp2p stops at the fabric"},
	{"go.etcd.io/raft", "vcpeer/queue/group", "raft stops at the group"},
	{"github.com/dgraph-io/badger", "vcpeer/crdt/replica", "Badger stops at the replica"},
	{"github.com/spf13/cobra", "vcpeer/cli", "the command tree is cli's"},
	{"github.com/digitalocean/go-openvswitch", "vcpeer/overlay/ovs", "Open vSwitch stops at its driver"},
	{"github.com/ovn-kubernetes/libovsdb", "vcpeer/overlay/ovs", "Open vSwitch stops at its driver"},
}

func within(path, dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }

func TestWhoImportsWhom(t *testing.T) {
	for path, p := range packages(t) {
		for _, imported := range p.Imports {
			for _, r := range rules {
				if within(path, r.from) && within(imported, r.not) {
					t.Errorf("%s imports %s: %s", path, imported, r.why)
				}
			}
			for _, b := range below {
				if within(path, b) && (within(imported, "vcpeer/peer") || within(imported, "vcpeer/cli")) {
					t.Errorf("%s imports %s: nothing below the daemon imports it", path, imported)
				}
			}
			for _, h := range homes {
				if within(imported, h.from) && !within(path, h.not) {
					t.Errorf("%s imports %s: %s", path, imported, h.why)
				}
			}
		}
	}
}

// TestBubblesAreSafe keeps tests from the runtime's own bubbles, with which the race detector now and then ends the process.
func TestBubblesAreSafe(t *testing.T) {
	const synctest, home = "testing/synctest", "vcpeer/deploy/test/bubble"
	all := packages(t)
	if !slices.Contains(all[home].Imports, synctest) {
		t.Errorf("%s does not import %s: this test would see nothing", home, synctest)
	}
	for path, p := range all {
		if path != home && slices.Contains(slices.Concat(p.Imports, p.TestImports, p.XTestImports), synctest) {
			t.Errorf("%s imports %s: use %s", path, synctest, home)
		}
	}
}

// listed is what go list says of a package.
type listed struct{ Imports, TestImports, XTestImports []string }

// packages returns every package of the module by its path.
func packages(t *testing.T) map[string]listed {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Imports,TestImports,XTestImports", "vcpeer/...")
	out, err := cmd.Output()
	if err != nil {
		var ee *exec.ExitError
		if errors.As(err, &ee) {
			t.Fatalf("go list: %v\n%s", err, ee.Stderr)
		}
		t.Fatal(err)
	}
	all := make(map[string]listed)
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p struct {
			ImportPath string
			listed
		}
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		all[p.ImportPath] = p.listed
	}
	if !slices.Contains(all["vcpeer/peer/server"].Imports, "vcpeer/peer/api") {
		t.Fatal("go list gave no imports: this test would see nothing")
	}
	return all
}
