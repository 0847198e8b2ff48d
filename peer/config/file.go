package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// entry is one key of a file.
type entry struct {
	key    string
	values []string
	line   int
}

// parse reads a file: one mapping of known keys to a text, a number or a list of those. Errors name file and line.
func parse(path string, b []byte) ([]entry, error) {
	dec := yaml.NewDecoder(bytes.NewReader(b))
	var doc yaml.Node
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return nil, nil // empty, or comments only
	} else if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: more than one document", path)
	}
	root := &doc
	if root.Kind == yaml.DocumentNode && len(root.Content) > 0 {
		root = root.Content[0]
	}
	if root.Kind == yaml.ScalarNode && root.Tag == "!!null" {
		return nil, nil
	}
	if root.Kind != yaml.MappingNode {
		return nil, fmt.Errorf("%s:%d: want lines of the form key: value", path, root.Line)
	}
	return entries(path, root.Content)
}

// entries reads the alternating keys and values of a mapping.
func entries(path string, nodes []*yaml.Node) ([]entry, error) {
	var out []entry
	for i := 0; i+1 < len(nodes); i += 2 {
		key, value := nodes[i], nodes[i+1]
		if err := known(key.Value); err != nil {
			return nil, fmt.Errorf("%s:%d: %w", path, key.Line, err)
		}
		if slices.ContainsFunc(out, func(e entry) bool { return e.key == key.Value }) {
			return nil, fmt.Errorf("%s:%d: %s is there a second time", path, key.Line, key.Value)
		}
		values, err := scalars(value)
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %s: %w", path, value.Line, key.Value, err)
		}
		out = append(out, entry{key.Value, values, key.Line})
	}
	return out, nil
}

func known(key string) error {
	var names []string
	for _, k := range Keys() {
		if k.Name == key {
			return nil
		}
		names = append(names, k.Name)
	}
	if near := Nearest(strings.ReplaceAll(key, "_", "-"), names); near != "" {
		return fmt.Errorf("unknown key %q; did you mean %q?", key, near)
	}
	return fmt.Errorf("unknown key %q; known are %s", key, strings.Join(names, ", "))
}

func scalars(n *yaml.Node) ([]string, error) {
	switch n.Kind {
	case yaml.ScalarNode:
		return []string{n.Value}, nil
	case yaml.SequenceNode:
		values := []string{}
		for _, c := range n.Content {
			if c.Kind != yaml.ScalarNode {
				return nil, fmt.Errorf("want a list of plain values")
			}
			values = append(values, c.Value)
		}
		return values, nil
	}
	return nil, fmt.Errorf("want a value or a list of values")
}
