package sealed

// joiner puts segments of one packet together again. That they belong together is known from how they were sealed, not
// from their headers: each is the next after the one before, by counter and by what the sender says.
type joiner struct {
	parts   [][]byte // the first segment's frame, then payloads
	of      meta     // of the first
	l       layout
	size    int // payload of the first; all but the last are as large
	payload int
	ended   bool // a shorter one came: it was the last
	key     *epochKey
	next    uint64 // counter of the next segment
	via     *peer  // whose it is
}

// maxJoined is how many segments are put together: what one system call takes with ease.
const maxJoined = 128

func newJoiner() joiner { return joiner{parts: make([][]byte, 0, maxJoined)} }

func (j *joiner) empty() bool { return len(j.parts) == 0 }

// begin starts a packet with a segment. The layout is checked already when m was parsed.
func (j *joiner) begin(via *peer, key *epochKey, counter uint64, m meta, frame []byte) {
	l, err := m.shape().check(frame)
	if err != nil {
		panic("sealed: a segment was not checked")
	}
	*j = joiner{parts: append(j.parts[:0], frame), of: m, l: l, size: len(frame) - l.headers, payload: len(frame) - l.headers,
		key: key, next: counter + 1, via: via}
}

// add joins a segment to those before; false: it does not belong to them.
func (j *joiner) add(key *epochKey, counter uint64, m meta, frame []byte) bool {
	if j.empty() || m.how&howJoins == 0 || key != j.key || counter != j.next || j.ended || len(j.parts) == maxJoined {
		return false
	}
	if m.key != j.of.key || m.how&howSamePiece != j.of.how&howSamePiece || m.start != j.of.start || m.headers != j.of.headers {
		return false
	}
	payload := len(frame) - j.l.headers
	if payload <= 0 || payload > j.size || j.l.headers-j.l.net+j.payload+payload > 0xffff {
		return false
	}
	if !j.l.udp {
		last := frame[j.l.start+tcpFlags]
		j.parts[0][j.l.start+tcpFlags] |= last & (flagFIN | flagPSH)
	}
	j.parts = append(j.parts, frame[j.l.headers:])
	j.payload += payload
	j.ended = payload < j.size
	j.next++
	return true
}

// take returns the packet that was joined, as parts one after the other, and its virtio header; the joiner is empty then.
func (j *joiner) take() (parts [][]byte, v virtio) {
	parts = j.parts
	if len(parts) > 1 {
		j.l.resize(parts[0], j.payload, j.l.pseudo(parts[0]))
		v = virtio{flags: virtioOpen, headers: uint16(j.l.headers), size: uint16(j.size),
			start: uint16(j.l.start), check: uint16(j.l.checkAt())}
		switch {
		case j.l.udp:
			v.kind = virtioUDP
		case j.l.v6:
			v.kind = virtioTCP6
		default:
			v.kind = virtioTCP4
		}
	} else {
		v = virtio{flags: virtioOpen, start: uint16(j.l.start), check: uint16(j.l.checkAt())}
	}
	j.parts, j.ended = j.parts[:0], false
	return parts, v
}
