package fabric

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestIdentity(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key.pem")
	key, created, err := Identity(path)
	if err != nil || !created {
		t.Fatal(created, err)
	}
	st, err := os.Stat(path)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v; want 0600", st.Mode(), err)
	}
	again, created, err := Identity(path)
	if err != nil || created || !again.Equal(key) {
		t.Errorf("second start: created %v, %v, same key: %v", created, err, again.Equal(key))
	}
	left, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(left) != 1 {
		t.Errorf("files left: %v, %v", left, err)
	}
}

func TestIdentityRefuses(t *testing.T) {
	write := func(t *testing.T, text string, mode os.FileMode) string {
		path := filepath.Join(t.TempDir(), "key.pem")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	rsaKey := "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VuBCIEIHcHbQpzGKV9PBbBclGyZkXfTC+H68CZKrF3+6UduSwq\n-----END PRIVATE KEY-----\n" // X25519
	for _, tt := range []struct {
		name string
		path string
		text string
	}{
		{"group", write(t, "x", 0o640), "hint: "},
		{"others", write(t, "x", 0o604), "mode 0604"},
		{"empty", write(t, "", 0o600), "unusable key file"},
		{"noise", write(t, "hello", 0o600), "not a PEM"},
		{"other kind", write(t, rsaKey, 0o600), "not an Ed25519 key"},
		{"directory", t.TempDir(), "not a regular file"},
	} {
		_, created, err := Identity(tt.path)
		if !errors.Is(err, ErrKeyFile) || created || !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%s: %v, %v; want %q", tt.name, created, err, tt.text)
		}
	}
	if _, _, err := Identity(filepath.Join(t.TempDir(), "no", "such", "dir")); err == nil || errors.Is(err, ErrKeyFile) {
		t.Errorf("no directory: %v", err)
	}
}
