package echo

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"testing"
	"time"
)

func TestMessages(t *testing.T) {
	a, b := token{1, 2, 3}, token{9}
	for _, size := range []int{MinSize, MinSize + 1, 1500} {
		m := request(a, 70_000, size)
		if len(m) != size-20 || checksum(m) != 0 {
			t.Fatalf("%d bytes: a message of %d with checksum %04x", size, len(m), checksum(m))
		}
		if _, ok := reply(m, a); ok {
			t.Error("a request was taken for an answer")
		}
		m[0], m[2], m[3] = typeReply, 0, 0
		sum := checksum(m)
		m[2], m[3] = byte(sum>>8), byte(sum)
		if seq, ok := reply(m, a); !ok || seq != 70_000 {
			t.Errorf("answer: %d, %v", seq, ok)
		}
		if _, ok := reply(m, b); ok {
			t.Error("an answer to somebody else was taken")
		}
		m[len(m)-1]++
		if _, ok := reply(m, a); ok {
			t.Error("a broken answer was taken")
		}
	}
}

func FuzzReply(f *testing.F) {
	f.Add(request(token{1}, 1, MinSize))
	f.Fuzz(func(_ *testing.T, m []byte) { reply(m, token{1}) })
}

func TestTheMachineAnswersItself(t *testing.T) {
	var got []Pong
	err := Run(t.Context(), Ask{To: netip.MustParseAddr("127.0.0.1"), Count: 3, Interval: time.Millisecond, Size: 200}, func(p Pong) { got = append(got, p) })
	if errors.Is(err, os.ErrPermission) {
		t.Skipf("raw sockets: %v", err)
	}
	if err != nil || len(got) != 3 {
		t.Fatalf("%v, %+v", err, got)
	}
	for i, p := range got {
		if p.Seq != i+1 || p.Lost || p.RTT <= 0 {
			t.Errorf("%+v", p)
		}
	}
}

func TestSilenceIsLoss(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	lost := 0
	// 127.0.0.0/8 answers; 240.0.0.0/4 cannot be sent to, or nobody is there.
	err := Run(ctx, Ask{To: netip.MustParseAddr("240.0.0.1"), Count: 2, Interval: time.Millisecond, Timeout: 20 * time.Millisecond}, func(p Pong) {
		if p.Lost {
			lost++
		}
	})
	switch {
	case errors.Is(err, os.ErrPermission):
		t.Skipf("raw sockets: %v", err)
	case err == nil && lost != 2:
		t.Errorf("%d lost", lost)
	}
}
