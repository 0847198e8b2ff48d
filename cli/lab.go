package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"vcpeer/deploy/lab"
	"vcpeer/peer/api"
)

func newLab(e *env) *cobra.Command {
	cmd := nouns("lab", "A whole multi-site network on this machine: nodes, routers, NAT, delays and cuts",
		`Lab runs many nodes at many sites on one machine, each with its own network, files, Open vSwitch and vcpeer. What the
network between the sites does is known and changes at will. It needs root, Open vSwitch and nftables.`)
	cmd.Example = `  vcpeer lab up --sites 3 --delay 10ms
  vcpeer lab exec site1 -- ping -c3 44.128.1.1
  vcpeer lab exec site2 -- vcpeer members
  vcpeer lab set 'site1<>site2' delay=50ms loss=1%
  vcpeer lab cut site1 site3
  vcpeer lab heal
  vcpeer lab down`
	var name string
	cmd.PersistentFlags().StringVar(&name, "name", "", "the lab, where there are several (VCPEER_LAB)")
	for _, c := range []*cobra.Command{newLabUp(e, &name), newLabStatus(e, &name), newLabList(e), newLabSet(e, &name), newLabCut(e, &name), newLabHeal(e, &name),
		newLabExec(e, &name), newLabKill(e, &name), newLabStart(e, &name), newLabLogs(e, &name), newLabDown(e, &name), newLabHold(e)} {
		cmd.AddCommand(c)
	}
	return cmd
}

// lab finds the lab that is meant: by name, by VCPEER_LAB, or the only one, the only one that runs among those that failed.
func (e *env) lab(name string) (lab.Remote, error) {
	if name == "" {
		name = e.Getenv("VCPEER_LAB")
	}
	if name == "" {
		names, err := lab.Names()
		if err != nil {
			return lab.Remote{}, err
		}
		if up := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return !labRuns(name) }); len(up) > 0 {
			names = up
		}
		switch len(names) {
		case 0:
			return lab.Remote{}, &api.Problem{Code: api.CodeNotFound, Message: "there is no lab", Hint: "vcpeer lab up --sites 3 makes one"}
		case 1:
			name = names[0]
		default:
			return lab.Remote{}, usage("say which with --name", "there are several labs: %s", strings.Join(names, ", "))
		}
	}
	s, err := lab.Find(name)
	if errors.Is(err, fs.ErrNotExist) {
		return lab.Remote{}, &api.Problem{Code: api.CodeNotFound, Message: fmt.Sprintf("there is no lab %q", name), Hint: "vcpeer lab list lists them"}
	}
	if err != nil {
		return lab.Remote{}, err
	}
	return lab.Remote{State: s}, nil
}

// labRuns reports that the process which holds a lab is there.
func labRuns(name string) bool {
	s, err := lab.Find(name)
	return err == nil && s.Holder.Alive()
}

// askLab runs one exchange with a lab under the usual deadline.
func (e *env) askLab(ctx context.Context, name string, do func(context.Context, lab.Remote) error) error {
	r, err := e.lab(name)
	if err != nil {
		return err
	}
	within := answerWithin
	if e.timeout > 0 {
		within = e.timeout
	}
	ctx, cancel := context.WithTimeoutCause(ctx, within, &api.Problem{Code: api.CodeDeadline,
		Message: fmt.Sprintf("no answer from lab %s within %v", r.State.Name, within), Hint: "--timeout waits longer"})
	defer cancel()
	defer e.patience("waiting for lab " + r.State.Name)()
	return do(ctx, r)
}

func newLabList(e *env) *cobra.Command {
	return &cobra.Command{Use: "list", Short: "List the labs of this machine", Args: exactly(), RunE: func(*cobra.Command, []string) error {
		names, err := lab.Names()
		if err != nil {
			return err
		}
		items := []labItem{}
		for _, name := range names {
			it := labItem{Name: name, State: "unknown"} // its end came before its beginning
			if s, err := lab.Find(name); err == nil {
				it.State, it.Sites, it.PID = "failed", len(s.Sites), s.Holder.PID
				if s.Holder.Alive() {
					it.State = "running"
				}
			}
			items = append(items, it)
		}
		return e.show(map[string]any{"apiVersion": api.Version, "kind": "LabList", "items": items}, func() {
			t := newTable("LAB", "STATE", ">SITES", ">PID")
			for _, it := range items {
				t.add(it.Name, state(it.State), it.Sites, it.PID)
			}
			e.table(t, "no labs; make one with: vcpeer lab up --sites 3")
		})
	}}
}

type labItem struct {
	Name  string `json:"name"`
	State string `json:"state"` // running; failed: its process has ended, lab down removes it
	Sites int    `json:"sites"`
	PID   int    `json:"pid"`
}

func newLabDown(e *env, name *string) *cobra.Command {
	var all bool
	cmd := &cobra.Command{Use: "down", Short: "End a lab, and remove what is left of one that died",
		Example: "  vcpeer lab down\n  vcpeer lab down --name three-sites\n  vcpeer lab down --all", Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			names := []string{*name}
			if all {
				var err error
				if names, err = lab.Names(); err != nil {
					return err
				}
			}
			for _, n := range names {
				if err := e.labDown(cmd.Context(), n); err != nil {
					return err
				}
			}
			return e.done("down")
		}}
	cmd.Flags().BoolVar(&all, "all", false, "every lab of this machine")
	return cmd
}

func (e *env) labDown(ctx context.Context, name string) error {
	names, err := lab.Names()
	if err != nil {
		return err
	}
	if _, err := lab.Find(name); slices.Contains(names, name) && errors.Is(err, fs.ErrNotExist) {
		return lab.RemoveDir(name)
	}
	return e.askLab(ctx, name, func(ctx context.Context, r lab.Remote) error { return r.Down(ctx) })
}

// newLabHold is what a lab's own process runs; lab up starts it.
func newLabHold(e *env) *cobra.Command {
	return &cobra.Command{Use: "hold", Hidden: true, Args: exactly(), RunE: func(cmd *cobra.Command, _ []string) error {
		return lab.Hold(cmd.Context(), e.In, e.Out)
	}}
}
