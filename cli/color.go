package cli

import "strings"

// Colours are SGR parameters (ECMA-48); words always say the same, so nothing is lost without them.
const (
	bold   = "1"
	dim    = "2"
	red    = "31"
	green  = "32"
	yellow = "33"
	blue   = "34"
)

// colored decides by --color, then NO_COLOR (no-color.org), CLICOLOR_FORCE and TERM, then whether people look.
func (e *env) colored(tty bool) bool {
	switch {
	case e.color == "always":
		return true
	case e.color == "never" || e.json || e.Getenv("NO_COLOR") != "":
		return false
	case e.Getenv("CLICOLOR_FORCE") != "" && e.Getenv("CLICOLOR_FORCE") != "0":
		return true
	}
	return tty && e.Getenv("TERM") != "dumb"
}

// paint is for standard output, paintErr for standard error: either may be a file while the other is looked at.
func (e *env) paint(sgr, s string) string    { return paintIf(e.colored(e.OutTTY), sgr, s) }
func (e *env) paintErr(sgr, s string) string { return paintIf(e.colored(e.ErrTTY), sgr, s) }

func paintIf(yes bool, sgr, s string) string {
	if sgr == "" || s == "" || !yes {
		return s
	}
	return "\x1b[" + sgr + "m" + s + "\x1b[0m"
}

// stateColor picks the colour of a state of a member, job or check.
func stateColor(state string) string {
	switch state {
	case "alive", "done", "ok", "running", "up", "attached":
		return green
	case "unknown", "warn", "held", "joining", "starting", "stopping", "waiting":
		return yellow
	case "failed", "fail", "evicted", "down", "never up", "lost":
		return red
	case "left", "cancelled", "unseen", "pending", "note", "detached":
		return dim
	}
	return ""
}

// clean keeps control characters of others' names and messages off the terminal.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || (r >= 0x80 && r < 0xa0) {
			return '?'
		}
		return r
	}, s)
}
