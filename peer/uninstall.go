package peer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"vcpeer/crdt"
	"vcpeer/overlay"
	"vcpeer/overlay/hosts"
	"vcpeer/overlay/userdb"
	"vcpeer/peer/api"
	"vcpeer/peer/config"
	"vcpeer/peer/fabric"
	"vcpeer/peer/server"
)

// Uninstall takes back what a node wrote outside its own directories: its bridges, its block in /etc/hosts and the accounts
// it gave to the system. Its state stays, and is named. With dry it only tells what it would do. The daemon must not run.
func Uninstall(ctx context.Context, cfg config.Config, dry bool, out io.Writer) error {
	if conn, err := net.DialTimeout("unix", cfg.Socket, time.Second); err == nil {
		conn.Close()
		return server.Problem(api.CodeRefused, "stop it first: vcpeer leave, or vcpeer stop", "this node is running (%s)", cfg.Socket)
	}
	if dry {
		fmt.Fprintln(out, "would remove the bridges of this node from Open vSwitch")
		if integrated(cfg) {
			fmt.Fprintln(out, "would remove the block of vcpeer from /etc/hosts")
			fmt.Fprintln(out, "would withdraw the cluster's accounts from this system")
		}
		fmt.Fprintf(out, "would keep %s, which holds this node's identity and records, and what jobs left in %s\n", cfg.State, attemptsDir(cfg))
		return nil
	}
	if os.Geteuid() != 0 {
		fmt.Fprintln(out, "nothing to take back: only a node of root writes outside its own directories")
	} else if err := errors.Join(removeBridges(ctx, cfg, out), withdraw(ctx, cfg, out)); err != nil {
		return err
	}
	fmt.Fprintf(out, "kept %s, which holds this node's identity and records, and what jobs left in %s; remove both if the node will not come back\n",
		cfg.State, attemptsDir(cfg))
	return nil
}

// removeBridges takes away what the node has in Open vSwitch. A node that never had an identity has nothing there.
func removeBridges(ctx context.Context, cfg config.Config, out io.Writer) error {
	path := filepath.Join(cfg.State, "node.key")
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	key, _, err := fabric.Identity(path)
	if err != nil {
		return err
	}
	removed, err := overlay.Remove(ctx, overlay.Config{Self: crdt.NodeIDOf(key), Log: slog.New(slog.DiscardHandler)})
	for _, what := range removed {
		fmt.Fprintln(out, "removed "+what+" from Open vSwitch")
	}
	if len(removed) == 0 && err == nil {
		fmt.Fprintln(out, "Open vSwitch has no bridges of this node")
	}
	return err
}

// integrated reports whether the node may have shown the cluster to the machine's programs, now or under another setting. One
// with a directory of its own does that only when told to: the block and the accounts are those of the machine's node.
func integrated(cfg config.Config) bool { return cfg.Integrate == config.IntegrateOn || cfg.Dir == "" }

func withdraw(ctx context.Context, cfg config.Config, out io.Writer) error {
	if !integrated(cfg) {
		return nil
	}
	log := slog.New(slog.DiscardHandler)
	removed, hostsErr := hosts.Remove(ctx, hosts.Config{Instance: instance, Log: log})
	switch {
	case hostsErr != nil:
	case removed:
		fmt.Fprintln(out, "removed the block of vcpeer from /etc/hosts")
	default:
		fmt.Fprintln(out, "/etc/hosts has no block of vcpeer")
	}
	usersErr := userdb.Uninstall(ctx, userdb.Config{Instance: instance, Log: log})
	if usersErr == nil {
		fmt.Fprintln(out, "withdrew the cluster's accounts from this system")
	}
	return errors.Join(hostsErr, usersErr)
}
