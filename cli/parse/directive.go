package parse

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
)

// maxDirectiveLine bounds a line that is looked at; a longer one is data and holds no directive.
const maxDirectiveLine = 64 << 10

// Directive is a line of a script that holds options, split into words.
type Directive struct {
	Line  int // from 1
	Words []string
}

// Directives finds the lines of a script that begin with prefix, such as "#VCPEER" or "#$". With header, they must
// stand before the first command, and one that comes later is an error rather than silently without effect.
// Errors name the line.
func Directives(script io.Reader, prefix string, header bool) ([]Directive, error) {
	var found []Directive
	commands := false
	r := bufio.NewReaderSize(script, maxDirectiveLine)
	for n := 1; ; n++ {
		line, err := directiveLine(r)
		if errors.Is(err, io.EOF) {
			return found, nil
		}
		if err != nil {
			return nil, err
		}
		rest, ok := strings.CutPrefix(line, prefix)
		if !ok || (rest != "" && header && rest[0] != ' ' && rest[0] != '\t') {
			line = strings.TrimSpace(line)
			commands = commands || (line != "" && line[0] != '#')
			continue
		}
		if commands && header {
			return nil, fmt.Errorf("line %d: %s after the first command is not read; move it up", n, prefix)
		}
		words, err := Words(rest)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		if len(words) > 0 {
			found = append(found, Directive{n, words})
		}
	}
}

// directiveLine reads a line; one that is too long to be a directive comes back as a command.
func directiveLine(r *bufio.Reader) (string, error) {
	line, err := r.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = r.ReadSlice('\n')
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return "", err
		}
		return ":", nil
	}
	if err != nil && (!errors.Is(err, io.EOF) || len(line) == 0) {
		return "", err
	}
	return strings.TrimRight(string(line), "\r\n"), nil
}

// Words splits a line as a shell does: blanks part words, single and double quotes and backslashes keep them together.
// Nothing is expanded. A word that begins with # ends the line.
func Words(line string) ([]string, error) {
	var words []string
	var word strings.Builder
	inWord := false
	quote := byte(0)
	for i := 0; i < len(line); i++ {
		c := line[i]
		switch {
		case quote == 0 && (c == ' ' || c == '\t'):
			if inWord {
				words = append(words, word.String())
				word.Reset()
				inWord = false
			}
		case quote == 0 && c == '#' && !inWord:
			return words, nil
		case quote == 0 && (c == '"' || c == '\''):
			quote, inWord = c, true
		case c == quote && quote != 0:
			quote = 0
		case c == '\\' && quote != '\'':
			if i++; i == len(line) {
				return nil, errors.New("a backslash at the end of the line")
			}
			word.WriteByte(line[i])
			inWord = true
		default:
			word.WriteByte(c)
			inWord = true
		}
	}
	if quote != 0 {
		return nil, fmt.Errorf("a %c without its partner", quote)
	}
	if inWord {
		words = append(words, word.String())
	}
	return words, nil
}
