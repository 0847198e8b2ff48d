package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"syscall"
)

// maxAnswerBytes bounds an answer that is read whole: a list of 100,000 jobs is some 40 MB.
const maxAnswerBytes = 256 << 20

// Client speaks to the node whose unix socket it was given. It is safe for concurrent use and keeps few connections
// open. Every error it returns that came from the node, or from not reaching it, is a [*Problem]; the end of the
// caller's context comes back as that context's error. Deadlines are the caller's.
type Client struct {
	socket string
	http   *http.Client
}

// NewClient returns a client of the node that listens at socket. Nothing is dialled yet.
func NewClient(socket string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}
	return &Client{socket: socket, http: &http.Client{Transport: &http.Transport{
		DialContext:         dial,
		MaxIdleConnsPerHost: 4,
		DisableCompression:  true, // both ends are on one machine
	}}}
}

// Socket returns the path this client dials.
func (c *Client) Socket() string { return c.socket }

// Close lets go of idle connections; a closed client may still be used.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// call sends in as JSON (nothing when nil) and reads the answer into out (dropped when nil).
func (c *Client) call(ctx context.Context, method, path string, query url.Values, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("api: %s %s: %w", method, path, err)
		}
		body = bytes.NewReader(b)
	}
	resp, err := c.send(ctx, method, path, query, body, "application/json")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return c.decode(ctx, resp.Body, method+" "+path, out)
}

// decode reads one JSON value from an answer that was a success.
func (c *Client) decode(ctx context.Context, body io.Reader, what string, out any) error {
	b, err := io.ReadAll(io.LimitReader(body, maxAnswerBytes+1))
	if err != nil {
		return c.broken(ctx, err)
	}
	if len(b) > maxAnswerBytes {
		return &Problem{Code: CodeInternal, Message: fmt.Sprintf("%s: the answer is larger than %d MiB", what, maxAnswerBytes>>20)}
	}
	if out == nil || len(b) == 0 {
		return nil
	}
	if err := json.Unmarshal(b, out); err != nil {
		return &Problem{Code: CodeInternal, Message: fmt.Sprintf("%s: unreadable answer: %v", what, err),
			Hint: "is the daemon of another version? compare vcpeer version with vcpeer status"}
	}
	return nil
}

// send performs one request; the caller closes the body of a success, every other answer is turned into an error.
func (c *Client) send(ctx context.Context, method, path string, query url.Values, body io.Reader, kind string) (*http.Response, error) {
	u := url.URL{Scheme: "http", Host: "vcpeer", RawQuery: query.Encode()}
	if err := setPath(&u, path); err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), body)
	if err != nil {
		return nil, fmt.Errorf("api: %s %s: %w", method, path, err)
	}
	if body != nil {
		req.Header.Set("Content-Type", kind)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.unreached(ctx, err)
	}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	defer resp.Body.Close()
	return nil, problemOf(resp)
}

// setPath puts an escaped path into u, so that an ID such as "42.kyoto[7]" stays one segment.
func setPath(u *url.URL, escaped string) error {
	plain, err := url.PathUnescape(escaped)
	if err != nil {
		return fmt.Errorf("api: path %q: %w", escaped, err)
	}
	u.Path, u.RawPath = plain, escaped
	return nil
}

// problemOf reads the error that an answer carries; an answer without one gets a Problem by its status code.
func problemOf(resp *http.Response) error {
	var e struct {
		Error *Problem `json:"error"`
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err == nil && json.Unmarshal(b, &e) == nil && e.Error != nil && e.Error.Code != "" {
		return e.Error
	}
	code := CodeInternal
	switch resp.StatusCode {
	case http.StatusBadRequest:
		code = CodeBadRequest
	case http.StatusNotFound:
		code = CodeNotFound
	case http.StatusForbidden:
		code = CodeRefused
	case http.StatusServiceUnavailable:
		code = CodeUnavailable
	}
	return &Problem{Code: code, Message: fmt.Sprintf("the daemon answered %s without saying why", resp.Status)}
}

// unreached explains a request that got no answer: the caller gave up, nobody is at the socket, or the connection broke.
func (c *Client) unreached(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	p := &Problem{Code: CodeNoDaemon, Hint: "start one with: vcpeer start (or name another socket with --socket or VCPEER_SOCKET)"}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		p.Message = fmt.Sprintf("no vcpeer is running here: there is no socket %s", c.socket)
	case errors.Is(err, syscall.ECONNREFUSED):
		p.Message = fmt.Sprintf("no vcpeer is running here: nobody answers at %s, which an earlier one left behind", c.socket)
	case errors.Is(err, fs.ErrPermission):
		p.Message = fmt.Sprintf("not allowed to talk to the vcpeer at %s: permission denied", c.socket)
		p.Hint = "run as the user that started it, or join the group that owns the socket"
	case errors.Is(err, syscall.EINVAL):
		p.Message = fmt.Sprintf("the path of the socket is too long for the system (%d characters, at most 107): %s", len(c.socket), c.socket)
		p.Hint = "choose a shorter --dir or --socket"
	default:
		return c.broken(ctx, err)
	}
	return p
}

// broken explains an answer that ended before it was whole.
func (c *Client) broken(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var uerr *url.Error
	if errors.As(err, &uerr) {
		err = uerr.Err
	}
	return &Problem{Code: CodeUnavailable, Message: fmt.Sprintf("the daemon at %s broke off its answer: %v", c.socket, err),
		Hint: "did it stop? see vcpeer status"}
}
