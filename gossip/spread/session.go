package spread

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
)

// session is one side of an exchange in turns, after which both stores have what either had. It does no I/O but the
// store's: the shell carries its messages.
//
//	opener: digest            →
//	                          ← digest; if they differ: heads
//	opener: missing, heads    →
//	                          ← missing
//	… while a side has more   ⇄
//
// So equal stores cost one round trip and 80 bytes, others two and what is missing. Ephemeral entries ride along.
type session struct {
	store Store
	limit limits
	fresh func(batches, ephemeral [][]byte) // gets what was new to this side

	turns     int
	gaveHeads bool
	gaveEph   bool
	agreed    bool // the last digests were equal
	first     pair // the first digests
	last      pair // the last ones
}

// pair is the digests of both sides at one time.
type pair struct{ own, theirs [16]byte }

// outcome is what a session did.
type outcome uint8

const (
	moved outcome = iota // at least one side got something new
	equal                // there was nothing to move
	stuck                // they differ, and yet neither took anything: refused, or not in order
)

func (s *session) outcome() outcome {
	switch {
	case s.first.own == s.first.theirs:
		return equal
	case s.first == s.last:
		return stuck
	}
	return moved
}

var errTurns = errors.New("spread: session: the peer does not come to an end")

// open returns the first message of the side that opens.
func (s *session) open() message { return s.turn() }

// turn returns a message with this side's digests.
func (s *session) turn() message {
	return message{Kind: kindTurn, Digest: s.store.Digest(), EphemeralSum: ephemeralSum(s.store.EphemeralDigest())}
}

func ephemeralSum(digest []byte) (sum [16]byte) {
	full := sha256.Sum256(digest)
	copy(sum[:], full[:])
	return sum
}

// step takes the peer's message in and returns the answer, and whether this side has anything left to say with it; the
// opener closes when not.
func (s *session) step(ctx context.Context, in message) (out message, more bool, err error) {
	if s.turns++; s.turns > s.limit.turns {
		return message{}, false, errTurns
	}
	switch in.Kind {
	case kindTurn:
	case kindBusy:
		return message{}, false, errBusy
	default:
		return message{}, false, fmt.Errorf("%w: message of kind %d", errPeer, in.Kind)
	}
	grew, err := s.take(ctx, in)
	if err != nil {
		return message{}, false, err
	}
	out = s.turn()
	s.last = pair{out.Digest, in.Digest}
	if s.turns == 1 {
		s.first = s.last
	}
	s.agreed = out.Digest == in.Digest
	if in.Ask {
		if out.Batches, out.More, err = s.store.Since(in.Heads, s.limit.chunkBytes); err != nil {
			return message{}, false, fmt.Errorf("spread: session: %w", err)
		}
	}
	// Heads are asked for anew only after they have moved, or a peer could keep us here with what we refuse.
	if !s.agreed && !s.gaveHeads || in.More && grew {
		out.Ask, out.Heads, s.gaveHeads = true, s.store.Heads(), true
	}
	if err := s.answerEphemeral(in, &out); err != nil {
		return message{}, false, err
	}
	more = out.Ask || out.AskEphemeral || len(out.Batches)+len(out.Ephemeral) > 0
	return out, more, nil
}

// take gives the store what came and passes on what was new. Batches that the store refuses do not end the session:
// the peer may have them from somebody else, and others may be good.
func (s *session) take(ctx context.Context, in message) (grew bool, err error) {
	var batches, entries [][]byte
	if len(in.Batches) > 0 {
		if batches, err = s.store.Receive(ctx, in.Batches); err != nil && ctx.Err() != nil {
			return false, err
		}
	}
	if len(in.Ephemeral) > 0 {
		entries, _ = s.store.ReceiveEphemeral(in.Ephemeral) // refused ones are not worth a word: they expire
	}
	if len(batches)+len(entries) > 0 {
		s.fresh(batches, entries)
	}
	return len(batches) > 0, nil
}

// answerEphemeral adds what the peer lacks, and once what this side has.
func (s *session) answerEphemeral(in message, out *message) (err error) {
	if in.AskEphemeral {
		if out.Ephemeral, err = s.store.EphemeralSince(in.EphemeralHas, s.limit.chunkBytes); err != nil {
			return fmt.Errorf("spread: session: %w", err)
		}
	}
	if !s.gaveEph && in.EphemeralSum != out.EphemeralSum {
		out.AskEphemeral, out.EphemeralHas, s.gaveEph = true, s.store.EphemeralDigest(), true
	}
	return nil
}
