package topology

import (
	"errors"
	"fmt"
	"slices"
	"strconv"

	"go.yaml.in/yaml/v4"
)

// located is an error with its line; an outer one does not hide it.
type located struct {
	line int
	err  error
}

func (l located) Error() string { return fmt.Sprintf("%d: %v", l.line, l.err) }
func (l located) Unwrap() error { return l.err }

func at(n *yaml.Node, err error) error {
	if err == nil || errors.As(err, new(located)) {
		return err
	}
	return located{n.Line, err}
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

// pairs calls do for each key and value of a mapping, in order; a key that comes twice is an error.
func pairs(n *yaml.Node, do func(k, v *yaml.Node) error) error {
	if n.Kind != yaml.MappingNode {
		return at(n, errors.New("want lines of the form key: value"))
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		if k.Kind != yaml.ScalarNode {
			return at(k, errors.New("want a plain word before the colon"))
		}
		if seen[k.Value] {
			return at(k, fmt.Errorf("%s is there a second time", k.Value))
		}
		seen[k.Value] = true
		if err := do(k, v); err != nil {
			return err
		}
	}
	return nil
}

// mapping reads a mapping of known keys.
func mapping(n *yaml.Node, fields map[string]field) error {
	return pairs(n, func(k, v *yaml.Node) error {
		f, ok := fields[k.Value]
		if !ok {
			return at(k, unknown(k.Value, fields))
		}
		if err := f(v); err != nil {
			var l located
			if errors.As(err, &l) {
				return err
			}
			return at(v, fmt.Errorf("%s: %w", k.Value, err))
		}
		return nil
	})
}

func text(to *string) field {
	return func(n *yaml.Node) error {
		if n.Kind != yaml.ScalarNode {
			return errors.New("want a value")
		}
		*to = n.Value
		return nil
	}
}

func word(to *string, words ...string) field {
	return func(n *yaml.Node) error {
		if err := text(to)(n); err != nil {
			return err
		}
		if !slices.Contains(words, *to) {
			return notAmong(*to, words)
		}
		return nil
	}
}

func yesNo(to *bool) field {
	return func(n *yaml.Node) error {
		var s string
		if err := word(&s, "yes", "no", "true", "false", "on", "off")(n); err != nil {
			return err
		}
		*to = s == "yes" || s == "true" || s == "on"
		return nil
	}
}

func blocked(to *bool) field {
	return func(n *yaml.Node) error {
		var s string
		if err := word(&s, "open", "blocked")(n); err != nil {
			return err
		}
		*to = s == "blocked"
		return nil
	}
}

func number(to *int) field {
	return func(n *yaml.Node) error {
		v, err := strconv.Atoi(n.Value)
		if n.Kind != yaml.ScalarNode || err != nil {
			return errors.New("want a whole number")
		}
		*to = v
		return nil
	}
}

// list reads a list of plain values; one alone counts as a list.
func list(to *[]string) field {
	return func(n *yaml.Node) error {
		*to = nil
		items := n.Content
		if n.Kind == yaml.ScalarNode {
			items = []*yaml.Node{n}
		} else if n.Kind != yaml.SequenceNode {
			return errors.New("want a list of plain values")
		}
		for _, c := range items {
			if c.Kind != yaml.ScalarNode {
				return errors.New("want a list of plain values")
			}
			*to = append(*to, c.Value)
		}
		return nil
	}
}
