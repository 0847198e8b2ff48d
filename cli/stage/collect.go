// Package stage brings the files that go with a job into the node's blob store: it finds them, hashes each once, and
// sends only what is not there yet, streamed. The command line and the Grid Engine front end use it.
package stage

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// Item is a file to send: where it is here and what the job calls it.
type Item struct {
	Src  string // absolute, or relative to the working directory of the process
	Path string // slash-separated, relative to the job's directory
	Size int64
	Mode uint32 // permission bits
}

// Collect turns what was typed (a file, a directory, a pattern, each with an optional :DEST) into items, sorted by
// path. Relative sources count from dir. A file in or below dir keeps its relative path, any other its last element;
// a directory comes with all that is below it; DEST ending in a slash, or for several sources, is a directory.
// Nothing found, a file that is neither regular nor a directory, and two files with one name are errors.
func Collect(dir string, typed []string) ([]Item, error) {
	var items []Item
	for _, t := range typed {
		found, err := expand(dir, t)
		if err != nil {
			return nil, err
		}
		items = append(items, found...)
	}
	slices.SortStableFunc(items, func(a, b Item) int { return strings.Compare(a.Path, b.Path) })
	var out []Item
	for _, it := range items {
		if n := len(out); n > 0 && out[n-1].Path == it.Path {
			if out[n-1].Src == it.Src {
				continue // the same file, named twice
			}
			return nil, fmt.Errorf("inputs %s and %s would both be %s", out[n-1].Src, it.Src, it.Path)
		}
		out = append(out, it)
	}
	return out, nil
}

func expand(dir, typed string) ([]Item, error) {
	src, dest, err := split(dir, typed)
	if err != nil {
		return nil, err
	}
	sources, err := sourcesOf(dir, src)
	if err != nil {
		return nil, err
	}
	into := len(sources) > 1 || strings.HasSuffix(dest, "/")
	var items []Item
	for _, s := range sources {
		name := dest
		if dest == "" {
			name = nameFor(dir, s)
		} else if into || (path.Clean(dest) == "." && !isDir(s)) {
			name = path.Join(dest, filepath.Base(s))
		}
		found, err := walk(s, path.Clean(name))
		if err != nil {
			return nil, err
		}
		items = append(items, found...)
	}
	if len(items) == 0 {
		return nil, fmt.Errorf("input %s: the directory is empty", typed)
	}
	return items, nil
}

// split parts SRC:DEST; a colon that belongs to an existing file's name is left alone. DEST must stay inside the job's directory.
func split(dir, typed string) (src, dest string, err error) {
	if typed == "" {
		return "", "", errors.New("input: an empty name")
	}
	i := strings.LastIndexByte(typed, ':')
	if i <= 0 || i == len(typed)-1 {
		return typed, "", nil
	}
	if _, err := os.Lstat(at(dir, typed)); err == nil {
		return typed, "", nil
	}
	src, dest = typed[:i], typed[i+1:]
	if clean := path.Clean(dest); path.IsAbs(dest) || clean == ".." || strings.HasPrefix(clean, "../") {
		return "", "", fmt.Errorf("input %s: %s is outside the job's directory", typed, dest)
	}
	return src, dest, nil
}

// sourcesOf resolves a name that exists, else a pattern.
func sourcesOf(dir, src string) ([]string, error) {
	full := at(dir, src)
	_, err := os.Lstat(full)
	if err == nil {
		return []string{filepath.Clean(full)}, nil
	}
	if !strings.ContainsAny(src, "*?[") {
		return nil, fmt.Errorf("input: %w", err)
	}
	found, err := filepath.Glob(full)
	if err != nil {
		return nil, fmt.Errorf("input %s: %w", src, err)
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("input %s: no file fits the pattern", src)
	}
	return found, nil
}

func isDir(name string) bool {
	info, err := os.Stat(name)
	return err == nil && info.IsDir()
}

func at(dir, name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(dir, name)
}

// nameFor is what a job calls a source that was given no other name.
func nameFor(dir, src string) string {
	if rel, err := filepath.Rel(dir, src); err == nil && filepath.IsLocal(rel) {
		return filepath.ToSlash(rel)
	}
	return filepath.Base(src)
}

// walk lists the regular files at and below src, following links to files but not to directories inside a directory.
func walk(src, name string) ([]Item, error) {
	info, err := os.Stat(src)
	if err != nil {
		return nil, fmt.Errorf("input: %w", err)
	}
	if !info.IsDir() {
		it, err := item(src, name, info)
		return []Item{it}, err
	}
	var items []Item
	root := src + string(filepath.Separator) // a link to a directory is entered when it was named itself
	err = filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := os.Stat(p)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		it, err := item(p, path.Join(name, filepath.ToSlash(rel)), info)
		items = append(items, it)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("input %s: %w", src, err)
	}
	return items, nil
}

func item(src, name string, info fs.FileInfo) (Item, error) {
	if !info.Mode().IsRegular() {
		return Item{}, fmt.Errorf("%s is neither a file nor a directory", src)
	}
	return Item{Src: src, Path: name, Size: info.Size(), Mode: uint32(info.Mode().Perm())}, nil
}
