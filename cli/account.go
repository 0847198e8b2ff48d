package cli

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"vcpeer/peer/api"
)

func newAccount(e *env) *cobra.Command {
	cmd := nouns("account", "Users of the whole cluster: add, rm, list, show, enable, key, keys",
		"Accounts are shared by all sites. A new account is in force on every node seconds later, with one uid everywhere.")
	cmd.AddCommand(newAccountAdd(e), newAccountRm(e), newAccountShow(e), newAccountEnable(e), newAccountKey(e), newAccountKeys(e),
		listing(e, "list", "List the accounts", "", listOf((*api.Client).Accounts), e.printAccounts))
	return cmd
}

func (e *env) printAccounts(l *api.List[api.Account]) {
	t := newTable("NAME", ">UID", ">GID", "HOME", "~GROUPS", ">KEYS", "STATE")
	for _, a := range l.Items {
		st := cell{"ok", green}
		if a.Disabled {
			st = cell{"disabled: " + a.Why, yellow}
		}
		t.add(a.Name, a.UID, a.GID, a.Home, dash(strings.Join(a.Groups, ",")), len(a.Keys), st)
	}
	e.table(t, "no accounts; add one with: vcpeer account add NAME")
}

type accountAddOptions struct {
	api.AccountAdd
	keyFiles []string
}

func newAccountAdd(e *env) *cobra.Command {
	var o accountAddOptions
	cmd := &cobra.Command{Use: "add NAME", Short: "Add a user to the cluster",
		Example: "  vcpeer account add ann --full-name 'Ann Lee' --key-file ~/.ssh/id_ed25519.pub",
		Args:    exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.Name = args[0]
			return runAccountAdd(cmd.Context(), e, o)
		}}
	f := cmd.Flags()
	f.Uint32Var(&o.UID, "uid", 0, "numeric user ID (default: a free one)")
	f.StringVar(&o.FullName, "full-name", "", "the person's name")
	f.StringVar(&o.Home, "home", "", "home directory (default /home/NAME)")
	f.StringVar(&o.Shell, "shell", "", "login shell (default /bin/bash)")
	f.StringArrayVar(&o.Keys, "key", nil, "SSH public key line; may be repeated")
	f.StringArrayVar(&o.keyFiles, "key-file", nil, "file of SSH public keys; may be repeated")
	return cmd
}

func runAccountAdd(ctx context.Context, e *env, o accountAddOptions) error {
	for _, f := range o.keyFiles {
		keys, err := readKeys(f)
		if err != nil {
			return err
		}
		o.Keys = append(o.Keys, keys...)
	}
	var a *api.Account
	err := e.ask(ctx, func(ctx context.Context, c *api.Client) (err error) {
		a, err = c.AddAccount(ctx, o.AccountAdd)
		return err
	})
	if err != nil {
		return err
	}
	return e.show(a, func() { fmt.Fprintf(e.Out, "added %s with uid %d\n", a.Name, a.UID) })
}

// readKeys takes the lines of a public key file or an authorized_keys file; a private key is refused before it travels.
func readKeys(file string) ([]string, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, usage("", "--key-file: %v", err)
	}
	if strings.Contains(string(b), "PRIVATE KEY") {
		return nil, usage("name the file that ends in .pub", "%s is a private key", file)
	}
	var keys []string
	for line := range strings.Lines(string(b)) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			keys = append(keys, line)
		}
	}
	if len(keys) == 0 {
		return nil, usage("", "%s holds no keys", file)
	}
	return keys, nil
}

func newAccountRm(e *env) *cobra.Command {
	return &cobra.Command{Use: "rm NAME…", Aliases: []string{"remove"}, Short: "Remove users; a uid is never given to another", Args: atLeastOne("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return e.each(cmd.Context(), args, func(ctx context.Context, c *api.Client, name string) error { return c.RemoveAccount(ctx, name) }, "removed")
		}}
}

