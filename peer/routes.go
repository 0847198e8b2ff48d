package peer

import "vcpeer/peer/server"

// routes is the whole local API.
func (d *Daemon) routes() *server.Server {
	s := server.New(d.log)
	d.registerStatus(s)
	d.registerCluster(s)
	d.registerPeople(s)
	d.registerTokens(s)
	d.registerJobs(s)
	return s
}
