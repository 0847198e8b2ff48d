package api_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vcpeer/peer/api"
	"vcpeer/peer/api/apitest"
)

func problem(t *testing.T, err error, code, text string) {
	t.Helper()
	var p *api.Problem
	if !errors.As(err, &p) || p.Code != code || !strings.Contains(p.Message, text) {
		t.Errorf("got error %#v, want %s with %q", err, code, text)
	}
}

func TestNobodyThere(t *testing.T) {
	dir, err := os.MkdirTemp("", "vc")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	left := filepath.Join(dir, "left")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: left})
	if err != nil {
		t.Fatal(err)
	}
	ln.SetUnlinkOnClose(false)
	ln.Close()
	for _, tt := range []struct{ socket, want string }{
		{filepath.Join(dir, "none"), "there is no socket " + dir},
		{left, "an earlier one left behind"},
		{filepath.Join(dir, strings.Repeat("x", 200)), "too long"},
	} {
		_, err := api.NewClient(tt.socket).Status(t.Context())
		problem(t, err, api.CodeNoDaemon, tt.want)
	}
	if os.Getuid() != 0 { // root may connect to anything
		if err := os.Chmod(left, 0); err != nil {
			t.Fatal(err)
		}
		_, err := api.NewClient(left).Status(t.Context())
		problem(t, err, api.CodeNoDaemon, "permission denied")
	}
}

func TestErrorsOfTheNode(t *testing.T) {
	s := apitest.Start(t, apitest.Routes{
		"GET /v1/jobs/{id}": &api.Problem{Code: api.CodeNotFound, Message: "no job 9.kyoto", Hint: "see vcpeer jobs -a"},
		"GET /v1/sites":     func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "<html>", http.StatusServiceUnavailable) },
		"GET /v1/hosts":     func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "{") },
		"GET /v1/members":   func(w http.ResponseWriter, _ *http.Request) { panic(http.ErrAbortHandler) },
	})
	c := api.NewClient(s.Socket)
	defer c.Close()
	_, err := c.Job(t.Context(), "9.kyoto")
	problem(t, err, api.CodeNotFound, "no job 9.kyoto")
	_, err = c.Sites(t.Context())
	problem(t, err, api.CodeUnavailable, "503")
	_, err = c.Hosts(t.Context())
	problem(t, err, api.CodeInternal, "unreadable answer")
	_, err = c.Members(t.Context())
	problem(t, err, api.CodeUnavailable, "broke off")
}

func TestPathsAndQueries(t *testing.T) {
	s := apitest.Start(t, apitest.Routes{"/": map[string]any{}})
	c := api.NewClient(s.Socket)
	defer c.Close()
	task := 7
	_, _ = c.Cancel(t.Context(), "42.kyoto", &task)
	_, _ = c.Jobs(t.Context(), api.JobsAsk{All: true, User: "*", Site: ".", Limit: 3})
	_, _ = c.Job(t.Context(), "a/b[7]?x")
	_ = c.RemoveFromGroup(t.Context(), "g/1", "ann")
	_ = c.SetKeys(t.Context(), "ann", nil)
	want := []apitest.Asked{
		{Method: "POST", Path: "/v1/jobs/42.kyoto/cancel", Query: "task=7"},
		{Method: "GET", Path: "/v1/jobs", Query: "all=1&limit=3&site=.&user=%2A"},
		{Method: "GET", Path: "/v1/jobs/a/b[7]?x"},
		{Method: "DELETE", Path: "/v1/groups/g/1/members/ann"},
		{Method: "PUT", Path: "/v1/accounts/ann/keys", Body: "[]"},
	}
	got := s.Asked()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("\n got %v\nwant %v", got, want)
	}
}

func TestStream(t *testing.T) {
	bad := &api.Problem{Code: api.CodeUnavailable, Message: "site osaka fell silent"}
	s := apitest.Start(t, apitest.Routes{
		"GET /v1/jobs/1/wait": apitest.Lines{api.Job{State: "pending"}, api.Job{State: "done"}},
		"GET /v1/jobs/2/wait": apitest.Lines{api.Job{State: "running"}, bad, api.Job{State: "never"}},
		"GET /v1/jobs/3/wait": func(w http.ResponseWriter, _ *http.Request) {
			apitest.WriteLine(w, api.Job{State: "running"})
			fmt.Fprint(w, `{"state":"do`) // the node dies in the middle of a line
		},
		"GET /v1/jobs/4/wait": func(w http.ResponseWriter, _ *http.Request) {
			apitest.WriteLine(w, api.Job{State: "running"})
			panic(http.ErrAbortHandler)
		},
	})
	c := api.NewClient(s.Socket)
	defer c.Close()
	for _, tt := range []struct{ id, states, code string }{
		{"1", "pending done", ""},
		{"2", "running", api.CodeUnavailable},
		{"3", "running", api.CodeUnavailable},
		{"4", "running", api.CodeUnavailable},
		{"5", "", api.CodeNotFound},
	} {
		var states []string
		var failed error
		for j, err := range c.Wait(t.Context(), tt.id) {
			if failed = err; err == nil {
				states = append(states, j.State)
			}
		}
		if got := strings.Join(states, " "); got != tt.states {
			t.Errorf("job %s: states %q, want %q", tt.id, got, tt.states)
		}
		if tt.code == "" && failed != nil {
			t.Errorf("job %s: %v", tt.id, failed)
		} else if tt.code != "" {
			problem(t, failed, tt.code, "")
		}
	}
}

func TestLeavingALoopEndsTheRequest(t *testing.T) {
	ended := make(chan struct{})
	s := apitest.Start(t, apitest.Routes{"GET /v1/events": func(w http.ResponseWriter, r *http.Request) {
		apitest.WriteLine(w, api.Event{Text: "first"})
		<-r.Context().Done()
		close(ended)
	}})
	c := api.NewClient(s.Socket)
	defer c.Close()
	for ev, err := range c.Events(t.Context(), true, time.Time{}) {
		if err != nil || ev.Text != "first" {
			t.Fatal(ev, err)
		}
		break
	}
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Error("the request goes on after its loop was left")
	}
}

func TestCallersDeadline(t *testing.T) {
	s := apitest.Start(t, apitest.Routes{"GET /v1/status": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }})
	c := api.NewClient(s.Socket)
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := c.Status(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the context's own error", err)
	}
}

func TestBlobs(t *testing.T) {
	s := apitest.Start(t, apitest.Routes{
		"PUT /v1/blobs": api.Blob{Hash: "ab", Size: 5},
		"HEAD /v1/blobs/{hash}": func(w http.ResponseWriter, r *http.Request) {
			if r.PathValue("hash") != "ab" {
				w.WriteHeader(http.StatusNotFound)
			}
		},
	})
	c := api.NewClient(s.Socket)
	defer c.Close()
	if b, err := c.PutBlob(t.Context(), strings.NewReader("hello")); err != nil || b.Hash != "ab" || b.Size != 5 {
		t.Errorf("put: %v %v", b, err)
	}
	for hash, want := range map[string]bool{"ab": true, "cd": false} {
		if got, err := c.HasBlob(t.Context(), hash); err != nil || got != want {
			t.Errorf("has %s: %v %v", hash, got, err)
		}
	}
}
