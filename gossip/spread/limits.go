package spread

import "time"

// limits are all the numbers of this package, so that tests can tighten them.
type limits struct {
	fanout       int           // peers that a batch of this node is pushed to
	relay        int           // peers that a batch of another node is pushed on to
	lazy         int           // further peers that get the digest after a change
	ephemeral    int           // peers that fresh ephemeral entries go to
	gather       time.Duration // fresh batches within this time travel together
	gatherEph    time.Duration // the same for ephemeral entries, for which being late is harmless
	gatherUrgent time.Duration // the same for urgent ones
	urgentAll    int           // of so many peers an urgent entry goes to all; of more to some …
	urgentMore   int           // … namely so many beyond the logarithm of their number …
	urgentGap    time.Duration // … and after this time …
	urgentAgain  int           // … to so many others; of few peers, this is to how many what others say is passed on
	urgentBytes  int           // an urgent entry above this is an ordinary one, as it does not fit a datagram
	urgentRate   float64       // entries a second that this node treats as urgent …
	urgentBurst  int           // … after so many at once
	announceGap  time.Duration // two rounds of announcements are at least this far apart
	rounds       int           // rounds of announcements after a change, each to other peers …
	roundGap     time.Duration // … so far apart: together they miss a peer of 100 once in 10,000 changes
	settle       time.Duration // an announced digest that is still unknown after this is asked for
	session      time.Duration // pause between two sessions with random peers …
	sessionMax   time.Duration // … grows to this while all are found equal
	backOff      time.Duration // a peer that failed gets nothing for this long, doubled each time …
	backOffMax   time.Duration // … up to this
	pushes       int           // pushes under way at once
	boxBytes     int           // payload that waits for one peer; more becomes one session
	allBoxBytes  int           // the same over all peers
	history      int           // own digests that are remembered, to know a peer that is behind
	chunkBytes   int           // payload of one message of a session
	frameBytes   int           // largest message that is read; a single batch may be larger than a chunk
	turns        int           // messages of one session and side
	dialTime     time.Duration // for a stream to open
	frameTime    time.Duration // for one message to come or go
	sessionTime  time.Duration // for a whole session
	servePerPeer int           // streams of one peer served at once
	serveInAll   int           // streams served at once
}

// standard is what runs outside tests. The largest memory that peers can make this node use for messages is
// serveInAll × frameBytes.
func standard() limits {
	return limits{
		fanout: 3, relay: 2, lazy: 6, ephemeral: 3,
		gather: 20 * time.Millisecond, gatherEph: 500 * time.Millisecond,
		gatherUrgent: 5 * time.Millisecond, urgentAll: 24, urgentMore: 3, urgentGap: 300 * time.Millisecond, urgentAgain: 3, urgentBytes: 1100,
		urgentRate: 20, urgentBurst: 128,
		announceGap: 200 * time.Millisecond, rounds: 2, roundGap: 700 * time.Millisecond, settle: 350 * time.Millisecond,
		session: 5 * time.Second, sessionMax: 30 * time.Second,
		backOff: 2 * time.Second, backOffMax: time.Minute,
		pushes: 16, boxBytes: 64 << 10, allBoxBytes: 4 << 20, history: 256,
		chunkBytes: 256 << 10, frameBytes: 4 << 20, turns: 4096,
		dialTime: 5 * time.Second, frameTime: 15 * time.Second, sessionTime: 5 * time.Minute,
		servePerPeer: 2, serveInAll: 12,
	}
}
