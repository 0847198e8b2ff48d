package site

import (
	"strings"
	"testing"

	"vcpeer/queue"
)

// TestEnvironment wants a job to be told where it runs and whether it ran before, whatever its submitter's variables say.
func TestEnvironment(t *testing.T) {
	g := granted{Spec: queue.Spec{Name: "n", Slots: 2, Env: map[string]string{"HOSTNAME": "submitter", "RESTARTED": "7", "X": "y"}}}
	for attempt, restarted := range map[uint32]string{0: "0", 1: "0", 2: "1", 9: "1"} {
		g.Attempt = attempt
		env := map[string]string{} // the last of a name counts
		for _, v := range environ(attemptMeta{Owner: "s1", Ref: queue.Ref{Job: 3}}, g, place{site: "kyoto", node: "n7", env: []string{"VCPEER_ADDRESS=10.77.0.7"}}) {
			name, value, _ := strings.Cut(v, "=")
			env[name] = value
		}
		for name, want := range map[string]string{"HOSTNAME": "n7", "VCPEER_NODE": "n7", "VCPEER_SITE": "kyoto", "RESTARTED": restarted,
			"X": "y", "JOB_ID": "3", "SGE_TASK_ID": "undefined", "VCPEER_JOB_KEY": "s1.3.0"} {
			if env[name] != want {
				t.Errorf("attempt %d: %s=%q, want %q", attempt, name, env[name], want)
			}
		}
	}
}

// TestDiscardedStreams wants the null device to be known in every spelling, and nothing else to be taken for it.
func TestDiscardedStreams(t *testing.T) {
	for _, tt := range []struct{ path, want string }{
		{"/dev/null", "discarded"}, {"//dev/./null", "discarded"}, {"/dev/null/", "discarded"},
		{"", "kept"}, {"dev/null", "kept"}, {"/dev/null.txt", "kept"}, {"/dev/full", "kept"},
	} {
		spec, err := attemptSpec(attemptMeta{}, granted{Spec: queue.Spec{Stdout: tt.path}}, nil, place{})
		if err != nil || spec.NoStdout != (tt.want == "discarded") || spec.NoStderr {
			t.Errorf("%q: %+v, %v; want it %s", tt.path, spec.NoStdout, err, tt.want)
		}
	}
}
