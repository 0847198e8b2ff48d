package lab

import (
	"os"
	"time"

	"vcpeer/deploy/lab/topology"
	"vcpeer/deploy/lab/wan"
)

// Status is a lab as it is now.
type Status struct {
	APIVersion string          `json:"apiVersion"`
	Kind       string          `json:"kind"` // Lab
	Name       string          `json:"name"`
	Dir        string          `json:"dir"`
	PID        int             `json:"pid"`
	Since      time.Time       `json:"since"`
	Nodes      []NodeStatus    `json:"nodes"`
	Sites      []SiteStatus    `json:"sites"`
	Links      []wan.Line      `json:"links"`
	Matrix     topology.Matrix `json:"rttMillis"` // between the sites, in their order, by the delays in force
	Shortest   topology.Matrix `json:"shortestMillis"`
}

// SiteStatus is a site of a lab.
type SiteStatus struct {
	Name   string       `json:"name"`
	Router string       `json:"router,omitempty"`
	NAT    topology.NAT `json:"nat"`
	IP     topology.IP  `json:"ip"`
}

// NodeStatus is a node of a lab.
type NodeStatus struct {
	Name    string   `json:"name"`
	Site    string   `json:"site"`
	Addrs   []string `json:"addrs"`
	Up      []string `json:"up"`   // daemons that run
	Down    []string `json:"down"` // daemons that do not
	Cut     bool     `json:"cut,omitempty"`
	Socket  string   `json:"socket"`
	Machine int      `json:"machinePID"`
}

// Status tells how the lab is.
func (l *Lab) Status() (*Status, error) {
	lines, err := l.wan.Lines()
	if err != nil {
		return nil, err
	}
	s := &Status{Name: l.Name, Dir: l.Dir, PID: os.Getpid(), Since: l.since, Links: lines}
	for _, site := range l.Topology.Sites {
		st := SiteStatus{Name: site.Name, NAT: site.NAT, IP: site.IP}
		if site.Router {
			st.Router = site.RouterName()
		}
		s.Sites = append(s.Sites, st)
	}
	l.mu.Lock()
	for _, n := range l.nodes {
		s.Nodes = append(s.Nodes, l.nodeStatus(n))
	}
	l.mu.Unlock()
	s.Matrix = matrixOf(l.Topology.SiteNames(), lines)
	s.Shortest = s.Matrix.Shortest()
	return s, nil
}

func (l *Lab) nodeStatus(n *Node) NodeStatus {
	st := NodeStatus{Name: n.Name, Site: n.Site, Cut: l.unplugs[n.Name], Socket: n.Socket(), Machine: n.Machine.PID, Up: []string{}, Down: []string{}}
	for _, a := range n.Addrs {
		st.Addrs = append(st.Addrs, a.String())
	}
	for _, d := range Daemons {
		switch {
		case d != VCPeer && !n.wanted.OVS:
		case n.daemons[d].alive():
			st.Up = append(st.Up, d)
		default:
			st.Down = append(st.Down, d)
		}
	}
	return st
}

// matrixOf adds up the delays there and back; a direction that is cut counts as it would without.
func matrixOf(sites []string, lines []wan.Line) topology.Matrix {
	at := map[string]int{}
	m := make(topology.Matrix, len(sites))
	for i, s := range sites {
		at[s] = i
		m[i] = make([]float64, len(sites))
	}
	for _, l := range lines {
		i, j := at[l.From], at[l.To]
		ms := float64(l.Shape.Delay) / float64(time.Millisecond)
		m[i][j] += ms
		m[j][i] += ms
	}
	return m
}
