// Command vcpeer is the node and its command line in one program. Called as qsub, qstat or qdel it answers as those do.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"vcpeer/cli"
	"vcpeer/peer"
	"vcpeer/peer/config"
	"vcpeer/queue/exec"
)

// version is set by the linker.
var version = "unversioned"

func main() {
	if len(os.Args) > 1 && os.Args[1] == "shim" { // a job's keeper: as little of this program as can be
		os.Exit(exec.ShimMain(os.Args[2:]))
	}
	os.Exit(run())
}

// run ends its context at the first signal; a second one ends the process as if nobody listened.
func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	return cli.Main(ctx, os.Args, system(), cli.Deps{
		Version: version,
		Run: func(ctx context.Context, c config.Config) error {
			return peer.Run(ctx, c, version, logger(os.Stderr, c))
		},
		Uninstall: peer.Uninstall,
	})
}
