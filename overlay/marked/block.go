// Package marked keeps a block of lines of our own in a text file of the system that people and other programs edit
// too, such as /etc/hosts. What lies outside the block is never changed, not by a byte; taking the block out gives the
// file as it would be had vcpeer never been there. A block can stand in the place of one line of others, which it keeps.
//
// Set and Clear are pure. A File puts them to work on a real file: under a lock that daemons of one machine share,
// written beside and renamed, or in place where a bind mount allows nothing else.
//
//	f := marked.File{Path: "/etc/hosts", Lock: "/run/vcpeer-hosts.lock", Mode: 0o644}
//	changed, err := f.Edit(ctx, func(old []byte) ([]byte, error) { return marked.Set(old, "vcpeer", lines) })
//
// A block looks like this, with the owner's name in both markers, so that several owners share a file:
//
//	# BEGIN vcpeer OWNER (kept by vcpeer, edits in here are lost)
//	...
//	# END vcpeer OWNER
package marked

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// ErrDamaged says that a block has lost one of its markers, so where our lines end cannot be known. Nothing is written
// until somebody puts the marker back or takes the rest of the block out.
var ErrDamaged = errors.New("block has a begin marker and no end marker")

const (
	beginNote = " (kept by vcpeer, edits in here are lost)"
	// joinedNote marks a block before which a line end had to be added, so that Clear can take it away again.
	joinedNote = " (kept by vcpeer, edits in here are lost; the line above had no end)"
)

var ownerForm = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// CheckOwner reports whether a name can own a block: 1 to 64 letters, digits, dots, hyphens and underscores.
func CheckOwner(owner string) error {
	if !ownerForm.MatchString(owner) {
		return fmt.Errorf("marked: %q cannot name a block: want 1 to 64 of A-Z a-z 0-9 . _ -", owner)
	}
	return nil
}

// Set returns file with owner's block holding lines (without line ends) and all else as it was. An existing block keeps
// its place, a new one goes to the end, no lines means no block. Neither file nor lines is changed or kept. A line that
// holds a line end or reads as a marker is refused: it would break the block. Errors may wrap ErrDamaged.
func Set(file []byte, owner string, lines []string) ([]byte, error) {
	if err := checkLines(lines); err != nil {
		return nil, err
	}
	spans, err := find(file, owner)
	if err != nil {
		return nil, err
	}
	if len(lines) == 0 {
		return cut(file, spans), nil
	}
	if slices.ContainsFunc(spans, func(s span) bool { return s.kept != nil }) {
		file, spans = cut(file, spans), nil
	}
	if len(spans) == 0 {
		joined := len(file) > 0 && file[len(file)-1] != '\n'
		out := bytes.Clone(file)
		if joined {
			out = append(out, '\n')
		}
		return appendBlock(out, owner, joined, lines), nil
	}
	first := spans[0]
	out := appendBlock(bytes.Clone(file[:first.start]), owner, first.joined, lines)
	for i := range spans[1:] { // to the rest of the file, positions count from the end of the first block
		spans[i+1].start -= first.end
		spans[i+1].end -= first.end
	}
	return append(out, cut(file[first.end:], spans[1:])...), nil
}

// SetInstead is Set for a block in the place of line n of Clear(file, owner), from 0. The line is kept in the block, and comes
// back with Clear, or with Set. It must have a line end and no control characters.
func SetInstead(file []byte, owner string, n int, lines []string) ([]byte, error) {
	rest, err := Clear(file, owner)
	if err != nil {
		return nil, err
	}
	if err := checkLines(lines); err != nil {
		return nil, err
	}
	start, end := 0, 0
	for ; n >= 0 && end < len(rest); n-- {
		start = end
		_, end = lineAt(rest, start)
	}
	line, found := bytes.CutSuffix(rest[start:end], []byte("\n"))
	if n >= 0 || !found || bytes.ContainsAny(line, "\r\x00") {
		return nil, fmt.Errorf("marked: there is no line that a block could stand for")
	}
	out := appendBlock(bytes.Clone(rest[:start]), owner, false, append([]string{insteadOf + string(line)}, lines...))
	return append(out, rest[end:]...), nil
}

