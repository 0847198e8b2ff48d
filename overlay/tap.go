package overlay

import (
	"errors"
	"net"
	"os"
	"sync/atomic"

	"vcpeer/overlay/sealed"
)

// tap is the TAP of the sealed links, which comes and goes with the bridge while the links and their keys stay. While there is
// none, nothing is read, and what is written is lost.
type tap struct {
	now  atomic.Pointer[namedTAP] // nil: there is none
	came chan struct{}            // holds one: there is another
	over chan struct{}            // closed by Close
	gone func()                   // called when it has gone by itself
}

type namedTAP struct {
	*sealed.TAP
	name string
}

func newTAP() *tap {
	return &tap{came: make(chan struct{}, 1), over: make(chan struct{}), gone: func() {}}
}

var _ sealed.Device = (*tap)(nil)

// is reports whether the TAP of the name is there.
func (t *tap) is(name string) bool {
	d := t.now.Load()
	return d != nil && d.name == name
}

// open makes the TAP of the name, or takes over the one that an earlier daemon left.
func (t *tap) open(name string) error {
	d, err := sealed.OpenTAP(name, sealed.TAPOptions{MTU: tapMTU, Persist: true})
	if err != nil {
		return err
	}
	if old := t.now.Swap(&namedTAP{d, name}); old != nil {
		old.Close()
	}
	poke(t.came)
	return nil
}

// drop gives up a TAP that has gone.
func (t *tap) drop(d *namedTAP) {
	if t.now.CompareAndSwap(d, nil) {
		d.Close()
		t.gone()
	}
}

// Read implements [sealed.Device]. It has one caller at a time.
func (t *tap) Read(b []byte, wait bool) (int, error) {
	for {
		if d := t.now.Load(); d != nil {
			n, err := d.Read(b, wait)
			if err == nil {
				return n, nil
			}
			t.drop(d)
		}
		if !wait {
			return 0, nil
		}
		select {
		case <-t.over:
			return 0, os.ErrClosed
		case <-t.came:
		}
	}
}

var errNoTAP = errors.New("overlay: there is no TAP")

// Write implements [sealed.Device].
func (t *tap) Write(parts ...[]byte) error {
	if d := t.now.Load(); d != nil {
		return d.Write(parts...)
	}
	return errNoTAP
}

// Offloads implements [sealed.Device]: none, since the bridge knows none.
func (t *tap) Offloads() bool { return false }

// MAC implements [sealed.Device].
func (t *tap) MAC() net.HardwareAddr {
	if d := t.now.Load(); d != nil {
		return d.MAC()
	}
	return make(net.HardwareAddr, 6)
}

// Close implements [sealed.Device]; once only.
func (t *tap) Close() error {
	close(t.over)
	if d := t.now.Swap(nil); d != nil {
		return d.Close()
	}
	return nil
}