func newAccountEnable(e *env) *cobra.Command {
	return &cobra.Command{Use: "enable NAME", Short: "Bring back a user that was disabled", Args: exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return e.each(cmd.Context(), args, func(ctx context.Context, c *api.Client, name string) error { return c.EnableAccount(ctx, name) }, "enabled")
		}}
}

// each does one thing to each name and stops at the first that fails.
func (e *env) each(ctx context.Context, names []string, do func(context.Context, *api.Client, string) error, word string) error {
	for _, name := range names {
		if err := e.ask(ctx, func(ctx context.Context, c *api.Client) error { return do(ctx, c, name) }); err != nil {
			return err
		}
	}
	return e.done("%s %s", word, strings.Join(names, ", "))
}

func newAccountShow(e *env) *cobra.Command {
	return &cobra.Command{Use: "show NAME", Short: "Show one user", Args: exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			a, err := e.account(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return e.show(a, func() {
				fmt.Fprintf(e.Out, "name    %s\nuid     %d\ngid     %d\nperson  %s\nhome    %s\nshell   %s\ngroups  %s\nid      %s\n",
					a.Name, a.UID, a.GID, dash(clean(a.FullName)), clean(a.Home), clean(a.Shell), dash(strings.Join(a.Groups, ", ")), a.ID)
				if a.Disabled {
					fmt.Fprintf(e.Out, "%s %s\n", e.paint(yellow, "disabled:"), clean(a.Why))
				}
				for _, k := range a.Keys {
					fmt.Fprintf(e.Out, "key     %s\n", clean(k))
				}
			})
		}}
}

func (e *env) account(ctx context.Context, name string) (a *api.Account, err error) {
	err = e.ask(ctx, func(ctx context.Context, c *api.Client) (err error) {
		a, err = c.Account(ctx, name)
		return err
	})
	return a, err
}

func newAccountKey(e *env) *cobra.Command {
	cmd := nouns("key", "SSH public keys of a user: add, rm", "")
	cmd.AddCommand(
		&cobra.Command{Use: "add NAME FILE", Short: "Add the keys in a file", Args: exactly("NAME", "FILE"),
			RunE: func(cmd *cobra.Command, args []string) error {
				more, err := readKeys(args[1])
				if err != nil {
					return err
				}
				return runKeys(cmd.Context(), e, args[0], func(have []string) []string {
					for _, k := range more {
						if !slices.Contains(have, k) {
							have = append(have, k)
						}
					}
					return have
				})
			}},
		&cobra.Command{Use: "rm NAME KEY", Short: "Remove a key by any part of it that is no other's", Args: exactly("NAME", "KEY"),
			Example: "  vcpeer account key rm ann ann@laptop",
			RunE: func(cmd *cobra.Command, args []string) error {
				return runKeyRm(cmd.Context(), e, args[0], args[1])
			}})
	return cmd
}

// runKeys replaces the keys of a user by what edit makes of them.
func runKeys(ctx context.Context, e *env, name string, edit func([]string) []string) error {
	a, err := e.account(ctx, name)
	if err != nil {
		return err
	}
	keys := edit(slices.Clone(a.Keys))
	if err := e.ask(ctx, func(ctx context.Context, c *api.Client) error { return c.SetKeys(ctx, name, keys) }); err != nil {
		return err
	}
	return e.done("%s has %s", name, plural(len(keys), "key"))
}

func runKeyRm(ctx context.Context, e *env, name, part string) error {
	a, err := e.account(ctx, name)
	if err != nil {
		return err
	}
	var fit int
	for _, k := range a.Keys {
		if strings.Contains(k, part) {
			fit++
		}
	}
	if fit != 1 {
		return &api.Problem{Code: api.CodeNotFound, Message: fmt.Sprintf("%d of %d keys of %s hold %q; want exactly one", fit, len(a.Keys), name, part), Hint: "vcpeer account show " + name + " lists them"}
	}
	return runKeys(ctx, e, name, func(have []string) []string {
		return slices.DeleteFunc(have, func(k string) bool { return strings.Contains(k, part) })
	})
}
