// Package cli is the command line of vcpeer: a cobra tree in which each command has a file of its own, a constructor
// that fills an options struct, and a run function that does the work with env. It speaks to a node through
// [api.Client] alone; what needs the daemon itself is handed in as Deps, so that nothing heavy is linked or started
// for a question. Main is the whole program but for signals.
//
//	code := cli.Main(ctx, os.Args, system, cli.Deps{Run: peer.Run, Version: version})
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"vcpeer/cli/sge"
	"vcpeer/peer/api"
	"vcpeer/peer/config"
)

// Deps is what the command line gets from the rest of the program.
type Deps struct {
	Version string
	// Run is the daemon; it returns when ctx ends or the node was told to stop.
	Run func(ctx context.Context, c config.Config) error
	// Uninstall takes back what a node wrote outside its own directories, telling out each step; with dry it only tells.
	Uninstall func(ctx context.Context, c config.Config, dry bool, out io.Writer) error
}

// Main runs one command line and returns the exit code. Called by the name of a Grid Engine command, by a link for
// instance, it is that command.
func Main(ctx context.Context, argv []string, sys System, deps Deps) int {
	e := newEnv(sys, deps)
	if name := filepath.Base(argv[0]); slices.Contains(sge.Names[:], name) {
		return e.gridEngine(ctx, name, argv[1:])
	}
	args := argv[1:]
	e.json = slices.Contains(args[:beforeDashes(args)], "--json") // also for what is wrong with the flags themselves
	root := newRoot(e)
	root.SetArgs(args)
	return e.report(root.ExecuteContext(ctx))
}

// New returns the command tree, for programs that make pages or completions of it.
func New(sys System, deps Deps) *cobra.Command { return newRoot(newEnv(sys, deps)) }

func beforeDashes(args []string) int {
	if i := slices.Index(args, "--"); i >= 0 {
		return i
	}
	return len(args)
}

const (
	groupNode    = "node"
	groupCluster = "cluster"
	groupJobs    = "jobs"
	groupNetwork = "network"
	groupLab     = "lab"
)

func newRoot(e *env) *cobra.Command {
	root := &cobra.Command{
		Use:   "vcpeer",
		Short: "One cluster out of many sites, with no master",
		Long: `vcpeer makes one cluster out of the machines of many sites. Every node is equal; each site keeps its own
queue and goes on alone when it is cut off.

  vcpeer start                         on the first machine: makes a cluster
  vcpeer token                         prints the command to type on the next machine
  vcpeer submit job.sh                 runs job.sh somewhere; vcpeer jobs shows it
  vcpeer why 42                        why does job 42 not run?
  vcpeer why kyoto osaka               why do frames between these sites go the way they go?`,
		Version:           e.deps.Version,
		SilenceErrors:     true,
		SilenceUsage:      true,
		Args:              cobra.ArbitraryArgs,
		PersistentPreRunE: func(*cobra.Command, []string) error { return e.checkColor() },
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			return unknownVerb(cmd, args[0])
		},
	}
	root.SetIn(e.In)
	root.SetOut(e.Out)
	root.SetErr(e.Err)
	root.SetVersionTemplate("vcpeer {{.Version}}\n")
	root.SetFlagErrorFunc(flagError)
	globalFlags(root.PersistentFlags(), e)
	root.AddGroup(&cobra.Group{ID: groupJobs, Title: "Jobs:"}, &cobra.Group{ID: groupCluster, Title: "Cluster:"},
		&cobra.Group{ID: groupNetwork, Title: "Network over all sites:"}, &cobra.Group{ID: groupNode, Title: "This node:"}, &cobra.Group{ID: groupLab, Title: "Lab:"})
	add(root, e, groupJobs, newSubmit, newRun, newJobs, newJob, newWhy, newLogs, newCancel, newWait)
	add(root, e, groupCluster, newMembers, newSites, newHosts, newAccount, newGroup, newConflicts, newEvents, newToken, newEvict)
	add(root, e, groupNetwork, newOverlay, newLinks, newPaths, newPing, newTrace, newGuests, newAttach, newDetach)
	add(root, e, groupNode, newStart, newStop, newStatus, newNetcheck, newLeave, newConfig, newUninstall)
	add(root, e, groupLab, newLab)
	add(root, e, "", newVersion, newExitCodes)
	root.AddCommand(newGridEngine(e)...)
	return root
}

