package peer

import "sync"

// maxUploads bounds how many contents a user is remembered for; the oldest are forgotten and have to be sent again.
const maxUploads = 50_000

// uploads remembers which user has sent this node which content. A blob is named by its hash, which other users may come to
// know; only who has shown that he has the content may use it as an input. The memory ends with the daemon.
type uploads struct {
	mu sync.Mutex
	by map[uint32]*uploader
}

// uploader is one user's contents: known says which, order holds them by age.
type uploader struct {
	known map[string]bool
	order []string
}

func newUploads() *uploads { return &uploads{by: make(map[uint32]*uploader)} }

func (u *uploads) add(uid uint32, hash string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	w := u.by[uid]
	if w == nil {
		w = &uploader{known: make(map[string]bool)}
		u.by[uid] = w
	}
	if w.known[hash] {
		return
	}
	if len(w.order) == maxUploads {
		for _, old := range w.order[:maxUploads/2] {
			delete(w.known, old)
		}
		w.order = append(w.order[:0:0], w.order[maxUploads/2:]...)
	}
	w.known[hash] = true
	w.order = append(w.order, hash)
}

func (u *uploads) has(uid uint32, hash string) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	w := u.by[uid]
	return w != nil && w.known[hash]
}
