package peer

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fxamacker/cbor/v2"

	"vcpeer/crdt"
	"vcpeer/peer/api"
	"vcpeer/peer/server"
	"vcpeer/queue"
	"vcpeer/queue/exec"
	"vcpeer/queue/site"
)

// execProtocol reads the output of an attempt where it runs: one frame (length, CBOR) that names it, then the bytes.
const execProtocol = "/vcpeer/exec/1"

const (
	maxTailAsk   = 4 << 10
	tailOpenTime = 10 * time.Second
	logChunk     = 32 << 10
	logFollowers = 64 // tasks of one job whose output is followed at once
)

// tailAsk asks for a stream of an attempt.
type tailAsk struct {
	Key    string `cbor:"1,keyasint"`
	Stream string `cbor:"2,keyasint"`
	Follow bool   `cbor:"3,keyasint,omitempty"`
}

// serveTails lets other members read the output of what runs here.
func (n *node) serveTails(executor *exec.Executor) {
	n.fabric.Handle(execProtocol, func(ctx context.Context, _ crdt.NodeID, c net.Conn) {
		defer c.Close()
		_ = c.SetReadDeadline(time.Now().Add(tailOpenTime)) // a stream that cannot be read fails below
		var ask tailAsk
		if err := readFrame(c, &ask); err != nil {
			return
		}
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		_ = c.SetReadDeadline(time.Time{})
		go func() { // the reader sends nothing more: an end means that it has gone
			_, _ = io.Copy(io.Discard, c)
			cancel()
		}()
		r, err := executor.Tail(ctx, ask.Key, ask.Stream, 0, ask.Follow)
		if err != nil {
			return
		}
		defer r.Close()
		_, _ = io.Copy(c, r) // whoever reads notices a cut by the attempt's state
	})
}

func readFrame(r io.Reader, v any) error {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	size := binary.BigEndian.Uint32(head[:])
	if size > maxTailAsk {
		return fmt.Errorf("frame of %d bytes", size)
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(r, body); err != nil {
		return err
	}
	return cbor.Unmarshal(body, v)
}

func writeFrame(w io.Writer, v any) error {
	body, err := cbor.Marshal(v)
	if err != nil {
		return err
	}
	_, err = w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...))
	return err
}

// logs sends the output of a job's tasks. Following, it goes on with tasks as they start, until the job has ended.
func (n *node) logs(r *http.Request, send func(any) error) error {
	id, err := jobID(r)
	if err != nil {
		return err
	}
	f := &follower{n: n, ctx: r.Context(), id: id, send: send, seen: make(map[int]queue.Epoch), follow: r.URL.Query().Get("follow") == "1"}
	if text := r.URL.Query().Get("task"); text != "" {
		task, err := number(text, "task")
		if err != nil {
			return err
		}
		f.id.Task = &task
	}
	if f.streams, err = logStreams(r.URL.Query().Get("stream")); err != nil {
		return err
	}
	if f.owner, err = n.resolve(id); err != nil {
		return err
	}
	view, err := f.round()
	if err != nil {
		return jobProblem(err)
	}
	if err := n.mayRead(r, view); err != nil {
		return err
	}
	return f.run()
}

func logStreams(asked string) ([]string, error) {
	switch asked {
	case "", api.StreamBoth:
		return []string{exec.Stdout, exec.Stderr}, nil
	case exec.Stdout, exec.Stderr:
		return []string{asked}, nil
	}
	return nil, server.Problem(api.CodeBadRequest, "", "stream %q: want stdout, stderr or both", asked)
}

// follower sends the output of one job to one reader.
type follower struct {
	n       *node
	ctx     context.Context // of the request
	id      queue.JobID
	owner   queue.SiteID
	streams []string
	follow  bool

	mu     sync.Mutex // guards what tasks in the background share
	send   func(any) error
	missed map[int]bool // tasks that ran, but gave nothing: not begun, or just ended; they are tried again

	seen    map[int]queue.Epoch // tasks whose output was or is being sent, by index
	tasks   []queue.TaskView    // as of the last round
	running sync.WaitGroup
}

// round asks how the job stands.
func (f *follower) round() (queue.JobView, error) {
	ctx, cancel := context.WithTimeout(f.ctx, askTimeout)
	defer cancel()
	view, tasks, err := f.n.allTasks(ctx, f.id)
	f.tasks = tasks
	return view, err
}

