package cli

import "github.com/spf13/cobra"

// newExitCodes is a help topic: a command that only has a text.
func newExitCodes(*env) *cobra.Command {
	return &cobra.Command{Use: "exit-codes", Short: "What the exit codes mean", Long: `Exit codes of vcpeer:

  0    done as asked
  1    failed; for status: the node is not well; for wait and submit --wait: a job did not end well
  2    what was typed cannot be right
  3    the answer is not whole: some sites were not heard (it says which on standard error)
  4    there is no such job, node, account, …
  5    refused: not allowed, or impossible in this cluster
  6    no node is running here, or it cannot be reached
  124  the time given with --timeout was over
  125  vcpeer failed while it stood for a job (vcpeer run); any other code of run is the job's
  130  ended by Ctrl-C

qsub, qstat and qdel leave with Grid Engine's codes. With --json an error is an object on standard output,
{"error": {"code": …, "message": …, "hint": …}}, and the exit code is the same.`}
}
