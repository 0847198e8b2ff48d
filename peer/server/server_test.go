package server_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vcpeer/peer/api"
	"vcpeer/peer/server"
)

// serve starts a server on a socket of its own and returns a client for it.
func serve(t *testing.T, register func(*server.Server)) (*http.Client, string) {
	t.Helper()
	s := server.New(slog.New(slog.NewTextHandler(io.Discard, nil)))
	register(s)
	socket := filepath.Join(t.TempDir(), "s.sock")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, socket, 0o600) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}
	t.Cleanup(client.CloseIdleConnections)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for range tick.C {
		if conn, err := net.Dial("unix", socket); err == nil {
			conn.Close()
			return client, socket
		}
		if t.Context().Err() != nil {
			t.Fatal("the socket never answered")
		}
	}
	return nil, ""
}

func body(t *testing.T, c *http.Client, method, path, send string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://vcpeer"+path, strings.NewReader(send))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, strings.TrimSpace(string(got))
}

func TestAnswersAndProblems(t *testing.T) {
	client, _ := serve(t, func(s *server.Server) {
		s.Handle("GET /caller", func(r *http.Request) (any, error) {
			c, ok := server.CallerOf(r.Context())
			return map[string]any{"uid": c.UID, "known": ok}, nil
		})
		s.Handle("GET /missing", func(*http.Request) (any, error) {
			return nil, server.Problem(api.CodeNotFound, "vcpeer jobs -a", "no job %d", 7)
		})
		s.Handle("GET /broken", func(*http.Request) (any, error) { return nil, errors.New("disk on fire") })
		s.Handle("GET /panic", func(*http.Request) (any, error) { panic("out of cheese") })
		s.Handle("GET /late", func(*http.Request) (any, error) { return nil, context.DeadlineExceeded })
		s.Handle("POST /decode", func(r *http.Request) (any, error) {
			var v struct {
				Name string `json:"name"`
			}
			return &v, server.Decode(r, &v)
		})
	})
	uid, _ := json.Marshal(os.Getuid())
	for _, tt := range []struct {
		method, path, send string
		status             int
		want               string
	}{
		{"GET", "/caller", "", 200, `{"known":true,"uid":` + string(uid) + `}`},
		{"GET", "/missing", "", 404, `{"error":{"code":"NOT_FOUND","message":"no job 7","hint":"vcpeer jobs -a"}}`},
		{"GET", "/broken", "", 500, `"code":"INTERNAL"`},
		{"GET", "/panic", "", 500, `out of cheese`},
		{"GET", "/late", "", 504, `"code":"DEADLINE"`},
		{"POST", "/decode", `{"name":"a"}`, 200, `{"name":"a"}`},
		{"POST", "/decode", `{"nmae":"a"}`, 400, `unknown field \"nmae\"`},
		{"POST", "/decode", `{"name":"a"}{}`, 400, `more than one value`},
		{"POST", "/decode", `{"name":"` + strings.Repeat("x", 5<<20) + `"}`, 400, `too large`},
	} {
		status, got := body(t, client, tt.method, tt.path, tt.send)
		if status != tt.status || !strings.Contains(got, tt.want) {
			t.Errorf("%s %s: got %d %s, want %d with %s", tt.method, tt.path, status, got, tt.status, tt.want)
		}
	}
}

func TestStreamSaysItsError(t *testing.T) {
	client, _ := serve(t, func(s *server.Server) {
		s.Stream("GET /cut", func(_ *http.Request, send func(any) error) error {
			if err := send(map[string]int{"line": 1}); err != nil {
				return err
			}
			return server.Problem(api.CodeUnavailable, "", "site osaka is gone")
		})
		s.Stream("GET /none", func(*http.Request, func(any) error) error {
			return server.Problem(api.CodeNotFound, "", "no such job")
		})
	})
	if status, got := body(t, client, "GET", "/cut", ""); status != 200 ||
		got != `{"line":1}`+"\n"+`{"error":{"code":"UNAVAILABLE","message":"site osaka is gone"}}` {
		t.Errorf("cut stream: %d %q", status, got)
	}
	if status, got := body(t, client, "GET", "/none", ""); status != 404 || !strings.Contains(got, "no such job") {
		t.Errorf("stream refused at once: %d %q", status, got)
	}
}

func TestSocketOfTheLivingIsKept(t *testing.T) {
	_, socket := serve(t, func(*server.Server) {})
	err := server.New(slog.Default()).Serve(t.Context(), socket, 0o600)
	if err == nil || !strings.Contains(err.Error(), "another vcpeer runs here already") {
		t.Errorf("second server on one socket: %v", err)
	}
}

func TestSocketOfTheDeadIsReplaced(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "dead.sock")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	ln.SetUnlinkOnClose(false)
	ln.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := server.New(slog.Default()).Serve(ctx, socket, 0o600); err != nil {
		t.Errorf("stale socket: %v", err)
	}
}

func TestLongSocketPathIsExplained(t *testing.T) {
	err := server.New(slog.Default()).Serve(t.Context(), "/tmp/"+string(bytes.Repeat([]byte("x"), 200)), 0o600)
	if err == nil || !strings.Contains(err.Error(), "a unix socket allows") {
		t.Errorf("long path: %v", err)
	}
}
