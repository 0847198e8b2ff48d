package cli

import (
	"fmt"
	"strings"
	"time"

	"vcpeer/cli/parse"
	"vcpeer/peer/api"
)

// when tells a time: how long ago to people, RFC 3339 to programs; "-" for none.
func (e *env) when(t time.Time) string {
	switch {
	case t.IsZero():
		return "-"
	case !e.OutTTY:
		return t.UTC().Format(time.RFC3339)
	}
	d := e.Now().Sub(t)
	if d < 0 {
		return "in " + span(-d)
	}
	return span(d) + " ago"
}

// span tells a length of time in its two largest units.
func span(d time.Duration) string {
	switch {
	case d < 0:
		return "-" + span(-d)
	case d < time.Second:
		return fmt.Sprintf("%dms", d.Milliseconds())
	case d < 10*time.Second:
		return fmt.Sprintf("%.1fs", d.Seconds())
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd%02dh", int(d.Hours())/24, int(d.Hours())%24)
}

// size tells an amount of memory or data.
func size(b int64) string {
	for _, u := range []struct {
		shift int
		name  string
	}{{40, "TiB"}, {30, "GiB"}, {20, "MiB"}, {10, "KiB"}} {
		if b >= 1<<u.shift {
			return fmt.Sprintf("%.1f %s", float64(b)/float64(int64(1)<<u.shift), u.name)
		}
	}
	return fmt.Sprintf("%d B", b)
}

// dash stands for what is not known.
func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// plural counts things: 1 job, 2 jobs.
func plural(n int, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %ss", n, one)
}

// tally tells how the tasks of a job stand, what changes first: "3 running, 5 waiting, 2 done of 10".
func tally(c api.Counts) string {
	var parts []string
	for _, p := range []struct {
		n    int
		word string
	}{{c.Running, "running"}, {c.Unknown, "unknown"}, {c.Pending, "waiting"}, {c.Held, "held"}, {c.Failed, "failed"}, {c.Cancelled, "cancelled"}, {c.Done, "done"}} {
		if p.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", p.n, p.word))
		}
	}
	return fmt.Sprintf("%s of %d", strings.Join(parts, ", "), c.Total)
}

func arrayText(r *api.Range) string {
	if r == nil {
		return ""
	}
	return parse.FormatRange(*r)
}
