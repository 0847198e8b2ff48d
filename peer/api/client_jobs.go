package api

import (
	"context"
	"errors"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strconv"
)

// Blob is what the blob store answers: the name of a content and its length in bytes.
type Blob struct {
	Hash string `json:"hash"`
	Size int64  `json:"size"`
}

// JobsAsk says which jobs to list. The zero value: the caller's jobs that have not ended, at every site.
type JobsAsk struct {
	All   bool   // also those that have ended
	User  string // of this user; empty: the caller; "*": everybody
	Site  string // submitted at this site; empty: all; ".": the site of the node that answers
	Limit int    // at most so many, the newest; 0: the node's own limit
}

// Streams of a task's output, for [LogsAsk].
const (
	StreamOut  = "stdout"
	StreamErr  = "stderr"
	StreamBoth = "both"
)

// LogsAsk says which output to read.
type LogsAsk struct {
	Task   *int   // one task; nil: all
	Stream string // StreamOut, StreamErr or StreamBoth; empty: both
	Follow bool   // go on until the job has ended
}

// PutBlob stores a content of any length; r is read once. Storing what is there already is harmless.
func (c *Client) PutBlob(ctx context.Context, r io.Reader) (*Blob, error) {
	resp, err := c.send(ctx, http.MethodPut, "/v1/blobs", nil, io.NopCloser(r), "application/octet-stream")
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b := new(Blob)
	if err := c.decode(ctx, resp.Body, "PUT /v1/blobs", b); err != nil {
		return nil, err
	}
	return b, nil
}

// HasBlob reports whether the store holds a content already.
func (c *Client) HasBlob(ctx context.Context, hash string) (bool, error) {
	resp, err := c.send(ctx, http.MethodHead, "/v1/blobs/"+url.PathEscape(hash), nil, nil, "")
	var p *Problem
	if errors.As(err, &p) && p.Code == CodeNotFound {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, resp.Body.Close()
}

// Submit hands in a job. On return it is durable; a repeated call with the same key returns the same job.
func (c *Client) Submit(ctx context.Context, s Submit) (*Submitted, error) {
	return post[Submitted](ctx, c, "/v1/jobs", s)
}

// Jobs lists jobs, newest first.
func (c *Client) Jobs(ctx context.Context, ask JobsAsk) (*List[Job], error) {
	q := url.Values{}
	if ask.All {
		q.Set("all", "1")
	}
	if ask.User != "" {
		q.Set("user", ask.User)
	}
	if ask.Site != "" {
		q.Set("site", ask.Site)
	}
	if ask.Limit > 0 {
		q.Set("limit", strconv.Itoa(ask.Limit))
	}
	return get[List[Job]](ctx, c, "/v1/jobs", q)
}

// Job returns one job with its tasks. An ID without a site means this node's site.
func (c *Client) Job(ctx context.Context, id string) (*JobDetail, error) {
	return get[JobDetail](ctx, c, jobPath(id, ""), nil)
}

// Why explains what a job waits for, or how it ended.
func (c *Client) Why(ctx context.Context, id string) (*Why, error) {
	return get[Why](ctx, c, jobPath(id, "/why"), nil)
}

// Logs yields a job's output in pieces, each whole as it was written as far as possible.
func (c *Client) Logs(ctx context.Context, id string, ask LogsAsk) iter.Seq2[LogChunk, error] {
	q := url.Values{}
	if ask.Task != nil {
		q.Set("task", strconv.Itoa(*ask.Task))
	}
	if ask.Stream != "" {
		q.Set("stream", ask.Stream)
	}
	if ask.Follow {
		q.Set("follow", "1")
	}
	return stream[LogChunk](ctx, c, jobPath(id, "/logs"), q)
}

// Cancel ends a job, or one task of it when task is not nil.
func (c *Client) Cancel(ctx context.Context, id string, task *int) (*Cancelled, error) {
	q := url.Values{}
	if task != nil {
		q.Set("task", strconv.Itoa(*task))
	}
	v := new(Cancelled)
	if err := c.call(ctx, http.MethodPost, jobPath(id, "/cancel"), q, nil, v); err != nil {
		return nil, err
	}
	return v, nil
}

// Wait yields a job whenever it has changed, the first time at once, and ends after it has ended.
func (c *Client) Wait(ctx context.Context, id string) iter.Seq2[Job, error] {
	return stream[Job](ctx, c, jobPath(id, "/wait"), nil)
}

func jobPath(id, rest string) string { return "/v1/jobs/" + url.PathEscape(id) + rest }
