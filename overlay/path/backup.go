package path

import "time"

// spared is when a backup was last searched for.
type spared struct {
	route route     // that the backup is for
	due   time.Time // when to look again, if nothing that makes it urgent happens before; zero: now
}

// spareAgain is when to plan for backups that this plan had no time to search for.
const spareAgain = 100 * time.Millisecond

// searches is how many backups a plan searches for that are missing, and as many that may have got better: among a thousand
// gateways a search takes half a millisecond, and there can be one to make for each.
func (p *Planner) searches() int { return max(2, 1000/p.graph.n) }

// decideBackup takes the path that shares least with the chosen one, of those whose first link is another, and of such the
// cheapest, but keeps the one it has while that is nearly as good.
func (p *Planner) decideBackup(d *dest, v int, all []candidate, now time.Time) (again time.Time) {
	l := p.graph.label(v)
	first := d.route.first(l)
	for i := range all {
		if all[i].first(l) == first {
			all[i].cost = none
		}
	}
	best := cheapest(all)
	if best.cost >= none {
		d.backed = false
		return time.Time{}
	}
	a := p.graph.avoid(p.self, v, d.route)
	shares := a.of(best.route)
	kept, keptShares := p.kept(d, &a)
	large, _ := p.config.gain(kept.cost.units(), best.cost.units())
	if shares > 0 && (large || keptShares > 0) { // there may be a path that costs more and shares less
		missing := keptShares == unshared || d.spare.due.IsZero() || d.spare.route != d.route
		switch {
		case p.maySearch(missing, d.spare.due, now):
			best, shares = p.spare.find(&a, best)
			d.spare = spared{d.route, now.Add(time.Duration(p.graph.n/p.searches()+1) * p.config.Interval)}
			large, _ = p.config.gain(kept.cost.units(), best.cost.units())
		case missing:
			d.spare, again = spared{}, now.Add(spareAgain)
		}
	}
	if keptShares > shares || keptShares == shares && large {
		d.backup = best.route
	}
	d.backed = true
	return again
}

// kept is the backup that there is, and what it has in common with the path; unshared: it is none any more.
func (p *Planner) kept(d *dest, a *avoid) (candidate, shared) {
	if !d.backed || p.graph.slot(d.backup.first(p.graph.label(a.dst))) == a.first {
		return candidate{cost: none}, unshared
	}
	c := candidate{d.backup, p.graph.costOf(p.self, a.dst, d.backup)}
	if c.cost >= none {
		return c, unshared
	}
	return c, a.of(d.backup)
}

// maySearch takes one of the searches of this plan.
func (p *Planner) maySearch(missing bool, due, now time.Time) bool {
	if p.spares == 0 || !missing && (p.spares <= p.searches() || now.Before(due)) {
		return false
	}
	p.spares--
	return true
}
