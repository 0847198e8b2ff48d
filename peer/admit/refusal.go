package admit

import (
	"errors"
	"fmt"
	"time"

	"vcpeer/crdt"
)

// Code says why a newcomer was not let in. The text is part of the protocol.
type Code string

// The codes.
const (
	UnknownToken Code = "unknown-token" // no record of it here
	Expired      Code = "expired"       // At: when
	Used         Code = "used"          // Node: by whom; At: when
	Revoked      Code = "revoked"
	WrongCluster Code = "wrong-cluster" // Cluster: the member's
	EvictedNode  Code = "evicted"       // the newcomer's key was put out of this cluster
	BadProof     Code = "bad-proof"     // the signature is not by the token's key over this handshake
	BadVersion   Code = "version"       // no form of the handshake in common
	Garbled      Code = "malformed"     // the member could not read what the newcomer sent
	Busy         Code = "busy"          // too many ask
	NoIssuer     Code = "issuer-away"   // Node: the issuer, which alone can redeem the token
	Internal     Code = "internal"      // the member could not write its records
)

// Refusal is a member's answer that a newcomer is not let in. As an error it says so in words of this program, not of the
// peer, which has proven nothing.
type Refusal struct {
	Code    Code   `cbor:"1,keyasint"`
	Node    []byte `cbor:"2,keyasint,omitempty"` // crdt.NodeID; see the codes
	Unix    int64  `cbor:"3,keyasint,omitempty"` // seconds; see the codes
	Cluster []byte `cbor:"4,keyasint,omitempty"` // Cluster
}

var _ error = (*Refusal)(nil)

func refuse(c Code) *Refusal { return &Refusal{Code: c} }

func (r *Refusal) by(n crdt.NodeID) *Refusal { r.Node = n[:]; return r }

func (r *Refusal) at(t time.Time) *Refusal { r.Unix = t.Unix(); return r }

func (r *Refusal) check() bool {
	return len(r.Code) <= 32 && plain(string(r.Code)) && (len(r.Node) == 0 || len(r.Node) == len(crdt.NodeID{})) &&
		(len(r.Cluster) == 0 || len(r.Cluster) == prefixBytes)
}

// Error is the reason as both ends show it.
func (r *Refusal) Error() string {
	switch r.Code {
	case UnknownToken:
		return "wrong token: this cluster has no such token"
	case Expired:
		return "the token expired" + r.when()
	case Used:
		return "the token was used already" + r.who(" by ") + r.when()
	case Revoked:
		return "the token was revoked"
	case WrongCluster:
		return "wrong cluster: the token is for another cluster than this node's" + r.which()
	case EvictedNode:
		return "this node's key was evicted from the cluster"
	case BadProof:
		return "wrong token: the proof does not fit this handshake"
	case BadVersion:
		return "incompatible versions of vcpeer"
	case Garbled:
		return "the request could not be read"
	case Busy:
		return "busy: too many nodes ask to join at once"
	case NoIssuer:
		return "the token works once, so only the node that issued it can redeem it, and that node" + r.who(", ") + " cannot be reached"
	case Internal:
		return "the member could not write its records"
	}
	return fmt.Sprintf("refused (%s)", string(r.Code))
}

// Hint says what the user can do; empty where there is nothing to add.
func (r *Refusal) Hint() string {
	switch r.Code {
	case UnknownToken, Expired, Used, Revoked, BadProof:
		return "make a new token on a member: vcpeer token"
	case WrongCluster:
		return "check the seed's address, or make a token on that node: vcpeer token"
	case EvictedNode:
		return "to join again as a new node, remove this node's state directory first"
	case BadVersion:
		return "install the same version of vcpeer here and there"
	case NoIssuer:
		return "wait until it is back, use it as --seed, or make a token on another member"
	}
	return ""
}

// Final reports whether asking again would get the same answer.
func (r *Refusal) Final() bool {
	switch r.Code {
	case Busy, NoIssuer, Internal:
		return false
	}
	return true
}

func (r *Refusal) who(before string) string {
	if len(r.Node) != len(crdt.NodeID{}) {
		return ""
	}
	return before + crdt.NodeID(r.Node).String()
}

func (r *Refusal) when() string {
	if r.Unix == 0 {
		return ""
	}
	return " at " + time.Unix(r.Unix, 0).UTC().Format("2006-01-02 15:04:05 UTC")
}

func (r *Refusal) which() string {
	if len(r.Cluster) != prefixBytes {
		return ""
	}
	return " (" + Cluster(r.Cluster).Short() + ")"
}

// refusalIn finds the refusal in an error.
func refusalIn(err error) (*Refusal, bool) {
	var r *Refusal
	ok := errors.As(err, &r)
	return r, ok
}
