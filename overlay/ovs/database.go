package ovs

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/go-logr/logr"
	"github.com/ovn-kubernetes/libovsdb/cache"
	"github.com/ovn-kubernetes/libovsdb/client"
	"github.com/ovn-kubernetes/libovsdb/model"
	"github.com/ovn-kubernetes/libovsdb/ovsdb"
)

// The columns whose changes we want to hear of. The library's cache of them serves as an alarm only: what the database
// holds is read by questions, in one transaction.
type (
	rootTable struct {
		UUID      string   `ovsdb:"_uuid"`
		Bridges   []string `ovsdb:"bridges"`
		Datapaths []string `ovsdb:"datapath_types"`
	}
	bridgeTable struct {
		UUID        string            `ovsdb:"_uuid"`
		Name        string            `ovsdb:"name"`
		Datapath    string            `ovsdb:"datapath_type"`
		FailMode    *string           `ovsdb:"fail_mode"`
		Protocols   []string          `ovsdb:"protocols"`
		OtherConfig map[string]string `ovsdb:"other_config"`
		ExternalIDs map[string]string `ovsdb:"external_ids"`
		Ports       []string          `ovsdb:"ports"`
	}
	portTable struct {
		UUID        string            `ovsdb:"_uuid"`
		Name        string            `ovsdb:"name"`
		ExternalIDs map[string]string `ovsdb:"external_ids"`
		Interfaces  []string          `ovsdb:"interfaces"`
	}
	interfaceTable struct {
		UUID          string            `ovsdb:"_uuid"`
		Name          string            `ovsdb:"name"`
		Type          string            `ovsdb:"type"`
		MAC           *string           `ovsdb:"mac"`
		Options       map[string]string `ovsdb:"options"`
		BFD           map[string]string `ovsdb:"bfd"`
		OFPortRequest *int              `ovsdb:"ofport_request"`
		MTURequest    *int              `ovsdb:"mtu_request"`
		OFPort        *int              `ovsdb:"ofport"`
		MTU           *int              `ovsdb:"mtu"`
		Error         *string           `ovsdb:"error"`
		LinkState     *string           `ovsdb:"link_state"`
		MACInUse      *string           `ovsdb:"mac_in_use"`
		BFDStatus     map[string]string `ovsdb:"bfd_status"`
	}
)

var watched = map[string]model.Model{
	"Open_vSwitch": &rootTable{}, "Bridge": &bridgeTable{}, "Port": &portTable{}, "Interface": &interfaceTable{},
}

// database is one connection; when it breaks, another is made. The library's own reconnecting is not used: it goes on for
// ever after Close.
type database struct {
	client  client.Client
	changed chan struct{} // holds one
	gone    chan struct{} // closed when the connection is no more
}

// dialDatabase connects and asks to be told of changes. ErrNotRunning: nobody answers.
func dialDatabase(ctx context.Context, cfg Config) (*database, error) {
	ctx, cancel := context.WithTimeout(ctx, takeTimeout)
	defer cancel()
	dbModel, err := model.NewClientDBModel("Open_vSwitch", watched)
	if err != nil {
		return nil, fmt.Errorf("ovs: database model: %w", err)
	}
	log := logr.FromSlogHandler(cfg.Log.Handler())
	c, err := client.NewOVSDBClient(dbModel, client.WithEndpoint(cfg.DB), client.WithLogger(&log))
	if err != nil {
		return nil, fmt.Errorf("ovs: database %s: %w", cfg.DB, err)
	}
	if err := c.Connect(ctx); err != nil {
		return nil, notRunning(Ovsdb, cfg.DB, err)
	}
	d := &database{client: c, changed: make(chan struct{}, 1), gone: make(chan struct{})}
	go d.await()
	c.Cache().AddEventHandler(&cache.EventHandlerFuncs{
		AddFunc:    func(string, model.Model) { poke(d.changed) },
		UpdateFunc: func(string, model.Model, model.Model) { poke(d.changed) },
		DeleteFunc: func(string, model.Model) { poke(d.changed) },
	})
	if _, err := c.Monitor(ctx, monitor(c)); err != nil {
		d.close()
		return nil, fmt.Errorf("ovs: database %s: monitor: %w", cfg.DB, err)
	}
	return d, nil
}

