package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"vcpeer/peer/api"
)

type wrapped struct {
	Error *api.Problem `json:"error"`
}

// Problem makes an error that the caller sees with this code. Hint says what to type next and may be empty.
func Problem(code, hint, format string, args ...any) error {
	return &api.Problem{Code: code, Message: fmt.Sprintf(format, args...), Hint: hint}
}

func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	status, problem := problemOf(err)
	if status == http.StatusInternalServerError {
		s.log.Error("api: request failed", "method", r.Method, "path", r.URL.Path, "err", err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(wrapped{problem}) // the caller may have hung up
}

var statusOf = map[string]int{
	api.CodeBadRequest:  http.StatusBadRequest,
	api.CodeNotFound:    http.StatusNotFound,
	api.CodeRefused:     http.StatusForbidden,
	api.CodeUnavailable: http.StatusServiceUnavailable,
	api.CodeBusy:        http.StatusTooManyRequests,
	api.CodeDeadline:    http.StatusGatewayTimeout,
	api.CodeInternal:    http.StatusInternalServerError,
}

// problemOf gives any error its HTTP status and its form for programs.
func problemOf(err error) (int, *api.Problem) {
	var p *api.Problem
	if errors.As(err, &p) {
		if status, known := statusOf[p.Code]; known {
			return status, p
		}
		return http.StatusInternalServerError, p
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return http.StatusGatewayTimeout, &api.Problem{Code: api.CodeDeadline, Message: err.Error(),
			Hint: "what this waits for did not answer in time; see `vcpeer status`"}
	}
	return http.StatusInternalServerError, &api.Problem{Code: api.CodeInternal, Message: err.Error()}
}

// Decode reads the JSON body of a request into v. Unknown fields are errors, so that a misspelt option is not ignored.
func Decode(r *http.Request, v any) error {
	dec := json.NewDecoder(r.Body)
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return Problem(api.CodeBadRequest, "", "request body: %v", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return Problem(api.CodeBadRequest, "", "request body: more than one value")
	}
	return nil
}
