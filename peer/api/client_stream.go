package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
)

// maxLineBytes bounds one value of a streaming answer.
const maxLineBytes = 16 << 20

// stream reads an answer of one JSON value a line (NDJSON). The sequence ends after the last value, or with an error
// and a zero value; a line {"error": …} is such an error. Leaving the loop early ends the request.
func stream[T any](ctx context.Context, c *Client, path string, query url.Values) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		var zero T
		resp, err := c.send(ctx, http.MethodGet, path, query, nil, "")
		if err != nil {
			yield(zero, err)
			return
		}
		defer resp.Body.Close()
		lines := bufio.NewReaderSize(resp.Body, 64<<10)
		for {
			line, err := readLine(lines)
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				yield(zero, c.broken(ctx, err))
				return
			}
			v, err := streamed[T](line)
			if !yield(v, err) || err != nil {
				return
			}
		}
	}
}

// readLine returns the next line that is not blank, without its end; io.EOF only between lines.
func readLine(r *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case len(line) > maxLineBytes:
			return nil, fmt.Errorf("a line of more than %d MiB", maxLineBytes>>20)
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case errors.Is(err, io.EOF) && len(bytes.TrimSpace(line)) > 0:
			return nil, io.ErrUnexpectedEOF
		case err != nil:
			return nil, err
		}
		if line = bytes.TrimSpace(line); len(line) > 0 {
			return line, nil
		}
	}
}

// streamed reads one line of a streaming answer.
func streamed[T any](line []byte) (T, error) {
	var v T
	var e struct {
		Error *Problem `json:"error"`
	}
	if err := json.Unmarshal(line, &e); err == nil && e.Error != nil {
		return v, e.Error
	}
	if err := json.Unmarshal(line, &v); err != nil {
		return v, &Problem{Code: CodeInternal, Message: fmt.Sprintf("unreadable line in the daemon's answer: %v", err)}
	}
	return v, nil
}
