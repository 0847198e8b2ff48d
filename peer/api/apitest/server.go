// Package apitest stands in for a node's API in tests: canned answers over a real unix socket, and a record of what
// was asked. Only tests may import it.
//
//	s := apitest.Start(t, apitest.Routes{"GET /v1/status": api.Status{Well: true}})
//	st, err := api.NewClient(s.Socket).Status(ctx)
package apitest

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"vcpeer/peer/api"
)

// Routes maps patterns of [http.ServeMux] to answers: an http.HandlerFunc or a func of that type runs as it is, an
// *api.Problem is sent with its status, a [Lines] as NDJSON, nil as 204, and anything else as JSON.
type Routes map[string]any

// Lines is a streaming answer; an *api.Problem in it is sent as an error line.
type Lines []any

// Asked is one request that came in.
type Asked struct {
	Method, Path, Query, Body string
}

// Server is a fake node.
type Server struct {
	Socket string

	mu    sync.Mutex
	asked []Asked
}

// Start serves routes until the test ends.
func Start(t testing.TB, routes Routes) *Server {
	t.Helper()
	dir, err := os.MkdirTemp("", "vc") // t.TempDir can be longer than a socket's path may be
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := &Server{Socket: filepath.Join(dir, "s")}
	ln, err := net.Listen("unix", s.Socket)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	for pattern, answer := range routes {
		mux.HandleFunc(pattern, handler(answer))
	}
	hs := &http.Server{Handler: s.record(mux)}
	done := make(chan struct{})
	go func() { defer close(done); _ = hs.Serve(ln) }()
	t.Cleanup(func() { _ = hs.Close(); <-done })
	return s
}

// Asked returns the requests so far, in the order of their arrival.
func (s *Server) Asked() []Asked {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Asked(nil), s.asked...)
}

// record keeps each request and lets the next handler read its body again.
func (s *Server) record(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		s.mu.Lock()
		s.asked = append(s.asked, Asked{r.Method, r.URL.Path, r.URL.RawQuery, string(body)})
		s.mu.Unlock()
		r.Body = io.NopCloser(bytes.NewReader(body))
		next.ServeHTTP(w, r)
	})
}

func handler(answer any) http.HandlerFunc {
	switch a := answer.(type) {
	case http.HandlerFunc:
		return a
	case func(http.ResponseWriter, *http.Request):
		return a
	case *api.Problem:
		return func(w http.ResponseWriter, _ *http.Request) { WriteProblem(w, a) }
	case Lines:
		return func(w http.ResponseWriter, _ *http.Request) {
			for _, v := range a {
				WriteLine(w, v)
			}
		}
	case nil:
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }
	}
	return func(w http.ResponseWriter, _ *http.Request) { WriteLine(w, answer) }
}