// monitor names each column of watched: without names the library subscribes to all columns, and then drops every update
// that holds one it has no field for.
func monitor(c client.Client) *client.Monitor {
	var tabs []client.MonitorOption
	for _, m := range watched {
		row := reflect.New(reflect.TypeOf(m).Elem())
		var fields []any
		for i := range row.Elem().NumField() {
			if row.Elem().Type().Field(i).Name != "UUID" {
				fields = append(fields, row.Elem().Field(i).Addr().Interface())
			}
		}
		tabs = append(tabs, client.WithTable(row.Interface(), fields...))
	}
	return c.NewMonitor(tabs...)
}

// await closes gone. The library tells of the end of a connection only who listens at that moment, and goes on calling
// itself connected; hence the look at its endpoint.
func (d *database) await() {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	defer close(d.gone)
	for {
		select {
		case <-d.client.DisconnectNotify():
			return
		case <-tick.C:
			if d.client.CurrentEndpoint() == "" {
				return
			}
		}
	}
}

// close returns when the connection and all that served it have ended.
func (d *database) close() {
	d.client.Close()
	<-d.gone
}

func (d *database) transact(ctx context.Context, what string, ops ...ovsdb.Operation) ([]ovsdb.OperationResult, error) {
	ctx, cancel := context.WithTimeout(ctx, takeTimeout)
	defer cancel()
	results, err := d.client.Transact(ctx, ops...)
	if errors.Is(err, client.ErrNotConnected) {
		return nil, notRunning(Ovsdb, what, err)
	}
	if err != nil {
		return nil, fmt.Errorf("ovs: database: %s: %w", what, err)
	}
	if errs, err := ovsdb.CheckOperationResults(results, ops); err != nil {
		for _, e := range errs {
			err = fmt.Errorf("%w: %s %s: %w", err, e.Operation().Op, e.Operation().Table, e)
		}
		return nil, fmt.Errorf("ovs: database: %s: %w", what, err)
	}
	return results, nil
}

// read returns what the database holds now.
func (d *database) read(ctx context.Context) (*content, error) {
	results, err := d.transact(ctx, "read", questions...)
	if err != nil {
		return nil, err
	}
	answers := make([][]ovsdb.Row, len(questions))
	for i := range questions {
		answers[i] = results[i].Rows
	}
	c := newContent(answers)
	if c.root == "" {
		return nil, errors.New("ovs: database: it has no row in Open_vSwitch: it was never initialised (ovs-vsctl init)")
	}
	return c, nil
}

// commit writes ops and tells ovs-vswitchd to look; it has done so when current is next.
func (d *database) commit(ctx context.Context, have *content, ops []ovsdb.Operation) (next int, err error) {
	bump := ovsdb.Operation{
		Op: ovsdb.OperationMutate, Table: "Open_vSwitch", Where: where(have.root),
		Mutations: []ovsdb.Mutation{*ovsdb.NewMutation("next_cfg", ovsdb.MutateOperationAdd, 1)},
	}
	results, err := d.transact(ctx, "write", append(ops, bump, question("Open_vSwitch", "next_cfg"))...)
	if err != nil {
		return 0, err
	}
	rows := results[len(ops)+1].Rows
	if len(rows) != 1 {
		return 0, fmt.Errorf("ovs: database: %d rows in Open_vSwitch, want 1", len(rows))
	}
	return number(rows[0]["next_cfg"]), nil
}

// current returns the last change that ovs-vswitchd has done.
func (d *database) current(ctx context.Context) (int, error) {
	results, err := d.transact(ctx, "read", question("Open_vSwitch", "cur_cfg"))
	if err != nil || len(results[0].Rows) != 1 {
		return 0, err
	}
	return number(results[0].Rows[0]["cur_cfg"]), nil
}

