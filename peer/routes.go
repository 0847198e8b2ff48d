package peer

import (
	"net/http"
	"net/http/pprof"

	"vcpeer/peer/server"
)

// routes is the whole local API.
func (d *Daemon) routes() *server.Server {
	s := server.New(d.log)
	d.registerStatus(s)
	d.registerCluster(s)
	d.registerPeople(s)
	d.registerTokens(s)
	d.registerJobs(s)
	d.registerOverlay(s)
	d.registerGuests(s)
	d.registerNetcheck(s)
	d.registerProfiles(s)
	return s
}

// registerProfiles offers Go's profiles of this daemon to its administrator, for instance:
//
//	curl --unix-socket /run/vcpeer/vcpeer.sock 'http://vcpeer/debug/pprof/profile?seconds=10' > cpu.pprof
func (d *Daemon) registerProfiles(s *server.Server) {
	allow := func(r *http.Request) error {
		_, err := d.admin(func(*http.Request) (any, error) { return nil, nil })(r)
		return err
	}
	s.Raw("GET /debug/pprof/", allow, http.HandlerFunc(pprof.Index))
	s.Raw("GET /debug/pprof/profile", allow, http.HandlerFunc(pprof.Profile))
	s.Raw("GET /debug/pprof/trace", allow, http.HandlerFunc(pprof.Trace))
}