// run sends what there is; following, once for every change of the job.
func (f *follower) run() error {
	if !f.follow {
		return f.sendTasks(false)
	}
	defer f.running.Wait()
	if err := f.sendTasks(true); err != nil {
		return err
	}
	return jobProblem(f.n.jobs.service.Wait(f.ctx, f.id, func(queue.JobView) error {
		if _, err := f.round(); err != nil {
			return err
		}
		return f.sendTasks(true)
	}))
}

// sendTasks sends the output of every task that has not been sent yet: of ended ones at once, of running ones in a
// goroutine each if background is set.
func (f *follower) sendTasks(background bool) error {
	f.mu.Lock()
	for index := range f.missed {
		delete(f.seen, index)
	}
	f.missed = make(map[int]bool)
	f.mu.Unlock()
	for _, t := range f.tasks {
		if f.id.Task != nil && *f.id.Task != t.Index || f.seen[t.Index] == t.Epoch {
			continue
		}
		ended := !t.Ended.IsZero()
		if !ended && background && len(f.seen) >= logFollowers {
			continue // it comes when it has ended
		}
		f.seen[t.Index] = t.Epoch
		if !ended && background {
			f.running.Go(func() { f.sendTask(t) })
			continue
		}
		f.sendTask(t)
	}
	return f.ctx.Err()
}

// sendTask sends one task's streams. What cannot be read is said in the log itself: the other tasks go on.
func (f *follower) sendTask(t queue.TaskView) {
	var wg sync.WaitGroup
	var sent atomic.Int64
	for _, stream := range f.streams {
		wg.Go(func() {
			r, err := f.open(t, stream)
			if err == nil {
				err = f.copy(t.Index, stream, r, &sent)
				r.Close()
			}
			if err != nil && f.ctx.Err() == nil {
				f.chunk(t.Index, exec.Stderr, fmt.Appendf(nil, "vcpeer: %s of this task cannot be read: %v\n", stream, err))
			}
		})
	}
	wg.Wait()
	if t.Ended.IsZero() && sent.Load() == 0 {
		f.mu.Lock()
		f.missed[t.Index] = true
		f.mu.Unlock()
	}
}

// open finds a task's stream: as a blob when it has ended, else where it runs.
func (f *follower) open(t queue.TaskView, stream string) (io.ReadCloser, error) {
	if !t.Ended.IsZero() {
		file := t.Stdout
		if stream == exec.Stderr {
			file = t.Stderr
		}
		if file == nil {
			return io.NopCloser(&io.LimitedReader{}), nil
		}
		r, _, err := f.n.jobs.service.Open(f.ctx, file.Hash, f.holders(t)...)
		return r, err
	}
	key := site.AttemptKey(f.owner, queue.Ref{Job: f.id.Seq, Task: t.Index, Epoch: t.Epoch})
	if t.Node == f.n.self {
		r, err := f.n.jobs.executor.Tail(f.ctx, key, stream, 0, f.follow)
		if errors.Is(err, exec.ErrUnknown) {
			return io.NopCloser(&io.LimitedReader{}), nil // it is being prepared, or has just ended
		}
		return r, err
	}
	return f.n.openTail(f.ctx, t.Node, tailAsk{Key: key, Stream: stream, Follow: f.follow})
}

// holders are the nodes that surely had the output of an ended task: who ran it, and the nodes of the owner's site.
func (f *follower) holders(t queue.TaskView) []crdt.NodeID {
	ids := []crdt.NodeID{t.Node}
	for _, n := range f.n.directory.Nodes() {
		if n.Site == f.owner && n.Alive {
			ids = append(ids, n.ID)
		}
	}
	return ids
}

func (n *node) openTail(ctx context.Context, from crdt.NodeID, ask tailAsk) (io.ReadCloser, error) {
	openCtx, cancel := context.WithTimeout(ctx, tailOpenTime)
	defer cancel()
	c, err := n.fabric.Open(openCtx, from, execProtocol)
	if err != nil {
		return nil, err
	}
	if err := writeFrame(c, ask); err != nil {
		c.Close()
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { c.Close() })
	return closer{c, func() { stop() }}, nil
}

// closer is a stream with something to undo when it is closed.
type closer struct {
	net.Conn
	undo func()
}

func (c closer) Close() error {
	c.undo()
	return c.Conn.Close()
}

func (f *follower) copy(task int, stream string, r io.Reader, sent *atomic.Int64) error {
	buf := make([]byte, logChunk)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			sent.Add(int64(n))
			if err := f.chunk(task, stream, buf[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (f *follower) chunk(task int, stream string, data []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.send(api.LogChunk{Task: task, Stream: stream, Data: data})
}
