package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"vcpeer/peer/api"
)

type logsOptions struct {
	follow bool
	stream string
}

func newLogs(e *env) *cobra.Command {
	var o logsOptions
	cmd := &cobra.Command{Use: "logs ID[.TASK]", Short: "Show the output of a job, and with -f as it comes",
		Long: `Logs prints standard output on standard output and standard error on standard error. The lines of an array's tasks
begin with the task's index. With -f it ends when the job has ended.`,
		Example: "  vcpeer logs 42\n  vcpeer logs -f last\n  vcpeer logs '42.kyoto[7]' --stream stderr",
		Args:    exactly("ID"),
		RunE:    func(cmd *cobra.Command, args []string) error { return runLogs(cmd.Context(), e, args[0], o) }}
	cmd.Flags().BoolVarP(&o.follow, "follow", "f", false, "go on until the job has ended")
	cmd.Flags().StringVar(&o.stream, "stream", api.StreamBoth, "stdout, stderr or both")
	return cmd
}

func runLogs(ctx context.Context, e *env, typed string, o logsOptions) error {
	if !slices.Contains([]string{api.StreamOut, api.StreamErr, api.StreamBoth}, o.stream) {
		return usage("", "--stream %q: want stdout, stderr or both", o.stream)
	}
	return e.follow(ctx, func(ctx context.Context, c *api.Client) error {
		id, task, err := e.resolve(ctx, c, typed)
		if err != nil {
			return err
		}
		ask := api.LogsAsk{Task: task, Stream: o.stream, Follow: o.follow}
		if e.json {
			return jsonLogs(ctx, e.Out, c, id, ask)
		}
		j, err := c.Job(ctx, id)
		if err != nil {
			return err
		}
		return e.copyLogs(ctx, c, id, ask, j.Array != nil && task == nil)
	})
}

func jsonLogs(ctx context.Context, w io.Writer, c *api.Client, id string, ask api.LogsAsk) error {
	enc := json.NewEncoder(w)
	for chunk, err := range c.Logs(ctx, id, ask) {
		if err != nil {
			return err
		}
		if err := enc.Encode(chunk); err != nil {
			return err
		}
	}
	return nil
}

// copyLogs writes a job's output; with prefix each line of a task begins with its index.
func (e *env) copyLogs(ctx context.Context, c *api.Client, id string, ask api.LogsAsk, prefix bool) error {
	out, errs := &prefixer{w: e.Out, on: prefix}, &prefixer{w: e.Err, on: prefix}
	defer out.flush()
	defer errs.flush()
	for chunk, err := range c.Logs(ctx, id, ask) {
		if err != nil {
			return err
		}
		w := out
		if chunk.Stream == api.StreamErr {
			w = errs
		}
		if err := w.write(chunk.Task, chunk.Data); err != nil {
			return err
		}
	}
	return nil
}

// maxHeldLine bounds a line that is held back until its end is there.
const maxHeldLine = 64 << 10

// prefixer keeps the lines of several tasks apart: each is written whole, with the task's index before it.
type prefixer struct {
	w    io.Writer
	on   bool
	held map[int][]byte
}

func (p *prefixer) write(task int, b []byte) error {
	if !p.on {
		_, err := p.w.Write(b)
		return err
	}
	if p.held == nil {
		p.held = map[int][]byte{}
	}
	b = append(p.held[task], b...)
	for {
		n := bytes.IndexByte(b, '\n')
		if n < 0 && len(b) < maxHeldLine {
			break
		}
		if n < 0 {
			n = len(b) - 1
		}
		if _, err := fmt.Fprintf(p.w, "[%d] %s\n", task, bytes.TrimSuffix(b[:n+1], []byte("\n"))); err != nil {
			return err
		}
		b = b[n+1:]
	}
	p.held[task] = append([]byte(nil), b...)
	return nil
}

// flush writes lines that never ended.
func (p *prefixer) flush() {
	tasks := make([]int, 0, len(p.held))
	for t, b := range p.held {
		if len(b) > 0 {
			tasks = append(tasks, t)
		}
	}
	slices.Sort(tasks)
	for _, t := range tasks {
		fmt.Fprintf(p.w, "[%d] %s\n", t, p.held[t])
	}
}
