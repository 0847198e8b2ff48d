package blob

import (
	"context"
	"encoding/hex"
	"errors"
	"io"
	"net"

	"vcpeer/crdt"
)

// serve answers the requests of one stream until the other side closes it, stalls or talks nonsense.
func (x *Exchange) serve(ctx context.Context, from crdt.NodeID, conn net.Conn) {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	c := moving{conn, x.lim.Stall}
	select {
	case x.serving <- struct{}{}:
		defer func() { <-x.serving }()
	default:
		var req request
		if x.codec.receive(c, &req) == nil {
			x.codec.send(c, &answer{Code: codeBusy})
		}
		return
	}
	for {
		var req request
		err := x.codec.receive(c, &req)
		if errors.Is(err, errWire) {
			x.codec.send(c, &answer{Code: codeBad, Text: "malformed request"})
		}
		if err != nil {
			return
		}
		if x.answer(ctx, from, c, &req) != nil {
			return
		}
	}
}

// answer handles one request; an error ends the stream.
func (x *Exchange) answer(ctx context.Context, from crdt.NodeID, c moving, req *request) error {
	switch req.Op {
	case opGet:
		return x.serveGet(c, req)
	case opPut:
		return x.servePut(ctx, from, c, req)
	default:
		ans := answer{Code: codeOK, Have: make([]bool, len(req.Hashes))}
		for i, h := range req.Hashes {
			ans.Have[i] = x.store.Has(hex.EncodeToString(h))
		}
		return x.codec.send(c, &ans)
	}
}

func (x *Exchange) serveGet(c moving, req *request) error {
	r, size, err := x.store.Open(hex.EncodeToString(req.Hash))
	if errors.Is(err, ErrNotFound) {
		return x.codec.send(c, &answer{Code: codeNotFound})
	}
	if err != nil {
		return x.codec.send(c, &answer{Code: codeFailed, Text: "cannot read the blob"})
	}
	defer r.Close()
	offset := min(req.Offset, size)
	if _, err := r.Seek(offset, io.SeekStart); err != nil {
		return x.codec.send(c, &answer{Code: codeFailed, Text: "cannot read the blob"})
	}
	if err := x.codec.send(c, &answer{Code: codeOK, Size: size, Offset: offset}); err != nil {
		return err
	}
	return x.copyOut(c, r, size-offset)
}

// copyOut sends exactly n bytes of r, or fails.
func (x *Exchange) copyOut(c moving, r io.Reader, n int64) error {
	buf := x.store.buf.Get().(*[chunkBytes]byte)
	defer x.store.buf.Put(buf)
	sent, err := io.CopyBuffer(struct{ io.Writer }{c}, io.LimitReader(r, n), buf[:])
	if err == nil && sent < n {
		err = io.ErrUnexpectedEOF // the file is shorter than it was: the stream must not go on
	}
	return err
}

// servePut takes a pushed blob.
func (x *Exchange) servePut(ctx context.Context, from crdt.NodeID, c moving, req *request) error {
	hash := hex.EncodeToString(req.Hash)
	if x.store.hold(hash) {
		return x.codec.send(c, &answer{Code: codeHave, Size: req.Size, Offset: req.Size})
	}
	if req.Size > x.store.opt.MaxBytes {
		return x.codec.send(c, &answer{Code: codeFull, Text: ErrTooLarge.Error()})
	}
	if !x.own(hash) {
		return x.codec.send(c, &answer{Code: codeBusy})
	}
	defer x.disown(hash)
	p, err := x.store.openPartial(hash)
	if err != nil {
		return x.codec.send(c, &answer{Code: codeFailed, Text: "cannot write the blob"})
	}
	defer p.close()
	if p.size > req.Size {
		if err := p.reset(); err != nil {
			return err
		}
	}
	if err := x.store.room(req.Size - p.size); err != nil {
		return x.codec.send(c, refusal(err))
	}
	if err := x.codec.send(c, &answer{Code: codeOK, Size: req.Size, Offset: p.size}); err != nil {
		return err
	}
	if err := p.receive(ctx, from, c, req.Size); err != nil {
		if isLocal(err) {
			x.codec.send(c, refusal(err)) // the sender hears it when it has filled the line
		}
		return err
	}
	if err := p.finish(); err != nil {
		return x.codec.send(c, refusal(err))
	}
	return x.codec.send(c, &answer{Code: codeHave, Size: req.Size, Offset: req.Size})
}

// refusal tells the sender what it can use of an error, and no paths.
func refusal(err error) *answer {
	for _, known := range []error{ErrNoSpace, ErrQuota, ErrTooLarge} {
		if errors.Is(err, known) {
			return &answer{Code: codeFull, Text: known.Error()}
		}
	}
	if errors.Is(err, ErrCorrupt) {
		return &answer{Code: codeBad, Text: ErrCorrupt.Error()}
	}
	return &answer{Code: codeFailed, Text: "cannot write the blob"}
}
