package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"vcpeer/peer/config"
)

func newStart(e *env) *cobra.Command {
	var tokenFile string
	cmd := &cobra.Command{
		Use:   "start [--seed HOST[:PORT] --token TOKEN]",
		Short: "Run this node: make a cluster, join one, or go on as a member",
		Long: `Start runs the node in the foreground until it is told to stop.

Without --seed a machine that is in no cluster makes a new one. With --seed and a join token (vcpeer token, on any
member, prints both) it joins. A machine that is a member already needs neither. Every flag may also be a key of the
configuration file or a variable VCPEER_…; vcpeer config shows what is in force.`,
		Example: `  vcpeer start --site kyoto
  vcpeer start --site osaka --seed 192.0.2.1 --token vc1-…
  echo "$TOKEN" | vcpeer start --site lab --seed 192.0.2.1 --token -
  vcpeer start --dir /tmp/n2 --name n2 --listen :0 --seed 127.0.0.1 --token-file token.txt   # a second node here`,
		Args: exactly(),
	}
	keys := config.Keys()
	for _, k := range keys {
		if cmd.Root().PersistentFlags().Lookup(k.Name) == nil && k.Name != "socket" { // a global flag
			cmd.Flags().Var(&setting{key: k}, k.Name, fmt.Sprintf("%s (%s)", k.Help, k.Env()))
		}
	}
	cmd.Flags().StringVar(&tokenFile, "token-file", "", "read the join token from this `FILE`")
	cmd.Flags().SortFlags = false
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return runStart(cmd.Context(), e, given(cmd.Flags(), keys), tokenFile)
	}
	return cmd
}

// setting is a flag for one key of the configuration: it keeps what was typed, and the configuration judges it.
type setting struct {
	key    config.Key
	values []string
}

var _ pflag.Value = (*setting)(nil)

func (s *setting) Set(v string) error { s.values = append(s.values, v); return nil }
func (s *setting) String() string     { return strings.Join(s.values, ",") }
func (s *setting) Type() string       { return s.key.Hint }

// given collects the settings that were typed.
func given(f *pflag.FlagSet, keys []config.Key) map[string][]string {
	flags := map[string][]string{}
	for _, k := range keys {
		if fl := f.Lookup(k.Name); fl != nil && fl.Changed {
			if s, ok := fl.Value.(*setting); ok {
				flags[k.Name] = s.values
			}
		}
	}
	return flags
}

func runStart(ctx context.Context, e *env, flags map[string][]string, tokenFile string) error {
	if err := e.readToken(flags, tokenFile); err != nil {
		return err
	}
	l, err := e.load(flags)
	if err != nil {
		return err
	}
	err = e.deps.Run(ctx, l.Config)
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil // a signal is the usual way to end a daemon
	}
	return err
}

// readToken replaces --token - and --token-file by the token itself.
func (e *env) readToken(flags map[string][]string, file string) error {
	typed := flags["token"]
	switch {
	case file != "" && len(typed) > 0:
		return usage("", "--token and --token-file were both given")
	case file != "":
		f, err := os.Open(file)
		if err != nil {
			return usage("", "--token-file: %v", err)
		}
		defer f.Close()
		return setToken(flags, f, file)
	case len(typed) == 1 && typed[0] == "-":
		if e.InTTY {
			e.note("paste the join token and press Enter:")
		}
		return setToken(flags, e.In, "standard input")
	}
	return nil
}

func setToken(flags map[string][]string, r io.Reader, from string) error {
	line, err := bufio.NewReader(io.LimitReader(r, 64<<10)).ReadString('\n')
	token := strings.TrimSpace(line)
	if token == "" {
		if err != nil && err != io.EOF {
			return fmt.Errorf("join token from %s: %w", from, err)
		}
		return usage("vcpeer token, on any member, prints one", "there is no join token in %s", from)
	}
	flags["token"] = []string{token}
	return nil
}
