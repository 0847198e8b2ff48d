package solicit

import (
	"bytes"
	"encoding/hex"
	"net"
	"net/netip"
	"strings"
	"testing"
)

// question is what Linux 6.1 sends: fd00:77::1 (02:76:00:00:00:01) asks for fd00:77::302.
const question = "3333ff000302" + "027600000001" + "86dd" +
	"60000000" + "0020" + "3a" + "ff" + "fd000077000000000000000000000001" + "ff0200000000000000000001ff000302" +
	"8700" + "0000" + "00000000" + "fd000077000000000000000000000302" + "0101" + "027600000001"

func frame(t testing.TB, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func macOf(a netip.Addr) (net.HardwareAddr, bool) {
	b := a.As16()
	return net.HardwareAddr{2, 0x76, 0, 0, b[14], b[15]}, netip.MustParsePrefix("fd00:77::/112").Contains(a)
}

// sum is the checksum over a message and its pseudo-header (RFC 8200, 8.1); 0: it is right.
func sum(f []byte) uint16 {
	sum := uint32(f[18])<<8 + uint32(f[19]) + 58
	for i := 22; i+1 < len(f); i += 2 {
		sum += uint32(f[i])<<8 | uint32(f[i+1])
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

func TestAnswer(t *testing.T) {
	const unspecified = "00000000000000000000000000000000"
	for _, tt := range []struct{ name, question, want string }{
		{"a question", question, "027600000001" + "027600000302" + "86dd" +
			"60000000" + "0020" + "3a" + "ff" + "fd000077000000000000000000000302" + "fd000077000000000000000000000001" +
			"8800" + "SUM_" + "60000000" + "fd000077000000000000000000000302" + "0201" + "027600000302"},
		{"of who has no address yet", strings.Replace(question, "fd000077000000000000000000000001", unspecified, 1), "027600000001" + "027600000302" + "86dd" +
			"60000000" + "0020" + "3a" + "ff" + "fd000077000000000000000000000302" + "ff020000000000000000000000000001" +
			"8800" + "SUM_" + "20000000" + "fd000077000000000000000000000302" + "0201" + "027600000302"},
	} {
		out, ok := Answer(frame(t, tt.question), macOf)
		if !ok {
			t.Errorf("%s: no answer", tt.name)
			continue
		}
		if sum(out) != 0 {
			t.Errorf("%s: wrong checksum", tt.name)
		}
		got := hex.EncodeToString(out)
		if got = got[:112] + "SUM_" + got[116:]; got != tt.want {
			t.Errorf("%s:\n got %s\nwant %s", tt.name, got, tt.want)
		}
	}
}

func TestNoAnswer(t *testing.T) {
	for name, q := range map[string]string{
		"empty": "", "cut": question[:140], "IPv4": strings.Replace(question, "86dd", "0800", 1),
		"an answer":           strings.Replace(question, "8700", "8800", 1),
		"another code":        strings.Replace(question, "8700", "8701", 1),
		"came by a router":    strings.Replace(question, "3aff", "3afe", 1),
		"from a multicast":    strings.Replace(question, "fd000077000000000000000000000001", "ff020000000000000000000000000001", 1),
		"for nobody we know":  strings.Replace(question, "fd000077000000000000000000000302", "fd000077000000000000000100000302", 1),
		"for somebody's link": strings.Replace(question, "fd000077000000000000000000000302", "fe800000000000000000000000000302", 1),
		"UDP":                 strings.Replace(question, "3aff", "11ff", 1),
	} {
		if out, ok := Answer(frame(t, q), macOf); ok {
			t.Errorf("%s: answered with %x", name, out)
		}
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add(frame(f, question))
	f.Fuzz(func(t *testing.T, in []byte) {
		before := bytes.Clone(in)
		out, ok := Answer(in, macOf)
		if ok && (sum(out) != 0 || len(out) != len(question)/2) || !bytes.Equal(in, before) {
			t.Errorf("%x", out)
		}
	})
}
