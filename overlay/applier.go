package overlay

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"sync/atomic"
	"time"

	"vcpeer/overlay/device"
	"vcpeer/overlay/dhcp"
	"vcpeer/overlay/flow"
	"vcpeer/overlay/label"
	"vcpeer/overlay/ovs"
	"vcpeer/overlay/sealed"
	"vcpeer/overlay/underlay"
)

// applier makes what a session wants, in a goroutine of its own, since that takes milliseconds and sometimes seconds. It
// is handed the newest wish; one that was replaced before it came to it is never looked at.
type applier struct {
	cfg     Config
	sw      *ovs.Switch
	info    ovs.Info
	sealing *sealing // nil: there are no sealed links
	dhcp    *dhcp.Server

	next    atomic.Pointer[desired]
	wake    chan struct{} // holds one
	hurry   chan struct{} // holds one: a link in use has failed, or somebody has changed something
	force   atomic.Bool   // do it though nothing new is wanted: somebody has changed something
	moved   atomic.Bool   // a neighbour may have moved
	results chan applied  // holds one: the newest

	// run's own
	name     string          // of the bridge
	have     desired         // what was made …
	made     map[string]bool // … by steps that went well
	tables   flow.Tables
	hops     []ovs.Neighbour
	missing  int              // next hops that the kernel is still asking for …
	patience int              // … and how often they are looked for in short intervals
	given    given            // to guests
	dropped  map[string]error // interfaces that are somebody else's
	last     applied
	setUp    time.Time // when the interface was last looked at
	guarded  time.Time // when the guard was last changed
	pace     pace
	hurried  time.Time // when a rest was last cut short
}

// applied is how the last round of the applier went.
type applied struct {
	up      bool
	name    string
	faults  []Fault
	flows   int
	groups  int
	written time.Time
	inner   map[string]device.Inner // by guest
	failed  map[string]error        // guests that are not on the network
}

// applyAgain is how often what failed is tried again, and neighbours are looked at.
const applyAgain = time.Second

// A neighbour that was asked for answers at once or not at all.
const (
	askAgain = 20 * time.Millisecond
	askTimes = 25
)

// verifyEvery is how often everything is compared though nothing has happened that Open vSwitch told of.
const verifyEvery = time.Minute

// lookAtDevice is the same for the interface of programs, of which Open vSwitch tells nothing.
const lookAtDevice = 3 * time.Second

func newApplier(n *Network, sw *ovs.Switch, info ovs.Info) *applier {
	return &applier{
		cfg: n.cfg, sw: sw, info: info, sealing: n.sealing, dhcp: dhcp.NewServer(n.cfg.Log), wake: make(chan struct{}, 1), hurry: make(chan struct{}, 1), results: make(chan applied, 1),
		made: map[string]bool{}, given: readGiven(sw), dropped: map[string]error{},
	}
}

// set says what is wanted from now on.
func (a *applier) set(d desired) {
	a.next.Store(&d)
	poke(a.wake)
}

// lookAround has neighbours looked at now, and for a while in short intervals.
func (a *applier) lookAround() {
	a.moved.Store(true)
	poke(a.hurry)
	poke(a.wake)
}

// again has everything compared anew.
func (a *applier) again() {
	a.force.Store(true)
	poke(a.hurry)
	poke(a.wake)
}

func (a *applier) run(ctx context.Context) {
	a.reseal(ctx)
	verified := time.Now()
	for {
		wait := applyAgain
		if a.missing > 0 && a.patience > 0 {
			a.patience--
			wait = askAgain
		}
		select {
		case <-ctx.Done():
			return
		case <-a.wake:
		case <-time.After(wait):
		}
		d := a.next.Load()
		if d == nil {
			continue
		}
		force := a.force.Swap(false) || time.Since(verified) > verifyEvery
		if force {
			clear(a.made)
			verified = time.Now()
		}
		began := time.Now()
		a.report(a.round(ctx, *d))
		if a.rest(ctx, time.Since(began)) != nil {
			return
		}
	}
}

