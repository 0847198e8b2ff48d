package probe

// tunnelBytes is what GRE with a key over IPv4 on Ethernet adds to a frame: 14, 20 and 8.
const tunnelBytes = 42

// Cost is what probing takes of the underlay in one direction, a second. The other direction takes as much: each probe
// sent is answered, and the others probe this node as it probes them.
type Cost struct {
	Packets float64
	Bytes   float64
}

// Cost of links of the given classes and of paths in use, if the other ends probe alike and all are up.
func (c Config) Cost(links []Class, paths int) (sum Cost) {
	const shortened = 1 / 0.95 // see jitter
	add := func(class Class, sized bool) {
		perSecond := shortened / c.interval(class).Seconds()
		sum.Packets += 2 * perSecond
		sum.Bytes += 2 * perSecond * (tunnelBytes + etherBytes + messageBytes)
		if sized {
			perSecond = 1 / c.verify(class).Seconds()
			sum.Packets += 2 * perSecond
			sum.Bytes += perSecond * (tunnelBytes + etherBytes + 1458 + tunnelBytes + etherBytes + messageBytes)
		}
	}
	for _, class := range links {
		add(class, true)
	}
	for range paths {
		add(PathClass(paths), false)
	}
	return sum
}
