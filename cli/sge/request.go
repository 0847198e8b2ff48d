package sge

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"vcpeer/cli/parse"
	"vcpeer/peer/api"
)

// maxArrayTasks is Grid Engine's max_aj_tasks.
const maxArrayTasks = 75000

// request is what a qsub command line with its directives and default files asks for.
type request struct {
	env *Env

	name, stdout, stderr, shell, dir string
	join, binary, terse, sync        bool
	noShell, verify, soft            bool
	array                            *api.Range
	maxTasks, slots                  int
	pe                               string
	time                             time.Duration
	memBytes                         int64 // a slot
	hold                             []string
	vars                             map[string]string
	allVars                          bool
	host                             string
	retries                          int
	prefix                           string // of directives
	depth                            int    // of -@ files in each other
}

func newRequest(e *Env) *request {
	return &request{env: e, dir: e.Home, slots: 1, retries: 2, prefix: "#$", vars: map[string]string{}}
}

func badQsub(word string) error { return misuse("invalid option argument %q", word) }

// nothing takes options that change no result here.
func nothing(*request, []string) error { return nil }

// flag sets a boolean from a word.
func flag(name string, at func(*request) *bool) option[request] {
	return option[request]{name, 1, func(r *request, a []string) error { return yes(name, a[0], at(r)) }}
}

func text(name string, at func(*request) *string) option[request] {
	return option[request]{name, 1, func(r *request, a []string) error { *at(r) = a[0]; return nil }}
}

// refuse answers an option of Grid Engine that a vcpeer cluster has nothing for.
func refuse(name string, words int) option[request] {
	return option[request]{name, words, func(*request, []string) error {
		return denied("option %q is not supported by vcpeer", name)
	}}
}

// qsubOptions is built for each command line: a table that refers to itself by -@ cannot be a variable.
func qsubOptions() []option[request] {
	return []option[request]{
		{"-N", 1, setName},
		text("-o", func(r *request) *string { return &r.stdout }),
		text("-e", func(r *request) *string { return &r.stderr }),
		flag("-j", func(r *request) *bool { return &r.join }),
		{"-cwd", 0, func(r *request, _ []string) error { r.dir = r.env.Dir; return nil }},
		{"-wd", 1, func(r *request, a []string) error { r.dir = a[0]; return nil }},
		{"-t", 1, setTasks},
		{"-tc", 1, func(r *request, a []string) error { return number("-tc", a[0], &r.maxTasks) }},
		{"-l", 1, func(r *request, a []string) error { return r.resources(a[0]) }},
		{"-soft", 0, func(r *request, _ []string) error { r.soft = true; return nil }},
		{"-hard", 0, func(r *request, _ []string) error { r.soft = false; return nil }},
		{"-pe", 2, setPE},
		{"-hold_jid", 1, func(r *request, a []string) error { r.hold = strings.Split(a[0], ","); return nil }},
		{"-hold_jid_ad", 1, func(r *request, a []string) error { r.hold = strings.Split(a[0], ","); return nil }}, // waits for all tasks: later, never too early
		{"-v", 1, func(r *request, a []string) error { return r.variables(a[0]) }},
		{"-V", 0, func(r *request, _ []string) error { r.allVars = true; return nil }},
		{"-S", 1, setShell},
		flag("-b", func(r *request) *bool { return &r.binary }),
		{"-shell", 1, func(r *request, a []string) error {
			var on bool
			err := yes("-shell", a[0], &on)
			r.noShell = !on
			return err
		}},
		{"-terse", 0, func(r *request, _ []string) error { r.terse = true; return nil }},
		flag("-sync", func(r *request) *bool { return &r.sync }),
		{"-q", 1, setQueue},
		{"-w", 1, setCheck},
		{"-p", 1, setPriority},
		{"-r", 1, func(r *request, a []string) error {
			again := true
			err := yes("-r", a[0], &again)
			if !again {
				r.retries = 0
			}
			return err
		}},
		{"-P", 1, func(_ *request, a []string) error {
			return denied("job rejected: the requested project %q does not exist", a[0])
		}},
		{"-C", 1, func(r *request, a []string) error { r.prefix = a[0]; return nil }},
		{"-clear", 0, func(r *request, _ []string) error { *r = *newRequest(r.env); return nil }},
		{"-@", 1, func(r *request, a []string) error { return r.file(a[0], true) }},
		{"-now", 1, func(_ *request, a []string) error {
			var now bool
			if err := yes("-now", a[0], &now); err != nil || !now {
				return err
			}
			return denied("option \"-now y\" is not supported by vcpeer")
		}},
		{"-m", 1, nothing}, {"-M", 1, nothing}, {"-notify", 0, nothing}, {"-A", 1, nothing}, {"-R", 1, nothing},
		{"-ac", 1, nothing}, {"-dc", 1, nothing}, {"-sc", 1, nothing}, {"-js", 1, nothing},
		refuse("-a", 1), refuse("-ar", 1), refuse("-binding", 1), refuse("-c", 1), refuse("-ckpt", 1), refuse("-dl", 1), refuse("-h", 0),
		refuse("-i", 1), refuse("-jsv", 1), refuse("-masterq", 1), refuse("-pty", 1), refuse("-verify", 0),
	}
}

