package peer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"vcpeer/peer/api"
)

func TestJSONFrames(t *testing.T) {
	var b bytes.Buffer
	a := overlayAnswer{Seen: api.Place{Node: "n", Site: "s"}, AsOf: time.Unix(1, 0).UTC(), Links: []api.Link{{Node: "m", RTTMilli: 1.5}}}
	if err := writeJSONFrame(&b, maxOverlayAnswer, a); err != nil {
		t.Fatal(err)
	}
	whole := b.Bytes()
	var got overlayAnswer
	if err := readJSONFrame(bytes.NewReader(whole), maxOverlayAnswer, &got); err != nil || !reflect.DeepEqual(got, a) {
		t.Errorf("%+v (%v)", got, err)
	}
	for _, tt := range []struct {
		name string
		in   []byte
		want error
	}{
		{"nothing", nil, io.EOF},
		{"half a head", whole[:2], io.ErrUnexpectedEOF},
		{"half a body", whole[:len(whole)-1], io.ErrUnexpectedEOF},
		{"empty", []byte{0, 0, 0, 0}, errJSONFrame},
		{"too large", []byte{0xff, 0xff, 0xff, 0xff}, errJSONFrame},
		{"no JSON", []byte{0, 0, 0, 1, '{'}, errJSONFrame},
	} {
		if err := readJSONFrame(bytes.NewReader(tt.in), maxOverlayAnswer, &got); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
	if err := writeJSONFrame(io.Discard, 10, overlayQuestion{Op: strings.Repeat("x", 11)}); !errors.Is(err, errJSONFrame) {
		t.Errorf("too large to send: %v", err)
	}
}

func FuzzOverlayQuestion(f *testing.F) {
	for _, q := range []overlayQuestion{{Op: askStatus}, {Op: askExplain, Site: "00"}, {Op: askTrace, Node: "12D3"}} {
		var b bytes.Buffer
		_ = writeJSONFrame(&b, maxOverlayQuestion, q)
		f.Add(b.Bytes())
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		var q, again overlayQuestion
		if err := readJSONFrame(bytes.NewReader(in), maxOverlayQuestion, &q); err != nil {
			return
		}
		var b bytes.Buffer
		if err := writeJSONFrame(&b, 8*maxOverlayQuestion, q); err != nil { // what JSON escapes grows
			t.Fatal(err)
		}
		if err := readJSONFrame(&b, 8*maxOverlayQuestion, &again); err != nil || again != q {
			t.Errorf("%q: %+v, again %+v (%v)", in, q, again, err)
		}
	})
}

func FuzzOverlayAnswer(f *testing.F) {
	var b bytes.Buffer
	_ = writeJSONFrame(&b, maxOverlayAnswer, overlayAnswer{Error: &api.Problem{Code: api.CodeBusy}, Why: &api.PathWhy{Losers: []api.Loser{{}}}})
	f.Add(b.Bytes())
	f.Fuzz(func(_ *testing.T, in []byte) {
		var a overlayAnswer
		_ = readJSONFrame(bytes.NewReader(in), 1<<16, &a)
	})
}

func TestUnreachedIsAProblemForPeople(t *testing.T) {
	var p *api.Problem
	err := error(&unreachedError{"osaka-1", errors.New("no route")})
	if !errors.As(err, &p) || p.Code != api.CodeUnavailable || p.Message != "osaka-1 is not reached: no route" || p.Hint == "" {
		t.Errorf("%+v", p)
	}
	for _, cause := range []error{context.DeadlineExceeded, os.ErrDeadlineExceeded, fmt.Errorf("open: %w", os.ErrDeadlineExceeded)} {
		if got := (&unreachedError{"osaka-1", cause}).Error(); got != "osaka-1 did not answer in time" {
			t.Errorf("%v: %s", cause, got)
		}
	}
}
