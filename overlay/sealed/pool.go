package sealed

import "sync"

// classes are the sizes of the memory that frames wait in.
var classes = [...]int{2 << 10, 10 << 10, largestFrame}

// largestFrame is a packet of 64 KiB with all that may stand before it.
const largestFrame = 64<<10 + 512

// keptBytes is how much memory of a class is kept for later.
const keptBytes = 4 << 20

// pool gives memory for packets.
type pool struct {
	mu   sync.Mutex
	free [len(classes)]*packet
	kept [len(classes)]int
}

func classOf(n int) int {
	for i, size := range classes {
		if n <= size {
			return i
		}
	}
	return len(classes) - 1
}

// get returns a packet with memory for n bytes, at most largestFrame.
func (l *pool) get(n int) *packet {
	c := classOf(n)
	l.mu.Lock()
	p := l.free[c]
	if p != nil {
		l.free[c], p.next = p.next, nil
		l.kept[c] -= classes[c]
	}
	l.mu.Unlock()
	if p == nil {
		p = &packet{memory: make([]byte, classes[c])}
	}
	return p
}

func (l *pool) put(p *packet) {
	c := classOf(len(p.memory))
	*p = packet{memory: p.memory}
	l.mu.Lock()
	if l.kept[c] < keptBytes {
		p.next, l.free[c] = l.free[c], p
		l.kept[c] += classes[c]
	}
	l.mu.Unlock()
}

// Release gives memory back that holds datagrams.
func (p *packet) Release() { p.home.put(p) }
