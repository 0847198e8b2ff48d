package path

import (
	"errors"
	"time"
)

// Config sets what paths cost and how steady they are. All gateways of a cluster should have the same.
type Config struct {
	Saturation   time.Duration // an RTT above counts as this, so that congested links look alike; at most 800 ms
	LossPrice    time.Duration // what losing everything would cost besides repetition; grows with the square of the loss
	TransitPrice time.Duration // of every transit gateway; at most 50 ms
	DetourShare  float64       // share of its cost that any path but the direct one costs more

	// A gain above Margin of the cost and above MarginMin is taken when Confirm plans in a row have seen it, Interval
	// apart. One above SmallMargin and SmallMin is taken when it has lasted SmallFor.
	Margin      float64
	MarginMin   time.Duration
	Confirm     int
	Interval    time.Duration
	SmallMargin float64
	SmallMin    time.Duration
	SmallFor    time.Duration

	Startup time.Duration // for so long after it is first reached, the best path to a gateway is followed freely

	// Hold is how long a path that was taken for its gain is kept, doubled with every such change up to HoldMax, and
	// halved again for every 2 HoldMax without one; after a failure at most for as long as it is since that one, or for
	// Startup where that is more. Failures end it.
	Hold, HoldMax time.Duration

	// Damp is how long a link that was down is used only where nothing else is, doubled with every time up to DampMax,
	// and halved again for every DampForget that it stays up. A gain after a failure must have lasted as long.
	Damp, DampMax, DampForget time.Duration
}

// Default suits sites all over the world whose links are probed every 0.3 to 1 s.
func Default() Config {
	return Config{
		Saturation: 500 * time.Millisecond, LossPrice: 400 * time.Millisecond,
		TransitPrice: 500 * time.Microsecond, DetourShare: 0.01,
		Margin: 0.10, MarginMin: 2 * time.Millisecond, Confirm: 3, Interval: 300 * time.Millisecond,
		SmallMargin: 0.02, SmallMin: 500 * time.Microsecond, SmallFor: 30 * time.Second,
		Startup: 10 * time.Second,
		Hold:    2 * time.Minute, HoldMax: 15 * time.Minute,
		Damp: time.Second, DampMax: 10 * time.Minute, DampForget: 5 * time.Minute,
	}
}

// Validate names the first field that cannot work.
func (c Config) Validate() error {
	switch {
	case c.Saturation < unit || c.Saturation > linkMax*unit:
		return errors.New("path: Saturation must lie between 0.1 and 800 ms")
	case c.LossPrice < 0 || c.LossPrice > time.Minute:
		return errors.New("path: LossPrice must lie between 0 and a minute")
	case c.TransitPrice < unit || c.TransitPrice > transitMax*unit:
		return errors.New("path: TransitPrice must lie between 0.1 and 50 ms")
	case !(c.DetourShare >= 0 && c.DetourShare <= 1):
		return errors.New("path: DetourShare must lie between 0 and 1")
	case !(c.Margin >= 0 && c.Margin < 1) || !(c.SmallMargin >= 0 && c.SmallMargin <= c.Margin):
		return errors.New("path: Margin and SmallMargin must lie between 0 and 1, the small one below the other")
	case c.SmallMin < 0 || c.MarginMin < c.SmallMin:
		return errors.New("path: MarginMin must be at least SmallMin")
	case c.Confirm < 1:
		return errors.New("path: Confirm must be at least 1")
	case c.Interval < 0 || c.SmallFor < 0 || c.Startup < 0 || c.Hold < 0 || c.HoldMax < c.Hold || c.Damp < 0 || c.DampMax < c.Damp:
		return errors.New("path: no time may be negative, and HoldMax and DampMax are at least Hold and Damp")
	case c.HoldMax <= 0 || c.DampForget <= 0:
		return errors.New("path: HoldMax and DampForget must be positive")
	}
	return nil
}

// backoff returns base doubled level times, at most limit.
func backoff(base time.Duration, level int, limit time.Duration) time.Duration {
	for ; level > 0 && base < limit; level-- {
		base *= 2
	}
	return min(base, limit)
}