// rest waits after a round that took so long, or until something cannot wait.
func (a *applier) rest(ctx context.Context, took time.Duration) error {
	timer := time.NewTimer(a.pace.rest(took, time.Now()))
	defer timer.Stop()
	hurry := a.hurry
	if time.Since(a.hurried) < mostRest {
		hurry = nil // on a machine that is overloaded everything seems to fail at once, again and again
	}
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-hurry:
		a.hurried = time.Now()
	case <-timer.C:
	}
	return nil
}

// report replaces what the session has not taken yet.
func (a *applier) report(r applied) {
	if reflect.DeepEqual(r, a.last) {
		return
	}
	a.last = r
	select {
	case <-a.results:
	default:
	}
	a.results <- r
}

// round brings everything to d. Each step is done when what it depends on has changed, or when it failed the last time.
func (a *applier) round(ctx context.Context, d desired) applied {
	r := applied{written: a.last.written, inner: a.last.inner, failed: map[string]error{}}
	step := func(part string, same bool, do func() error) bool {
		if same && a.made[part] {
			return true
		}
		err := do()
		a.made[part] = err == nil
		if err != nil && ctx.Err() == nil && !errors.Is(err, errLater) {
			r.faults = append(r.faults, Fault{part, err})
		}
		return err == nil
	}
	old := a.have
	bridged := reflect.DeepEqual(d.bridges("", a.info.Datapath), old.bridges("", a.info.Datapath))
	a.have = d
	sealing := d.seal.addr.IsValid() && a.name != ""
	if sealing {
		step("sealed links", a.sealing.tap.is(tapPort(a.name)), func() error { return a.seal(ctx) })
	}
	// Before the bridge forgets them.
	step("guests that leave", reflect.DeepEqual(d.guests, old.guests), func() error { return a.given.take(d.guests) })
	if !step("bridge", bridged, func() error { return a.ensure(ctx, d, &r) }) {
		r.name = a.name
		return r
	}
	if d.seal.addr.IsValid() && !sealing {
		poke(a.wake) // the bridge has its name now, and its TAP can have one
	}
	if sealing && a.made["sealed links"] {
		step("sealed address", d.seal.addr == old.seal.addr, func() error {
			return device.Sole(tapPort(a.name), netip.PrefixFrom(d.seal.addr, sealed.DefaultNet.Bits()))
		})
	}
	if a.info.Datapath == inUserSpace {
		step("neighbours", false, func() error { return a.neighbours(ctx, d.peers, d.seal.peers) })
		step("underlay", slices.Equal(d.local, old.local), func() error {
			_, err := a.sw.Program(ctx, underBridge(a.name), underTables(d.local))
			return err
		})
	}
	if !reflect.DeepEqual(d.want, old.want) || a.tables.Flows == nil {
		a.tables = flow.Build(d.want)
		a.made["flows"] = false
	}
	flowing := step("flows", true, func() error {
		changes, err := a.sw.Program(ctx, a.name, a.tables)
		if err == nil && !changes.None() {
			r.written = time.Now()
			a.made["waiting"] = false
		}
		return err
	})
	step("waiting", true, func() error { return device.Resolve(a.name, d.known) })
	guarded, before := d.ends(), old.ends()
	if a.info.Datapath != inUserSpace {
		guarded, before = nil, nil // the kernel itself is to have them; a guard may be left from when it could not forward
	}
	step("guard", slices.Equal(guarded, before), func() error { return a.guard(ctx, guarded) })
	fresh := time.Since(a.setUp) < lookAtDevice
	step("interface", fresh && reflect.DeepEqual(d.device, old.device), func() error {
		a.setUp = time.Now()
		return errors.Join(device.Up(controlPort(a.name)), device.Apply(a.name, d.device))
	})
	step("guests", reflect.DeepEqual(d.guests, old.guests), func() error { return a.attach(d.guests, &r) })
	r.up, r.name, r.flows, r.groups = flowing, a.name, len(a.tables.Flows), len(a.tables.Groups)
	for iface, err := range a.dropped {
		r.faults = append(r.faults, Fault{"interface " + iface, err})
	}
	return r
}

// most names that are tried for a bridge before another daemon's are taken for all there is.
const maxBridges = 10

