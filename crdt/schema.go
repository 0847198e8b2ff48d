package crdt

// The kinds of object and their fields. A field that is absent has its default when it is read; defaults are never
// written. Kinds and fields that are not here come from other versions: kept and passed on, and not read.
const (
	kindCluster Kind = "cluster" // ID: ClusterID
	kindMember  Kind = "member"  // ID: NodeID
	kindSite    Kind = "site"    // ID: SiteID
	kindHost    Kind = "host"    // ID: NodeID
	kindGuest   Kind = "guest"   // ID: GuestID
	kindAccount Kind = "account" // ID: AccountID
	kindGroup   Kind = "group"   // ID: GroupID
	kindToken   Kind = "token"   // ID: TokenID
	kindClaim   Kind = "claim"   // ID: conflict kind, NUL, value

	fieldName = "name" // register of text: cluster, site, host, guest, account, group

	fieldEncrypt = "encrypt" // cluster: register of true; empty when off, so that on wins over a concurrent off

	fieldAdmitted = "admitted" // member: grows, admission
	fieldEvicted  = "evicted"  // member: grows, eviction
	fieldLeft     = "left"     // member: register of bool

	fieldFounder = "founder" // site: register of NodeID

	fieldSite    = "site"    // host, account: register of SiteID; token: register of text
	fieldAddrs   = "addrs"   // host: register of list of text
	fieldOS      = "os"      // host: register of text
	fieldArch    = "arch"    // host: register of text
	fieldCPUs    = "cpus"    // host: register of number
	fieldMem     = "mem"     // host: register of number, bytes
	fieldVersion = "version" // host: register of text
	fieldAddress = "address" // host, guest: register of number, the overlay's slot

	fieldUnderlay    = "underlay"    // host: register of list of addresses, 4 or 16 bytes each
	fieldUnderlayMTU = "underlaymtu" // host: register of number, bytes
	fieldOverlay     = "overlay"     // host: register of number, the label layout
	fieldNoTransit   = "notransit"   // host: register of bool
	fieldLabel       = "label"       // host: register of number

	fieldNode = "node" // guest: register of NodeID, zero when detached; without it there is no guest

	fieldEnabled  = "enabled"  // account, group: remove-wins set of one element
	fieldUID      = "uid"      // account: register of number
	fieldGID      = "gid"      // group: register of number
	fieldRetired  = "retired"  // account, group: grows, every number it ever had
	fieldFullName = "fullname" // account: register of text
	fieldHome     = "home"     // account: register of text
	fieldShell    = "shell"    // account: register of text
	fieldKeys     = "keys"     // account: add-wins set of text
	fieldRevoked  = "revoked"  // account: grows, text; a key in it never counts again
	fieldMembers  = "members"  // group: remove-wins set of AccountID

	fieldExpires  = "expires"  // token: register of number, Unix seconds
	fieldReusable = "reusable" // token: register of bool
	fieldUsedBy   = "usedby"   // token: grows, NodeID
	fieldTokenOff = "off"      // token: grows, text (a reason)

	fieldWinner = "winner" // claim: register of text, the ID of the holder that an administrator chose
)

// admission is the value of member.admitted; the admitting member is the author.
type admission struct {
	_     struct{} `cbor:",toarray"`
	Token []byte   // TokenID, or empty
}

// eviction is the value of member.evicted; the evicting member is the author.
type eviction struct {
	_      struct{} `cbor:",toarray"`
	Cutoff uint64   // the last change of the evicted that counts: what its evictor had seen
	Reason string
}
