package site

import "vcpeer/queue"

// AttemptKey is the name under which the executor of the node that runs an attempt knows it.
func AttemptKey(owner queue.SiteID, ref queue.Ref) string {
	return attemptMeta{Owner: owner, Ref: ref}.key()
}
