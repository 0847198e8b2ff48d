// Package shape says in values and in words what a path from one site to another does to packets. It is pure: package
// topology reads shapes from files, package wan makes packets obey them, and the command line types them.
//
//	s, err := shape.Shape{}.With("delay=20ms", "loss=1%")
package shape

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"vcpeer/peer/config"
)

// Shape is what one direction between two sites does to a packet. The zero value passes everything at once.
type Shape struct {
	Delay      time.Duration // one way
	Jitter     time.Duration // each packet has Delay ± a uniform part of it; packets stay in order
	Loss       float64       // probability that a packet is lost, 0 to 1
	Rate       float64       // bits per second; 0: no limit
	QueueBytes int           // waiting for Rate before the newest is dropped; 0: DefaultQueueBytes
	MTUBytes   int           // a larger IP packet is answered with "too big" (or dropped without DF); 0: no limit
	Cut        bool          // nothing passes, whatever Loss is; so that healing brings the old loss back
}

// DefaultQueueBytes holds 80 ms of 100 Mbit/s.
const DefaultQueueBytes = 1 << 20

// Keys are the words before "=" that With knows.
var Keys = []string{"delay", "jitter", "loss", "rate", "queue", "mtu"}

// With returns s changed by words of the form key=value; what is not named stays.
func (s Shape) With(words ...string) (Shape, error) {
	for _, w := range words {
		key, value, ok := strings.Cut(w, "=")
		if !ok {
			return s, fmt.Errorf("%q: want key=value, for instance delay=20ms", w)
		}
		if err := s.set(key, value); err != nil {
			return s, fmt.Errorf("%s: %w", w, err)
		}
	}
	return s, s.validate()
}

func (s *Shape) set(key, value string) (err error) {
	switch key {
	case "delay":
		s.Delay, err = time.ParseDuration(value)
	case "jitter":
		s.Jitter, err = time.ParseDuration(value)
	case "loss":
		s.Loss, err = parseShare(value)
	case "rate":
		s.Rate, err = parseRate(value)
	case "queue":
		s.QueueBytes, err = strconv.Atoi(value)
	case "mtu":
		s.MTUBytes, err = strconv.Atoi(value)
	default:
		return Unknown(key, Keys)
	}
	return err
}

// Unknown is the error for a key that is none of known; it names the nearest.
func Unknown(key string, known []string) error {
	if near := config.Nearest(key, known); near != "" {
		return fmt.Errorf("unknown key %q; did you mean %q?", key, near)
	}
	known = slices.Sorted(slices.Values(known))
	return fmt.Errorf("unknown key %q; known are %s", key, strings.Join(known, ", "))
}

// maxDelay keeps a mistyped unit from filling memory with packets under way.
const maxDelay = time.Minute

func (s Shape) validate() error {
	switch {
	case s.Delay < 0 || s.Delay > maxDelay || s.Jitter < 0 || s.Jitter > maxDelay:
		return fmt.Errorf("delay and jitter: want a time from 0s to %v", maxDelay)
	case !(s.Loss >= 0 && s.Loss <= 1): // also NaN
		return fmt.Errorf("loss: want 0%% to 100%%")
	case !(s.Rate >= 0 && s.Rate <= 1e12):
		return fmt.Errorf("rate: want a number of bits per second, as 20mbit")
	case s.QueueBytes < 0 || s.QueueBytes > 1<<30:
		return fmt.Errorf("queue: want 0 to %d bytes", 1<<30)
	case s.MTUBytes != 0 && (s.MTUBytes < 576 || s.MTUBytes > 65535):
		return fmt.Errorf("mtu: want 576 to 65535 bytes, or 0 for none")
	}
	return nil
}

// String is what With reads, of all that differs from the zero value; "-" when nothing does.
func (s Shape) String() string {
	var words []string
	add := func(yes bool, format string, v any) {
		if yes {
			words = append(words, fmt.Sprintf(format, v))
		}
	}
	add(s.Delay != 0, "delay=%v", s.Delay)
	add(s.Jitter != 0, "jitter=%v", s.Jitter)
	add(s.Loss != 0, "loss=%s%%", strconv.FormatFloat(s.Loss*100, 'g', 6, 64))
	add(s.Rate != 0, "rate=%s", formatRate(s.Rate))
	add(s.QueueBytes != 0, "queue=%d", s.QueueBytes)
	add(s.MTUBytes != 0, "mtu=%d", s.MTUBytes)
	if len(words) == 0 {
		return "-"
	}
	return strings.Join(words, " ")
}

// MarshalJSON gives numbers with their units in the names, for programs.
func (s Shape) MarshalJSON() ([]byte, error) {
	return json.Marshal(form{float64(s.Delay) / 1e6, float64(s.Jitter) / 1e6, s.Loss, s.Rate, s.QueueBytes, s.MTUBytes, s.Cut})
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (s *Shape) UnmarshalJSON(b []byte) error {
	var f form
	if err := json.Unmarshal(b, &f); err != nil {
		return err
	}
	*s = Shape{time.Duration(f.DelayMillis * 1e6), time.Duration(f.JitterMillis * 1e6), f.Loss, f.Rate, f.Queue, f.MTU, f.Cut}
	return s.validate()
}

type form struct {
	DelayMillis  float64 `json:"delayMillis"`
	JitterMillis float64 `json:"jitterMillis,omitempty"`
	Loss         float64 `json:"loss,omitempty"`
	Rate         float64 `json:"bitsPerSecond,omitempty"`
	Queue        int     `json:"queueBytes,omitempty"`
	MTU          int     `json:"mtuBytes,omitempty"`
	Cut          bool    `json:"cut,omitempty"`
}

func parseShare(s string) (float64, error) {
	number, percent := strings.CutSuffix(s, "%")
	f, err := strconv.ParseFloat(number, 64)
	if err != nil {
		return 0, fmt.Errorf("want a share, as 1%% or 0.01")
	}
	if percent {
		f /= 100
	}
	return f, nil
}

var units = []struct {
	suffix string
	bits   float64
}{{"gbit", 1e9}, {"mbit", 1e6}, {"kbit", 1e3}, {"bit", 1}, {"", 1}}

func parseRate(s string) (float64, error) {
	for _, u := range units {
		if number, ok := strings.CutSuffix(s, u.suffix); ok {
			f, err := strconv.ParseFloat(number, 64)
			if err != nil {
				break
			}
			return f * u.bits, nil
		}
	}
	return 0, fmt.Errorf("want bits per second, as 20mbit or 500kbit")
}

func formatRate(bits float64) string {
	for _, u := range units[:3] {
		if bits >= u.bits {
			return strconv.FormatFloat(bits/u.bits, 'g', 6, 64) + u.suffix
		}
	}
	return strconv.FormatFloat(bits, 'g', 6, 64) + "bit"
}
