// Package server is the mechanics of a node's local API: HTTP+JSON over a unix socket whose callers are known by the
// kernel's word, errors as api.Problem, long answers as NDJSON. What the API can do is in package peer, which
// registers its handlers here:
//
//	s := server.New(log)
//	s.Handle("GET /v1/status", func(r *http.Request) (any, error) { return status(), nil })
//	err := s.Serve(ctx, "/run/vcpeer/vcpeer.sock", 0o666)
package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"vcpeer/peer/api"
)

// maxBodyBytes bounds a JSON request; a script travels as a blob, so nothing honest comes near.
const maxBodyBytes = 4 << 20

// maxSocketPath is what sun_path holds on Linux (unix(7)), less the final NUL.
const maxSocketPath = 107

// Server routes requests. Register everything before Serve.
type Server struct {
	mux *http.ServeMux
	log *slog.Logger
}

// New returns a server without routes.
func New(log *slog.Logger) *Server { return &Server{mux: http.NewServeMux(), log: log} }

// Handle registers a handler whose result is sent as JSON with status 200, or whose error is sent as a Problem.
func (s *Server) Handle(pattern string, h func(r *http.Request) (any, error)) {
	s.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPut {
			r.Body = http.MaxBytesReader(w, r.Body, maxBodyBytes)
		}
		v, err := h(r)
		if err != nil {
			s.fail(w, r, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(v); err != nil {
			s.log.Debug("api: answer not sent", "path", r.URL.Path, "err", err)
		}
	})
}

// Raw registers an ordinary HTTP handler; allow may refuse the request with an error.
func (s *Server) Raw(pattern string, allow func(*http.Request) error, h http.Handler) {
	s.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		if err := allow(r); err != nil {
			s.fail(w, r, err)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// Stream registers a handler that sends any number of values as one JSON line each, flushed at once. An error after
// the first line is sent as a last line {"error": …}, before it as an ordinary Problem.
func (s *Server) Stream(pattern string, h func(r *http.Request, send func(any) error) error) {
	s.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		flusher := http.NewResponseController(w)
		enc := json.NewEncoder(w)
		begun := false
		begin := func() {
			if !begun {
				w.Header().Set("Content-Type", "application/x-ndjson")
				begun = true
			}
		}
		err := h(r, func(v any) error {
			begin()
			if v != nil {
				if err := enc.Encode(v); err != nil {
					return err
				}
			}
			return flusher.Flush()
		})
		switch {
		case err == nil:
			begin()
		case begun:
			_, problem := problemOf(err)
			_ = enc.Encode(wrapped{problem}) // the reader may be gone; there is nobody left to tell
		default:
			s.fail(w, r, err)
		}
	})
}

// Serve listens on the socket and answers until ctx ends; then it lets running requests end for up to 2 s. A socket
// file left by a process that is gone is replaced; one that answers is an error.
func (s *Server) Serve(ctx context.Context, socket string, mode os.FileMode) error {
	ln, err := listen(ctx, socket, mode)
	if err != nil {
		return err
	}
	base, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	hs := &http.Server{
		Handler:           s.recovered(s.mux),
		ConnContext:       withCaller,
		BaseContext:       func(net.Listener) context.Context { return base },
		ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		<-ctx.Done()
		grace, cancelGrace := context.WithTimeout(base, 2*time.Second)
		defer cancelGrace()
		time.AfterFunc(time.Second, cancel) // ends the streams that follow something
		if err := hs.Shutdown(grace); err != nil {
			hs.Close()
		}
	}()
	if err := hs.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("server: %w", err)
	}
	<-stopped
	return nil
}

func listen(ctx context.Context, socket string, mode os.FileMode) (net.Listener, error) {
	if len(socket) > maxSocketPath {
		return nil, fmt.Errorf("server: socket path has %d bytes, a unix socket allows %d: %s", len(socket), maxSocketPath, socket)
	}
	if err := os.MkdirAll(filepath.Dir(socket), 0o755); err != nil {
		return nil, fmt.Errorf("server: %w", err)
	}
	if conn, err := net.DialTimeout("unix", socket, time.Second); err == nil {
		conn.Close()
		return nil, Problem(api.CodeRefused, "look at it with: vcpeer --socket "+socket+" status (a second node on this machine needs its own --dir and --listen)",
			"another vcpeer runs here already: it answers at %s", socket)
	}
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("server: stale socket: %w", err)
	}
	ln, err := new(net.ListenConfig).Listen(ctx, "unix", socket)
	if err != nil {
		return nil, fmt.Errorf("server: %w", err)
	}
	if err := os.Chmod(socket, mode); err != nil {
		ln.Close()
		return nil, fmt.Errorf("server: %w", err)
	}
	return ln, nil
}

// recovered turns a panic of one handler into one failed answer: a request must never stop the daemon.
func (s *Server) recovered(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if v := recover(); v != nil && v != http.ErrAbortHandler {
				s.log.Error("api: handler panicked", "path", r.URL.Path, "panic", v, "stack", string(debug.Stack()))
				s.fail(w, r, fmt.Errorf("internal error: %v", v))
			}
		}()
		next.ServeHTTP(w, r)
	})
}
