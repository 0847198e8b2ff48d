package crdt

import (
	"fmt"
	"slices"
)

// maxProof bounds the links of an admission proof.
const maxProof = 1024

// Proof shows a node that knows nothing but a cluster's ID that somebody is a member: the founding record, and the batches
// of the admissions from the founder to that member. It does not show that the member has not been evicted since.
type Proof struct {
	Founding []byte   `cbor:"1,keyasint"`
	Batches  [][]byte `cbor:"2,keyasint"`
}

// AdmissionPath returns the dots of the admissions that lead from the founder to n, the founder's first; empty for the founder
// itself. False: n is not and never was a member.
func (v *View) AdmissionPath(n NodeID) ([]Dot, bool) {
	var path []Dot
	for {
		a, ok := v.admitted[n]
		if !ok {
			return nil, false
		}
		if a.level == 0 {
			slices.Reverse(path)
			return path, true
		}
		path = append(path, a.dot)
		n = a.dot.Author
	}
}

// AdmissionLevel is how many admissions lie between the founder and n; false for one who is not and never was a member. A
// sender that gives the logs of lower levels first gives every admission before what the admitted wrote.
func (v *View) AdmissionLevel(n NodeID) (int, bool) {
	a, ok := v.admitted[n]
	return a.level, ok
}

// VerifyAdmission checks a proof that n is a member of a cluster. Errors wrap ErrMalformed, ErrSignature, ErrCluster or
// ErrNotMember.
func VerifyAdmission(cluster ClusterID, p Proof, n NodeID) error {
	if len(p.Batches) > maxProof {
		return fmt.Errorf("admission proof of %d links, at most %d: %w", len(p.Batches), maxProof, ErrMalformed)
	}
	f, err := DecodeFounding(p.Founding)
	if err != nil {
		return fmt.Errorf("admission proof: %w", err)
	}
	if f.ID() != cluster {
		return fmt.Errorf("admission proof: founding record: %w", ErrCluster)
	}
	proven := map[NodeID]bool{f.Founder: true}
	for _, raw := range p.Batches {
		b, err := DecodeBatch(raw)
		if err != nil {
			return fmt.Errorf("admission proof: %w", err)
		}
		switch {
		case b.Cluster != cluster:
			return fmt.Errorf("admission proof: %w", ErrCluster)
		case !proven[b.Author]:
			return fmt.Errorf("admission proof: author %s: %w", b.Author.Short(), ErrNotMember)
		}
		if err := b.Verify(); err != nil {
			return fmt.Errorf("admission proof: %w", err)
		}
		for i := range b.Changes {
			if c := &b.Changes[i]; c.Kind == kindMember && c.Field == fieldAdmitted && c.Op == OpGrow && len(c.ID) == len(n) {
				proven[NodeID([]byte(c.ID))] = true
			}
		}
	}
	if !proven[n] {
		return fmt.Errorf("admission proof: %s: %w", n, ErrNotMember)
	}
	return nil
}
