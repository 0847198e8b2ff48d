package apitest

import (
	"encoding/json"
	"net/http"

	"vcpeer/peer/api"
)

// WriteProblem answers with an error as a node does.
func WriteProblem(w http.ResponseWriter, p *api.Problem) {
	status := http.StatusInternalServerError
	switch p.Code {
	case api.CodeBadRequest:
		status = http.StatusBadRequest
	case api.CodeNotFound:
		status = http.StatusNotFound
	case api.CodeRefused:
		status = http.StatusForbidden
	case api.CodeUnavailable:
		status = http.StatusServiceUnavailable
	}
	w.WriteHeader(status)
	WriteLine(w, p)
}

// WriteLine sends one value as a line and flushes it; a Problem goes under the key "error".
func WriteLine(w http.ResponseWriter, v any) {
	if p, ok := v.(*api.Problem); ok {
		v = map[string]any{"error": p}
	}
	_ = json.NewEncoder(w).Encode(v)
	if f, ok := w.(http.Flusher); ok {
		f.Flush()
	}
}

// List wraps items as a node's answer that every site contributed to.
func List[T any](kind string, items ...T) api.List[T] {
	if items == nil {
		items = []T{}
	}
	return api.List[T]{APIVersion: api.Version, Kind: kind, Items: items,
		SeenFrom: api.Place{Node: "kyoto-1", Site: "kyoto"}, Heard: api.Heard{Sites: 3, Of: 3}}
}
