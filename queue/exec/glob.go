package exec

import (
	"io/fs"
	"path"
	"slices"
	"strings"
)

// maxWalked bounds how many directory entries the patterns of one attempt look at.
const maxWalked = 1 << 20

// expand returns the files that the patterns match, sorted, each once, and the patterns that match nothing. An element
// matches as in path.Match, except that ** matches any number of directories; a directory that matches stands for all
// files below it. Directories behind symbolic links are not entered.
func expand(fsys fs.FS, patterns []string) (files, missing []string) {
	g := &globber{fsys: fsys, found: map[string]bool{}, left: maxWalked}
	for _, p := range patterns {
		before := g.hits
		g.match(".", strings.Split(strings.TrimSuffix(p, "/"), "/"))
		if g.hits == before {
			missing = append(missing, p)
		}
	}
	for f := range g.found {
		files = append(files, f)
	}
	slices.Sort(files)
	return files, missing
}

type globber struct {
	fsys  fs.FS
	found map[string]bool
	hits  int
	left  int // entries that may still be looked at
}

// match takes what elems match below dir.
func (g *globber) match(dir string, elems []string) {
	elem, rest := elems[0], elems[1:]
	if elem == "**" {
		if len(rest) == 0 {
			g.take(dir)
			return
		}
		g.match(dir, rest)
		for _, d := range g.list(dir) {
			if d.IsDir() {
				g.match(path.Join(dir, d.Name()), elems)
			}
		}
		return
	}
	for _, d := range g.entries(dir, elem) {
		name := path.Join(dir, d.Name())
		switch {
		case len(rest) > 0 && d.IsDir():
			g.match(name, rest)
		case len(rest) > 0:
		case d.IsDir():
			g.hits++
			g.take(name)
		default:
			g.hits++
			g.found[name] = true
		}
	}
}

// entries returns those of dir that the element matches; a plain name is looked up without reading the directory.
func (g *globber) entries(dir, elem string) []fs.DirEntry {
	if !strings.ContainsAny(elem, `*?[\`) {
		info, err := lstat(g.fsys, path.Join(dir, elem))
		if err != nil {
			return nil
		}
		return []fs.DirEntry{fs.FileInfoToDirEntry(info)}
	}
	return slices.DeleteFunc(g.list(dir), func(d fs.DirEntry) bool {
		ok, err := path.Match(elem, d.Name())
		return err != nil || !ok
	})
}

// lstat looks at a name itself, not at what a symbolic link there leads to.
func lstat(fsys fs.FS, name string) (fs.FileInfo, error) {
	if l, ok := fsys.(fs.ReadLinkFS); ok {
		return l.Lstat(name)
	}
	return fs.Stat(fsys, name)
}

// take takes every file below dir.
func (g *globber) take(dir string) {
	for _, d := range g.list(dir) {
		name := path.Join(dir, d.Name())
		if d.IsDir() {
			g.take(name)
			continue
		}
		g.hits++
		g.found[name] = true
	}
}

func (g *globber) list(dir string) []fs.DirEntry {
	if g.left <= 0 {
		return nil
	}
	list, err := fs.ReadDir(g.fsys, dir)
	if err != nil {
		return nil // closed by the job, or gone: what is behind is not matched
	}
	g.left -= len(list)
	return list
}
