package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Sources are what Load reads from, strongest first: Flags, the environment, the file, defaults.
type Sources struct {
	Flags map[string][]string // by name of the key; only those that were given
	Dir   string              // --dir; empty: VCPEER_DIR
	File  string              // --config; empty: VCPEER_CONFIG, then the default place
	User  Who
}

// Loaded is a configuration and where each of its values came from.
type Loaded struct {
	Config
	from map[string]string // key -> "flag", "VCPEER_X", "FILE:LINE" or "default"
}

// Load merges the sources and validates the result. A file that was named must exist; the default one may be absent.
func Load(s Sources) (*Loaded, error) {
	s.User.Getenv = outsideJobs(s.User.Getenv)
	dir, file, err := s.places()
	if err != nil {
		return nil, err
	}
	paths := DefaultPaths(dir, s.User)
	named := file != ""
	if !named {
		file = paths.File
	}
	l := &Loaded{Config: defaults(paths, s.User), from: map[string]string{}}
	l.Dir, l.File = dir, file
	if err := l.readFile(file, named); err != nil {
		return nil, err
	}
	for _, k := range Keys() {
		if v := s.User.Getenv(k.Env()); v != "" {
			if err := l.set(k, fromEnv(k, v), k.Env()); err != nil {
				return nil, err
			}
		}
		if v, ok := s.Flags[k.Name]; ok {
			if err := l.set(k, v, "flag"); err != nil {
				return nil, err
			}
		}
	}
	if err := l.absolute(); err != nil {
		return nil, err
	}
	theMachines := s.User.UID == 0 && dir == "" // the one node that is a service of its machine
	l.Integrate = decide(l.Integrate, theMachines)
	l.Overlay = decide(l.Overlay, theMachines)
	if err := l.Validate(); err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	return l, nil
}

// decide resolves a setting that is on, off, or up to the circumstances.
func decide(setting string, on bool) string {
	switch {
	case setting != IntegrateAuto:
		return setting
	case on:
		return IntegrateOn
	}
	return IntegrateOff
}

// outsideJobs hides from a command inside a job the variables that tell the job where it runs: its VCPEER_SITE,
// VCPEER_SLOTS and VCPEER_DIR are facts about the job, not settings.
func outsideJobs(getenv func(string) string) func(string) string {
	if getenv("VCPEER_JOB_ID") == "" {
		return getenv
	}
	return func(name string) string {
		switch name {
		case "VCPEER_SITE", "VCPEER_SLOTS", "VCPEER_DIR":
			return ""
		}
		return getenv(name)
	}
}

// places finds --dir and --config; dir comes back absolute, file empty when none was named.
func (s Sources) places() (dir, file string, err error) {
	if dir = s.Dir; dir == "" {
		dir = s.User.Getenv("VCPEER_DIR")
	}
	if file = s.File; file == "" {
		file = s.User.Getenv("VCPEER_CONFIG")
	}
	if dir != "" {
		if dir, err = filepath.Abs(dir); err != nil {
			return "", "", fmt.Errorf("config: --dir: %w", err)
		}
	}
	return dir, file, nil
}

func defaults(p Paths, w Who) Config {
	c := Config{State: p.State, Socket: p.Socket, Listen: []string{fmt.Sprintf(":%d", Port)},
		JobsAs: JobsAsSelf, Integrate: IntegrateAuto, Overlay: OverlayAuto, Transit: TransitOn, PortMapping: PortMappingAuto, Protect: 8, LogLevel: "info", LogFormat: "auto"}
	if w.UID == 0 {
		c.JobsAs = JobsAsAccount
	}
	return c
}

func fromEnv(k Key, v string) []string {
	if !k.List {
		return []string{v}
	}
	var values []string
	for item := range strings.SplitSeq(v, ",") {
		if item = strings.TrimSpace(item); item != "" {
			values = append(values, item)
		}
	}
	return values
}

func (l *Loaded) set(k Key, values []string, from string) error {
	if err := k.set(&l.Config, values); err != nil {
		return fmt.Errorf("config: %s: %s: %w", from, k.Name, err)
	}
	l.from[k.Name] = from
	return nil
}

// absolute makes paths independent of the directory the daemon is in.
func (l *Loaded) absolute() error {
	for _, p := range []*string{&l.State, &l.Socket, &l.File} {
		abs, err := filepath.Abs(*p)
		if err != nil {
			return fmt.Errorf("config: %w", err)
		}
		*p = abs
	}
	return nil
}

func (l *Loaded) readFile(path string, must bool) error {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && !must {
		return nil
	}
	if err != nil {
		return fmt.Errorf("config: %w", err)
	}
	entries, err := parse(path, b)
	if err != nil {
		return fmt.Errorf("config: %w", err)
	}
	for _, e := range entries {
		i := slices.IndexFunc(Keys(), func(k Key) bool { return k.Name == e.key })
		if err := l.set(Keys()[i], e.values, fmt.Sprintf("%s:%d", path, e.line)); err != nil {
			return err
		}
	}
	return nil
}

// Value is one line of `vcpeer config`.
type Value struct {
	Key    string `json:"key"`
	Value  string `json:"value"`
	Source string `json:"source"` // "flag", a variable, file:line, or "default"
}

// Values lists every setting with its source; secrets only as "(set)".
func (l *Loaded) Values() []Value {
	var out []Value
	for _, k := range Keys() {
		v := strings.Join(k.get(&l.Config), ",")
		if k.Secret && v != "" {
			v = "(set)"
		}
		out = append(out, Value{k.Name, v, l.Source(k.Name)})
	}
	return out
}

// SourceDefault is the source of a value that nobody set.
const SourceDefault = "default"

// Source tells where the value of a key came from: "flag", a variable, file:line, or SourceDefault.
func (l *Loaded) Source(key string) string {
	if from := l.from[key]; from != "" {
		return from
	}
	return SourceDefault
}
