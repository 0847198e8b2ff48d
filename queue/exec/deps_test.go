package exec

import (
	"go/parser"
	"go/token"
	"os"
	"strconv"
	"strings"
	"testing"
)

// TestImports keeps libraries out that belong behind an interface elsewhere.
func TestImports(t *testing.T) {
	reasons := map[string]string{
		"github.com/libp2p":  "attempts need no network",
		"github.com/dgraph":  "records are plain files, readable by a shim",
		"vcpeer/peer":        "peer joins the parts, not the other way round",
		"vcpeer/gossip":      "parts do not know each other",
		"vcpeer/queue/group": "an executor knows no consensus",
		"vcpeer/queue/blob":  "blobs come through the interface Blobs",
	}
	list, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		if !strings.HasSuffix(e.Name(), ".go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), e.Name(), nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, imp := range f.Imports {
			path, err := strconv.Unquote(imp.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			for bad, why := range reasons {
				if strings.HasPrefix(path, bad) {
					t.Errorf("%s imports %s: %s", e.Name(), path, why)
				}
			}
		}
	}
}