// ensure makes the bridges. Another daemon of the machine may have one of the name: then the next is tried.
func (a *applier) ensure(ctx context.Context, d desired, r *applied) error {
	clear(a.dropped)
	for i := 0; ; i++ {
		name := a.name
		if name == "" {
			name = fmt.Sprintf("%s%d", a.cfg.Name, i)
		}
		err := a.sw.Ensure(ctx, a.without(a.withTAP(d.bridges(name, a.info.Datapath), name)))
		var foreign *ovs.ForeignError
		switch {
		case err == nil:
			a.name = name
			return nil
		case !errors.As(err, &foreign):
			return err
		case foreign.Kind == "port" && a.dropped[foreign.Name] == nil && i < 2*maxBridges:
			a.dropped[foreign.Name] = foreign // and once more without it
			i--
		case a.name != "" || i+1 >= maxBridges:
			return err
		}
	}
}

// withTAP adds the TAP of sealed links, if it is there, to the bridge that holds the interfaces tunnels go over.
func (a *applier) withTAP(bridges []ovs.Bridge, name string) []ovs.Bridge {
	if a.sealing == nil || !a.sealing.tap.is(tapPort(name)) {
		return bridges
	}
	for i := range bridges {
		if bridges[i].Name == underBridge(name) {
			bridges[i].Ports = append(bridges[i].Ports, ovs.Port{Name: tapPort(name), OFPort: portTAP})
		}
	}
	return bridges
}

// without leaves out the interfaces that are somebody else's.
func (a *applier) without(bridges []ovs.Bridge) []ovs.Bridge {
	for i := range bridges {
		bridges[i].Ports = slices.DeleteFunc(bridges[i].Ports, func(p ovs.Port) bool { return a.dropped[p.Name] != nil })
	}
	return bridges
}

// guardGap is the least time between two changes of the guard: nothing waits for it.
const guardGap = 2 * time.Second

// errLater says that a step has time: it is done in a later round.
var errLater = errors.New("later")

// guard keeps the kernel out of the tunnels. Without nft it answers them, which is a waste and no harm.
func (a *applier) guard(ctx context.Context, peers []netip.Addr) error {
	if time.Since(a.guarded) < guardGap {
		return errLater
	}
	a.guarded = time.Now()
	if err := underlay.Guard(ctx, a.name, peers); err != nil && !errors.Is(err, underlay.ErrNoNFT) {
		return err
	}
	return nil
}

// neighbours tells the datapath in user space where frames to its peers go, which it would learn late: the kernel knows. Of
// sealed links it is known.
func (a *applier) neighbours(ctx context.Context, peers []netip.Addr, sealed []label.Label) error {
	if a.moved.Swap(false) {
		a.patience = askTimes
		a.made["neighbours"] = false
	}
	hops, missing, err := underlay.Neighbours(peers)
	if err != nil {
		return err
	}
	if missing > a.missing {
		a.patience = askTimes
	}
	a.missing = missing
	list := sealedNeighbours(sealed)
	for _, h := range hops {
		list = append(list, ovs.Neighbour{IP: h.IP, MAC: h.MAC})
	}
	if reflect.DeepEqual(list, a.hops) && a.made["neighbours"] {
		return nil
	}
	if err := a.sw.Neighbours(ctx, underBridge(a.name), list); err != nil {
		return err
	}
	a.hops = list
	return nil
}

// attach sets up the interfaces of guests, and has these answered when they ask what they are.
func (a *applier) attach(guests []guestWant, r *applied) error {
	r.inner = map[string]device.Inner{}
	told := map[string]dhcp.Guest{}
	var errs []error
	for _, g := range guests {
		inner, err := device.AttachGuest(g.iface, g.inner)
		if err == nil && a.dropped[g.iface] != nil {
			err = a.dropped[g.iface]
		}
		if err != nil {
			r.failed[g.id] = err
			errs = append(errs, err)
			continue
		}
		r.inner[g.id], told[g.iface] = inner, g.told
	}
	a.dhcp.Set(told)
	return errors.Join(errs...)
}
