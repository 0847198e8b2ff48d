package admit

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"vcpeer/crdt"
)

func drawToken(t *rapid.T) Token {
	raw := rapid.SliceOfN(rapid.Byte(), prefixBytes+secretBytes, prefixBytes+secretBytes).Draw(t, "token")
	return Token{Cluster: Cluster(raw[:prefixBytes]), secret: [secretBytes]byte(raw[prefixBytes:])}
}

func TestTokenText(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tok := drawToken(t)
		text := tok.Text()
		for _, form := range []string{text, strings.ToUpper(text), " " + text[:20] + "\n" + text[20:] + "\t"} {
			got, err := ParseToken(form)
			if err != nil || got != tok || got.ID() != tok.ID() {
				t.Fatalf("%q: %v, %v", form, got, err)
			}
		}
		if s := fmt.Sprintf("%v %s", tok, tok); strings.Contains(s, text[len(text)-8:]) {
			t.Errorf("%q shows the secret", s)
		}
	})
}

// One wrong, missing, doubled or swapped character is noticed.
func TestMistypedToken(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := []byte(drawToken(t).Text())
		i := rapid.IntRange(len(tokenPrefix), len(text)-2).Draw(t, "at")
		var typed []byte
		switch rapid.IntRange(0, 3).Draw(t, "slip") {
		case 0:
			typed = bytes.Clone(text)
			typed[i] = rapid.SampledFrom([]byte("abcdefghijklmnopqrstuvwxyz234567")).Draw(t, "char")
		case 1:
			typed = append(bytes.Clone(text[:i]), text[i+1:]...)
		case 2:
			typed = append(append(bytes.Clone(text[:i]), text[i]), text[i:]...)
		case 3:
			typed = bytes.Clone(text)
			typed[i], typed[i+1] = typed[i+1], typed[i]
		}
		if bytes.Equal(typed, text) {
			t.Skip("no slip")
		}
		if _, err := ParseToken(string(typed)); !errors.Is(err, ErrMistyped) {
			t.Fatalf("%q for %q: %v", typed, text, err)
		}
	})
}

func TestNotAToken(t *testing.T) {
	for _, s := range []string{"", "hello", "vc2-aaaa", "12D3KooWabc"} {
		if _, err := ParseToken(s); !errors.Is(err, ErrNotToken) {
			t.Errorf("%q: %v", s, err)
		}
	}
}

// Another cluster's token with the same secret has another key.
func TestTokenKeyIsBoundToCluster(t *testing.T) {
	secret := bytes.Repeat([]byte{7}, secretBytes)
	a, err := NewToken(crdt.ClusterID{1}, bytes.NewReader(secret))
	if err != nil {
		t.Fatal(err)
	}
	b, err := NewToken(crdt.ClusterID{2}, bytes.NewReader(secret))
	if err != nil {
		t.Fatal(err)
	}
	if a.ID() == b.ID() || a == b {
		t.Error("one key for two clusters")
	}
}

func FuzzParseToken(f *testing.F) {
	tok, err := NewToken(crdt.ClusterID{1}, bytes.NewReader(make([]byte, secretBytes)))
	if err != nil {
		f.Fatal(err)
	}
	for _, s := range []string{"", "vc1-", tok.Text(), strings.ToUpper(tok.Text()), tok.Text() + "a", "vc1-" + strings.Repeat("a", 58)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		tok, err := ParseToken(s)
		if err == nil && tok.Text() != strings.ToLower(strings.Join(strings.Fields(s), "")) {
			t.Errorf("%q is read as %q", s, tok.Text())
		}
	})
}