// How changes of the database become events.
const (
	gather  = 10 * time.Millisecond  // changes that come together are read together
	settled = 100 * time.Millisecond // how long a difference to what is wanted must last to count as somebody's hand
)

// watchDatabase keeps a connection and the view, and tells of what changes, until ctx ends.
func (s *Switch) watchDatabase(ctx context.Context, db *database) {
	for ctx.Err() == nil {
		s.follow(ctx, db)
		s.db.Store(nil)
		db.close()
		if ctx.Err() != nil {
			return
		}
		s.cfg.Log.Warn("lost the database of Open vSwitch", "db", s.cfg.DB)
		s.mail.put(Event{Kind: Gone, Daemon: Ovsdb})
		if db = s.redial(ctx); db == nil {
			return
		}
		s.db.Store(db)
		s.cfg.Log.Info("the database of Open vSwitch is there again", "db", s.cfg.DB)
		s.mail.put(Event{Kind: Restarted, Daemon: Ovsdb})
	}
}

// redial tries until it works; nil: ctx ended.
func (s *Switch) redial(ctx context.Context) *database {
	for pause := backoff(0); wait(ctx, pause) == nil; pause = backoff(pause) {
		db, err := dialDatabase(ctx, s.cfg)
		if err == nil {
			return db
		}
		s.cfg.Log.Debug("no database of Open vSwitch", "err", err)
	}
	return nil
}

// backoff is the pause after one of d: a socket of this machine costs little to try.
func backoff(d time.Duration) time.Duration {
	return min(max(2*d, 20*time.Millisecond), 500*time.Millisecond)
}

// follow reads the database whenever it changes, until the connection or ctx ends.
func (s *Switch) follow(ctx context.Context, db *database) {
	var doubt <-chan time.Time // a difference is there; it counts if it is there still
	poke(db.changed)
	for {
		select {
		case <-ctx.Done():
			return
		case <-db.gone:
			return
		case <-db.changed:
			if wait(ctx, gather) != nil {
				return
			}
			select {
			case <-db.changed:
			default:
			}
			now, err := db.read(ctx)
			if err != nil {
				if ctx.Err() == nil {
					s.cfg.Log.Warn("cannot read the database of Open vSwitch", "err", err)
				}
				continue // the connection is ending, or the next change reads again
			}
			s.tell(s.view.Swap(now), now)
			if doubt == nil && len(s.differing(now)) > 0 {
				doubt = time.After(settled)
			}
		case <-s.look:
			if doubt == nil {
				doubt = time.After(settled)
			}
		case <-doubt:
			doubt = nil
			for _, name := range s.differing(s.view.Load()) {
				s.mail.put(Event{Kind: Changed, Bridge: name})
			}
		}
	}
}

// differing names the bridges that are no longer what Ensure made them.
func (s *Switch) differing(now *content) (names []string) {
	want := s.want.Load()
	if want == nil {
		return nil
	}
	for _, b := range *want {
		p := planner{owner: s.cfg.Owner, have: now}
		if err := p.bridge(b); err != nil || len(p.ops) > 0 {
			names = append(names, b.Name)
		}
	}
	return names
}

// tell puts into the mailbox how the ports of our bridges changed.
func (s *Switch) tell(old, now *content) {
	for _, b := range now.sorted() {
		if b.externalIDs[ownerKey] != s.cfg.Owner {
			continue
		}
		before := old.states(b.name)
		for _, p := range b.ports {
			if len(p.interfaces) == 0 {
				continue
			}
			is, was := p.interfaces[0].state(), before[p.name]
			if is.BFD != was.BFD {
				s.mail.put(Event{Kind: BFDMoved, Bridge: b.name, Port: p.name, State: is})
			}
			if is.BFD = was.BFD; is != was {
				is.BFD = p.interfaces[0].state().BFD
				s.mail.put(Event{Kind: PortMoved, Bridge: b.name, Port: p.name, State: is})
			}
		}
	}
}
