package cli

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// table prints rows under a head, each column as wide as its widest cell. A column whose head begins with ">" is set
// right; one that begins with "~" may be cut to fit a terminal. The last column is never padded.
type table struct {
	head []string
	rows [][]cell
}

// cell is a text and how it is painted.
type cell struct{ text, sgr string }

func newTable(head ...string) *table { return &table{head: head} }

// add appends a row; a cell is a string, a cell, or anything fmt prints.
func (t *table) add(cells ...any) {
	row := make([]cell, len(cells))
	for i, c := range cells {
		switch c := c.(type) {
		case cell:
			row[i] = cell{clean(c.text), c.sgr}
		case string:
			row[i] = cell{text: clean(c)}
		default:
			row[i] = cell{text: fmt.Sprint(c)}
		}
	}
	t.rows = append(t.rows, row)
}

func state(s string) cell { return cell{s, stateColor(s)} }

// print writes the table; width 0 cuts nothing. Without rows it writes nothing.
func (t *table) print(w io.Writer, width int, paint func(sgr, s string) string) error {
	if len(t.rows) == 0 {
		return nil
	}
	widths := t.widths(width)
	var b strings.Builder
	head := make([]cell, len(t.head))
	for i, h := range t.head {
		head[i] = cell{strings.TrimLeft(h, ">~"), dim}
	}
	for _, row := range append([][]cell{head}, t.rows...) {
		t.line(&b, row, widths, paint)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (t *table) line(b *strings.Builder, row []cell, widths []int, paint func(sgr, s string) string) {
	for i, c := range row {
		text := cut(c.text, widths[i])
		pad := strings.Repeat(" ", max(0, widths[i]-utf8.RuneCountInString(text)))
		switch {
		case strings.HasPrefix(t.head[i], ">"):
			b.WriteString(pad + paint(c.sgr, text))
		case i == len(row)-1:
			b.WriteString(paint(c.sgr, text))
		default:
			b.WriteString(paint(c.sgr, text) + pad)
		}
		if i < len(row)-1 {
			b.WriteString("  ")
		}
	}
	b.WriteByte('\n')
}

// widths finds the width of each column and takes what is too much from the columns that may be cut, to no less than 8.
func (t *table) widths(limit int) []int {
	widths := make([]int, len(t.head))
	for i, h := range t.head {
		widths[i] = utf8.RuneCountInString(strings.TrimLeft(h, ">~"))
	}
	for _, row := range t.rows {
		for i, c := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(c.text))
		}
	}
	total := 2 * (len(widths) - 1)
	for _, n := range widths {
		total += n
	}
	for i, h := range t.head {
		if over := total - limit; limit > 0 && over > 0 && strings.HasPrefix(h, "~") {
			less := min(over, max(0, widths[i]-8))
			widths[i] -= less
			total -= less
		}
	}
	return widths
}

// cut shortens a text to n runes, the last of them an ellipsis.
func cut(s string, n int) string {
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	r := []rune(s)
	return string(r[:max(0, n-1)]) + "…"
}

// table prints t as the terminal of e takes it, or a line when there is nothing to list.
func (e *env) table(t *table, empty string) {
	if len(t.rows) == 0 {
		if empty != "" {
			e.note("%s", empty)
		}
		return
	}
	width := 0
	if e.OutTTY {
		width = e.Width
	}
	_ = t.print(e.Out, width, e.paint)
}
