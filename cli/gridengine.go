package cli

import (
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"vcpeer/cli/sge"
	"vcpeer/peer/api"
)

// newGridEngine offers qsub, qstat and qdel as commands too, for machines where those names belong to another system.
func newGridEngine(e *env) []*cobra.Command {
	var cmds []*cobra.Command
	for _, name := range sge.Names {
		cmds = append(cmds, &cobra.Command{
			Use:                name + " [GRID ENGINE OPTIONS]",
			Short:              "Grid Engine's " + name + " over this cluster",
			DisableFlagParsing: true, // its options are not ours: -pe smp 4, -cwd
			Hidden:             true,
			RunE: func(cmd *cobra.Command, args []string) error {
				args, err := e.takeGlobals(args)
				if err != nil {
					return err
				}
				return exitStatus(e.gridEngine(cmd.Context(), name, args))
			},
		})
	}
	return cmds
}

// takeGlobals reads the flags that tell which node is meant, which stood before the command's name; Grid Engine has
// no options with two dashes.
func (e *env) takeGlobals(args []string) ([]string, error) {
	known := map[string]*string{"--socket": &e.socket, "--dir": &e.dir, "--config": &e.config}
	for len(args) > 0 {
		name, value, joined := strings.Cut(args[0], "=")
		at, ok := known[name]
		if !ok {
			return args, nil
		}
		args = args[1:]
		if !joined {
			if len(args) == 0 {
				return nil, usage("", "%s wants a value", name)
			}
			value, args = args[0], args[1:]
		}
		*at = value
	}
	return args, nil
}

// gridEngine runs one of the commands against the node.
func (e *env) gridEngine(ctx context.Context, name string, args []string) int {
	c, err := e.client()
	if err != nil {
		return e.report(err)
	}
	defer c.Close()
	if !slices.Contains(args, "-sync") { // what waits for a job has no deadline
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, answerWithin, &api.Problem{Code: api.CodeDeadline, Message: "no answer from " + c.Socket() + " within " + answerWithin.String()})
		defer cancel()
	}
	return sge.Main(ctx, name, sge.Env{
		In: e.In, Out: e.Out, Err: e.Err, Environ: e.Environ, User: e.User, Home: e.who().Home, Host: e.Host, Dir: e.Dir, Node: c,
		Await: func(ctx context.Context, id string) error {
			_, err := e.await(ctx, c, id)
			return err
		},
	}, args)
}
