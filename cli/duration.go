package cli

import (
	"errors"
	"strconv"
	"time"

	"github.com/spf13/pflag"
)

// duration is the value of a flag that is a length of time: with units, as in 1m30s or 200ms, or in seconds, as ping(8) and
// its like have it.
type duration time.Duration

var _ pflag.Value = (*duration)(nil)

func durationFlag(f *pflag.FlagSet, d *time.Duration, name, short string, initial time.Duration, use string) {
	*d = initial
	f.VarP((*duration)(d), name, short, use)
}

func (d *duration) Set(s string) error {
	if seconds, err := strconv.ParseFloat(s, 64); err == nil {
		s = strconv.FormatFloat(seconds, 'f', -1, 64) + "s"
	}
	v, err := time.ParseDuration(s)
	if err != nil {
		return errors.New("want seconds, such as 0.3, or a number with a unit, such as 300ms or 1h30m")
	}
	*d = duration(v)
	return nil
}

func (d *duration) String() string {
	if *d == 0 {
		return "" // help shows no default then
	}
	return time.Duration(*d).String()
}

func (*duration) Type() string { return "duration" }
