package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"vcpeer/peer/api"
)

// defaultRetries is how often a task lost with its node is started again unless --retries says otherwise.
const defaultRetries = 2

// jobOptions is what is typed about a job, on the command line or in #VCPEER lines of its script.
type jobOptions struct {
	name, mem, time, site, array, shell string
	stdout, stderr, dir                 string
	slots, maxTasks, retries            int
	env, in, out, after                 []string
	afterAny, join                      bool
}

// flags registers the options under their names. The same set reads the directives of a script.
func (o *jobOptions) flags(f *pflag.FlagSet) {
	f.StringVarP(&o.name, "name", "n", "", "name of the job (default: that of the script or command)")
	f.IntVarP(&o.slots, "slots", "c", 1, "CPUs for each task")
	f.StringVarP(&o.mem, "mem", "m", "", "memory for each task, for instance 2G")
	f.StringVarP(&o.time, "time", "t", "", "wall-clock limit of each task, for instance 90s, 1h30m or 1:30:00")
	f.StringVar(&o.site, "site", "", "run only at this site")
	f.StringVarP(&o.array, "array", "a", "", "one task for each index: FIRST-LAST or FIRST-LAST:STEP")
	f.IntVar(&o.maxTasks, "max-tasks", 0, "at most so many tasks of the array at once")
	f.StringArrayVarP(&o.env, "env", "e", nil, "variable for the job: NAME=VALUE, or NAME to take yours; may be repeated")
	f.StringArrayVarP(&o.in, "in", "i", nil, "file, directory or pattern to send with the job, or SRC:DEST; may be repeated")
	f.StringArrayVarP(&o.out, "out", "o", nil, "pattern of files to bring back; may be repeated")
	f.StringArrayVar(&o.after, "after", nil, "start when this job has ended well; may be repeated")
	f.BoolVar(&o.afterAny, "after-any", false, "with --after: however it ended")
	f.StringVar(&o.dir, "result-dir", "", "where results come back (default: the current directory)")
	f.StringVar(&o.stdout, "stdout", "", "file for standard output; may hold $JOB_ID, $TASK_ID, $JOB_NAME; - or /dev/null: no file")
	f.StringVar(&o.stderr, "stderr", "", "file for standard error, likewise")
	f.BoolVar(&o.join, "join-output", false, "standard error goes where standard output goes")
	f.StringVar(&o.shell, "shell", "", "interpreter for a script without #! (default /bin/sh)")
	f.IntVar(&o.retries, "retries", defaultRetries, "start a task again so often when its node is lost")
	f.SortFlags = false
}

const jobHelp = `
A script is sent as it is; what comes after it are its arguments. A command follows two dashes. The job runs in a
directory of its own that holds the files given with --in; files that fit --out come back when it has ended. What
submit's jobs print comes back as NAME.oID and NAME.eID, unless --stdout and --stderr name other files.

A script may hold options in lines that begin with #VCPEER, before its first command:

  #!/bin/sh
  #VCPEER --slots 2 --mem 1G --array 1-100
  #VCPEER --in ligands/ --out 'result-*.txt'
  ./dock ligands/$VCPEER_TASK_ID

Options on the command line win over those in the script; repeatable ones add up.`

func newSubmit(e *env) *cobra.Command {
	var o jobOptions
	var wait, quiet bool
	cmd := &cobra.Command{
		Use:                   "submit [OPTIONS] SCRIPT [ARG…] | submit [OPTIONS] -- COMMAND [ARG…]",
		DisableFlagsInUseLine: true,
		Short:                 "Hand in a job; it is safe when this returns",
		Long:                  "Submit hands in a job and prints its ID. On return it is on the disks of a majority of the site's voters.\n" + jobHelp,
		Example: `  vcpeer submit job.sh
  vcpeer submit --slots 4 --in data.csv --out '*.png' plot.py data.csv
  vcpeer submit --array 1-100 --wait -- sh -c 'echo task $VCPEER_TASK_ID'
  id=$(vcpeer submit -q first.sh) && vcpeer submit --after $id second.sh`,
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := e.prepare(cmd.Context(), cmd.Flags(), args)
			if err != nil {
				return err
			}
			return runSubmit(cmd.Context(), e, s, wait, quiet)
		},
	}
	o.flags(cmd.Flags())
	cmd.Flags().BoolVarP(&wait, "wait", "w", false, "wait for the end; leave with 1 if it did not end well")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "print the job's ID alone")
	cmd.Flags().SetInterspersed(false)
	return cmd
}

func runSubmit(ctx context.Context, e *env, s *api.Submit, wait, quiet bool) error {
	sub, err := e.submit(ctx, s)
	if err != nil {
		return err
	}
	text := func() {
		if quiet {
			fmt.Fprintln(e.Out, sub.ID)
			return
		}
		fmt.Fprintf(e.Out, "job %s submitted%s\n", sub.ID, tasksText(sub.Tasks, s.Array))
		if !wait && e.OutTTY {
			e.note("next: vcpeer why %s · vcpeer wait %s · vcpeer logs -f %s", sub.ID, sub.ID, sub.ID)
		}
	}
	if !wait {
		return e.show(sub, text)
	}
	if !e.json {
		text()
	}
	return runWait(ctx, e, []string{sub.ID})
}

func tasksText(n int, r *api.Range) string {
	if r == nil {
		return ""
	}
	return fmt.Sprintf(" (%s, %s)", plural(n, "task"), arrayText(r))
}

// submit hands the job in. The key makes asking again harmless, so a node that breaks off is asked once more.
func (e *env) submit(ctx context.Context, s *api.Submit) (*api.Submitted, error) {
	var sub *api.Submitted
	try := func() error {
		return e.ask(ctx, func(ctx context.Context, c *api.Client) (err error) {
			sub, err = c.Submit(ctx, *s)
			return err
		})
	}
	err := try()
	if p, _ := explainOrNil(err); p != nil && p.Code == api.CodeUnavailable && ctx.Err() == nil {
		err = try()
	}
	return sub, err
}

func explainOrNil(err error) (*api.Problem, int) {
	if err == nil {
		return nil, ExitOK
	}
	return explain(err)
}