func add(root *cobra.Command, e *env, group string, make ...func(*env) *cobra.Command) {
	for _, m := range make {
		c := m(e)
		c.GroupID = group
		root.AddCommand(c)
	}
}

func globalFlags(f *pflag.FlagSet, e *env) {
	f.BoolVar(&e.json, "json", e.json, "answer in JSON, errors included")
	f.StringVar(&e.color, "color", "auto", "auto, always or never")
	f.StringVar(&e.socket, "socket", "", "unix socket of the node (VCPEER_SOCKET)")
	f.StringVar(&e.dir, "dir", "", "directory that holds all of one node: config, state, socket (VCPEER_DIR)")
	f.StringVar(&e.config, "config", "", "configuration file (VCPEER_CONFIG)")
	durationFlag(f, &e.timeout, "timeout", "", 0, "give up after so long, with exit code 124 (default 1m for questions)")
	f.SortFlags = false
}

func (e *env) checkColor() error {
	if !slices.Contains([]string{"auto", "always", "never"}, e.color) {
		return usage("", "--color %q: want auto, always or never", e.color)
	}
	if e.timeout < 0 {
		return usage("", "--timeout %v: want a time above zero", e.timeout)
	}
	return nil
}

// unknownVerb names the nearest command.
func unknownVerb(cmd *cobra.Command, typed string) error {
	var names []string
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			names = append(names, append([]string{c.Name()}, c.Aliases...)...)
		}
	}
	path := cmd.CommandPath()
	if near := config.Nearest(typed, names); near != "" {
		return usage(fmt.Sprintf("did you mean %s %s?", path, near), "%s has no command %q", path, typed)
	}
	return usage(path+" help lists the commands", "%s has no command %q", path, typed)
}

// flagError names the nearest flag of the command.
func flagError(cmd *cobra.Command, err error) error {
	if errors.Is(err, pflag.ErrHelp) {
		return err
	}
	hint := cmd.CommandPath() + " --help lists the flags"
	var unknown *pflag.NotExistError
	if errors.As(err, &unknown) {
		var names []string
		cmd.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
		if near := config.Nearest(unknown.GetSpecifiedName(), names); near != "" && len(unknown.GetSpecifiedName()) > 1 {
			hint = fmt.Sprintf("did you mean --%s?", near)
		}
	}
	return usage(hint, "%s: %v", cmd.CommandPath(), err)
}

// nouns makes a command that only holds others, and an unknown one of those an error.
func nouns(use, short, long string) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, Long: long, Args: cobra.ArbitraryArgs, RunE: func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return cmd.Help()
		}
		return unknownVerb(cmd, args[0])
	}}
}

// exactly wants n arguments and says which.
func exactly(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == len(names) {
			return nil
		}
		if len(names) == 0 {
			return usage("", "%s takes no arguments, but got %s", cmd.CommandPath(), strings.Join(args, " "))
		}
		return usage(cmd.CommandPath()+" --help shows examples", "%s wants %s", cmd.CommandPath(), strings.Join(names, " "))
	}
}

// atLeastOne wants one argument or more.
func atLeastOne(name string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return usage(cmd.CommandPath()+" --help shows examples", "%s wants at least one %s", cmd.CommandPath(), name)
		}
		return nil
	}
}

// listing makes a command that shows one list of the node.
func listing[T any](e *env, use, short, example string, fetch func(context.Context, *api.Client) (*api.List[T], error), text func(*api.List[T])) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, Example: example, Args: exactly(), RunE: func(cmd *cobra.Command, _ []string) error {
		return runListing(cmd.Context(), e, fetch, text)
	}}
}

func runListing[T any](ctx context.Context, e *env, fetch func(context.Context, *api.Client) (*api.List[T], error), text func(*api.List[T])) error {
	var l *api.List[T]
	err := e.ask(ctx, func(ctx context.Context, c *api.Client) (err error) {
		l, err = fetch(ctx, c)
		return err
	})
	if err != nil {
		return err
	}
	if err := e.show(l, func() { text(l) }); err != nil {
		return err
	}
	return e.heard(l.Heard)
}

// listOf turns a method of the client into what listing wants.
func listOf[T any](m func(*api.Client, context.Context) (*api.List[T], error)) func(context.Context, *api.Client) (*api.List[T], error) {
	return func(ctx context.Context, c *api.Client) (*api.List[T], error) { return m(c, ctx) }
}
