package cli

import (
	"context"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"vcpeer/deploy/lab"
	"vcpeer/peer/api"
)

func daemonFlag(cmd *cobra.Command, to *string) {
	cmd.Flags().StringVar(to, "daemon", lab.VCPeer, strings.Join(lab.Daemons, ", "))
}

func newLabKill(e *env, name *string) *cobra.Command {
	var daemon, sig string
	cmd := &cobra.Command{Use: "kill NODE", Short: "Send a signal to a daemon of a node", Args: exactly("NODE"),
		Example: "  vcpeer lab kill kyoto-1                                   # kill -9 of its vcpeer\n  vcpeer lab kill kyoto-1 --daemon ovs-vswitchd\n  vcpeer lab kill kyoto-1 --signal STOP; vcpeer lab kill kyoto-1 --signal CONT",
		RunE: func(cmd *cobra.Command, args []string) error {
			number, err := parseSignal(sig)
			if err != nil {
				return err
			}
			if err := e.askLab(cmd.Context(), *name, func(ctx context.Context, r lab.Remote) error { return r.Kill(ctx, args[0], daemon, number) }); err != nil {
				return err
			}
			return e.done("%s on %s: %s; vcpeer lab start %s --daemon %s starts it again", daemon, args[0], unix.SignalName(number), args[0], daemon)
		}}
	daemonFlag(cmd, &daemon)
	cmd.Flags().StringVar(&sig, "signal", "KILL", "name or number")
	return cmd
}

func parseSignal(s string) (syscall.Signal, error) {
	if n, err := strconv.Atoi(s); err == nil && n > 0 && n < 65 {
		return syscall.Signal(n), nil
	}
	if n := unix.SignalNum("SIG" + strings.TrimPrefix(strings.ToUpper(s), "SIG")); n != 0 {
		return n, nil
	}
	return 0, usage("kill -l lists them", "--signal %q: want the name or number of a signal", s)
}

func newLabStart(e *env, name *string) *cobra.Command {
	var daemon string
	cmd := &cobra.Command{Use: "start NODE", Short: "Start a daemon of a node that does not run", Args: exactly("NODE"),
		Example: "  vcpeer lab start kyoto-1\n  vcpeer lab start kyoto-1 --daemon ovs-vswitchd",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := e.askLab(cmd.Context(), *name, func(ctx context.Context, r lab.Remote) error { return r.StartDaemon(ctx, args[0], daemon) }); err != nil {
				return err
			}
			return e.done("%s runs on %s", daemon, args[0])
		}}
	daemonFlag(cmd, &daemon)
	return cmd
}

func newLabLogs(e *env, name *string) *cobra.Command {
	var daemon string
	var follow bool
	cmd := &cobra.Command{Use: "logs NODE", Short: "Show the log of a daemon of a node", Args: exactly("NODE"),
		Example: "  vcpeer lab logs kyoto-1 -f\n  vcpeer lab logs kyoto-1 --daemon ovs-vswitchd",
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := e.lab(*name)
			if err != nil {
				return err
			}
			m, err := r.State.Machine(args[0])
			if err != nil {
				return err
			}
			f, err := os.Open(lab.LogFile(m.Dir, daemon))
			if err != nil {
				return &api.Problem{Code: api.CodeNotFound, Message: err.Error(), Hint: "has it been started? daemons are " + strings.Join(lab.Daemons, ", ")}
			}
			defer f.Close()
			return copyLog(cmd.Context(), e.Out, f, follow)
		}}
	daemonFlag(cmd, &daemon)
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on until Ctrl-C")
	return cmd
}

// copyLog copies what is there, and with follow what comes; a file does not tell when it has grown.
func copyLog(ctx context.Context, w io.Writer, f *os.File, follow bool) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := io.Copy(w, f); err != nil || !follow {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}
