package relay

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

const (
	holdEvery = 2 * time.Second // a member's word that it is still there …
	holdWait  = 3 * time.Second // … which is answered in this time, or the relay is lost
)

// Hold keeps a place at the relay at the other end of c until ctx ends or the relay is lost, and closes c. got is called
// when the place is granted and then with every measured round trip.
func Hold(ctx context.Context, c Stream, got func(rtt time.Duration, seen netip.AddrPort)) error {
	stop := context.AfterFunc(ctx, func() { _ = c.Reset() })
	defer stop()
	defer c.Close()
	err := hold(ctx, c, got)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	_ = c.Reset()
	return fmt.Errorf("relay: place: %w", err)
}

func hold(ctx context.Context, c Stream, got func(rtt time.Duration, seen netip.AddrPort)) error {
	began := time.Now()
	_ = c.SetDeadline(began.Add(askTimeout))
	if _, err := c.Write([]byte{askHold}); err != nil {
		return err
	}
	if err := readStatus(c); err != nil {
		return err
	}
	got(time.Since(began), netip.AddrPort{})
	tick := time.NewTicker(holdEvery)
	defer tick.Stop()
	for n := byte(0); ; n++ {
		began := time.Now()
		_ = c.SetDeadline(began.Add(holdWait))
		if _, err := c.Write([]byte{n}); err != nil {
			return err
		}
		back, seen, err := readEcho(c)
		if err != nil {
			return err
		}
		if back != n {
			return errors.New("the relay answers what was not said")
		}
		got(time.Since(began), seen)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