// insteadOf begins the line of a block that it stands in the place of.
const insteadOf = "#- "

// Clear returns file without owner's block. Errors may wrap ErrDamaged.
func Clear(file []byte, owner string) ([]byte, error) { return Set(file, owner, nil) }

func checkLines(lines []string) error {
	for _, l := range lines {
		if strings.ContainsAny(l, "\n\r\x00") {
			return fmt.Errorf("marked: line %q holds a control character", l)
		}
		if w, _ := marker([]byte(l)); w != "" || strings.HasPrefix(l, insteadOf) {
			return fmt.Errorf("marked: line %q reads as a marker", l)
		}
	}
	return nil
}

func appendBlock(out []byte, owner string, joined bool, lines []string) []byte {
	note := beginNote
	if joined {
		note = joinedNote
	}
	out = append(out, "# BEGIN vcpeer "+owner+note+"\n"...)
	for _, l := range lines {
		out = append(append(out, l...), '\n')
	}
	return append(out, "# END vcpeer "+owner+"\n"...)
}

// span is a block in a file: file[start:end], whole lines, markers included.
type span struct {
	start, end int
	joined     bool
	kept       []byte // the line that the block stands in the place of, with its end; nil: none
}

// find lists owner's blocks in order. More than one is there only if somebody copied it.
func find(file []byte, owner string) ([]span, error) {
	if err := CheckOwner(owner); err != nil {
		return nil, err
	}
	var spans []span
	begin := -1 // where the open block starts
	var joined bool
	var kept []byte
	number := 0 // of the line, from 1, for the error
	opened := 0
	for pos := 0; pos < len(file); {
		line, next := lineAt(file, pos)
		number++
		word, who := marker(line)
		switch {
		case begin < 0 && word == "BEGIN" && who == owner:
			begin, opened, kept = pos, number, nil
			joined = bytes.Contains(line, []byte(joinedNote))
		case begin >= 0 && word == "END" && who == owner:
			spans = append(spans, span{start: begin, end: next, joined: joined, kept: kept})
			begin = -1
		case begin >= 0 && word != "": // another block starts or ends within ours
			return nil, damaged(owner, opened)
		case begin >= 0 && kept == nil && bytes.HasPrefix(line, []byte(insteadOf)):
			kept = file[pos+len(insteadOf) : next]
		}
		pos = next
	}
	if begin >= 0 {
		return nil, damaged(owner, opened)
	}
	return spans, nil
}

func damaged(owner string, line int) error {
	return fmt.Errorf("marked: line %d: %q: %w", line, "# BEGIN vcpeer "+owner, ErrDamaged)
}

func lineAt(file []byte, pos int) (line []byte, next int) {
	if i := bytes.IndexByte(file[pos:], '\n'); i >= 0 {
		return file[pos : pos+i], pos + i + 1
	}
	return file[pos:], len(file)
}

// marker reads a marker line, forgiving the blanks that an editor may change; word is BEGIN, END or empty.
func marker(line []byte) (word, owner string) {
	if len(line) == 0 || line[0] != '#' {
		return "", ""
	}
	f := strings.Fields(string(line))
	if len(f) < 4 || f[0] != "#" || f[2] != "vcpeer" || (f[1] != "BEGIN" && f[1] != "END") {
		return "", ""
	}
	return f[1], f[3]
}

// cut returns file without the spans, with the lines that they stood for, and without the line end added before one that stood, and stands, at the end.
func cut(file []byte, spans []span) []byte {
	out := bytes.Clone(file)
	for i := len(spans) - 1; i >= 0; i-- {
		s := spans[i]
		before, after := out[:s.start], out[s.end:]
		if s.joined && len(after) == 0 {
			before = bytes.TrimSuffix(before, []byte("\n"))
		}
		out = slices.Concat(before, s.kept, after)
	}
	return out
}