func yes(name, word string, at *bool) error {
	switch strings.ToLower(word) {
	case "y", "yes":
		*at = true
	case "n", "no":
		*at = false
	default:
		return misuse("invalid option argument \"%s %s\"", name, word)
	}
	return nil
}

func number(name, word string, at *int) error {
	n, err := strconv.Atoi(word)
	if err != nil || n < 0 {
		return misuse("invalid option argument \"%s %s\"", name, word)
	}
	*at = n
	return nil
}

// nameBytes are what a job's name is made of. (Large regular expressions would cost every call their compilation.)
const nameBytes = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-"

func setName(r *request, a []string) error {
	r.name = a[0]
	if strings.Contains(r.name, "/") {
		return misuse("argument to -N option must not contain / ")
	}
	return checkName(r.name)
}

func checkName(name string) error {
	if name != "" && name[0] >= '0' && name[0] <= '9' {
		return denied("denied: %q is not a valid object name (cannot start with a digit)", name)
	}
	if name == "" || len(name) > 128 || strings.Trim(name, nameBytes) != "" {
		return denied("denied: %q is not a valid object name (letters, digits, \".\", \"_\" and \"-\", at most 128)", name)
	}
	return nil
}

func setTasks(r *request, a []string) error {
	rng, err := parse.Range(a[0])
	if err != nil {
		return misuse("invalid option argument \"-t %s\"", a[0])
	}
	if rng.First < 1 {
		return denied("denied: the task id of a job-array must be greater than 0")
	}
	if parse.Len(rng) > maxArrayTasks {
		return denied("job rejected: you tried to submit a job with more than %d tasks", maxArrayTasks)
	}
	r.array = &rng
	return nil
}

// setPE takes a parallel environment and its slots; of a range it takes the least, which is always granted.
func setPE(r *request, a []string) error {
	switch a[0] {
	case "make", "mpi", "smp":
	default:
		return denied("job rejected: the requested parallel environment %q does not exist", a[0])
	}
	low, _, _ := strings.Cut(a[1], "-")
	n, err := strconv.Atoi(low)
	if err != nil || n < 1 {
		return misuse("invalid option argument \"-pe %s %s\"", a[0], a[1])
	}
	r.pe, r.slots = a[0], n
	return nil
}

func setShell(r *request, a []string) error {
	for item := range strings.SplitSeq(a[0], ",") { // [HOST:]PATH, …
		if _, path, ok := strings.Cut(item, ":"); ok {
			item = path
		}
		if !filepath.IsAbs(item) {
			return misuse("invalid option argument \"-S %s\"", a[0])
		}
		r.shell = item
	}
	return nil
}

// setQueue knows one queue under two names; a queue on a host would pin the job to that host.
func setQueue(r *request, a []string) error {
	for q := range strings.SplitSeq(a[0], ",") {
		name, host, pinned := strings.Cut(q, "@")
		switch {
		case name != "main.q" && name != "all.q" && name != "*":
			return denied("Job was rejected because job requests unknown queue %q.", q)
		case pinned && host != "*":
			r.host = host
		}
	}
	return nil
}

func setCheck(r *request, a []string) error {
	switch a[0] {
	case "e", "w", "n", "p":
		r.verify = false
	case "v":
		r.verify = true
	default:
		return misuse("invalid option argument \"-w %s\"", a[0])
	}
	return nil
}

func setPriority(_ *request, a []string) error {
	n, err := strconv.Atoi(a[0])
	if err != nil || n < -1023 || n > 1024 {
		return misuse("invalid option argument \"-p %s\"", a[0])
	}
	if n > 0 {
		return denied("job rejected: positive submission priority requires operator privileges")
	}
	return nil
}

// file applies the options in a file: # begins a comment. One that is not there is an error only when it was named.
func (r *request) file(name string, named bool) error {
	if r.depth > 8 {
		return misuse("-@ %s: files include each other", name)
	}
	if !filepath.IsAbs(name) {
		name = filepath.Join(r.env.Dir, name)
	}
	b, err := os.ReadFile(name)
	if err != nil {
		if named {
			return misuse("-@: %v", err)
		}
		return nil
	}
	r.depth++
	defer func() { r.depth-- }()
	for line := range bytes.Lines(b) {
		words, err := parse.Words(strings.TrimSpace(string(line)))
		if err != nil {
			return misuse("%s: %v", name, err)
		}
		if err := r.options(words); err != nil {
			return err
		}
	}
	return nil
}

// options applies words that must all be options.
func (r *request) options(words []string) error {
	rest, err := scan(qsubOptions(), r, words, badQsub)
	if err == nil && len(rest) > 0 {
		err = badQsub(rest[0])
	}
	return err
}

// directives applies the option lines of a script; a line whose first word is no option is a comment.
func (r *request) directives(script []byte) error {
	if r.prefix == "" {
		return nil
	}
	ds, err := parse.Directives(bytes.NewReader(script), r.prefix, false)
	if err != nil {
		return misuse("%v", err)
	}
	for _, d := range ds {
		if d.Words[0][:min(1, len(d.Words[0]))] != "-" {
			continue
		}
		if err := r.options(d.Words); err != nil {
			return err
		}
	}
	return nil
}
