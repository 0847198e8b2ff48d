package overlay

import (
	"testing"
	"time"
)

func TestPace(t *testing.T) {
	var p pace
	now := time.Unix(1e6, 0)
	round := func(took time.Duration) time.Duration {
		now = now.Add(took)
		rest := p.rest(took, now)
		now = now.Add(rest)
		return rest
	}
	for i := range 4 {
		if rest := round(200 * time.Millisecond); rest != leastRest {
			t.Errorf("round %d of a few rests for %v", i, rest)
		}
	}
	var worked, rested time.Duration
	for range 100 {
		worked, rested = worked+200*time.Millisecond, rested+round(200*time.Millisecond)
	}
	if share := float64(rested) / float64(worked); share < restShare-2 || share > restShare {
		t.Errorf("of many rounds it rests %.1f times the time that they take, want some %d", share, restShare)
	}
	if rest := round(time.Minute); rest > mostRest {
		t.Errorf("rests for %v", rest)
	}
	now = now.Add(time.Minute)
	if rest := round(200 * time.Millisecond); rest != leastRest {
		t.Errorf("after a quiet minute it rests for %v", rest)
	}
}
