package cli

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"vcpeer/peer/api"
)

// keysWithin is how long a login waits for the node.
const keysWithin = 5 * time.Second

func newAccountKeys(e *env) *cobra.Command {
	return &cobra.Command{Use: "keys NAME UID", Short: "Print the SSH keys of a user, for sshd",
		Long: `Keys prints the lines that sshd lets a user of the cluster log in by: those of the account NAME, and none if that is
disabled, or if the user NAME of this machine has another UID than the account, for then it is somebody else. A name that
is no account's has no keys, which is no error. In sshd_config(5):

  AuthorizedKeysCommand /usr/bin/vcpeer account keys %u %U
  AuthorizedKeysCommandUser nobody

sshd wants the program, and all directories above it, to be writable by root alone. It reads ~/.ssh/authorized_keys too, and
that alone while vcpeer does not run.`,
		Args: exactly("NAME", "UID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			uid, err := strconv.ParseUint(args[1], 10, 32)
			if err != nil {
				return usage("sshd puts it in the place of %U", "%q is no numeric user ID", args[1])
			}
			return runAccountKeys(cmd.Context(), e, args[0], uint32(uid))
		}}
}

func runAccountKeys(ctx context.Context, e *env, name string, uid uint32) error {
	if e.timeout == 0 {
		e.timeout = keysWithin
	}
	keys := []string{}
	a, err := e.account(ctx, name)
	var p *api.Problem
	switch {
	case errors.As(err, &p) && p.Code == api.CodeNotFound: // a user of the machine alone
	case err != nil:
		return err
	case !a.Disabled && a.UID == uid:
		keys = append(keys, a.Keys...)
	}
	return e.show(map[string][]string{"sshKeys": keys}, func() {
		for _, k := range keys {
			fmt.Fprintln(e.Out, k)
		}
	})
}
