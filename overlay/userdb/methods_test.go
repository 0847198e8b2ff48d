package userdb

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"strings"
	"testing"
)

func sample() *Snapshot {
	return NewSnapshot(
		[]Account{{Name: "alice", UID: 200001, GID: 200001, FullName: "Alice"}, {Name: "bob", UID: 200002, GID: 200100, Disabled: true}},
		[]Group{{Name: "physics", GID: 200100, Members: []string{"alice", "bob"}}, {Name: "zoo", GID: 200101, Members: []string{"bob"}}},
		Local{})
}

// ask runs one request and returns the replies, a line each.
func ask(t *testing.T, s *Snapshot, request string) string {
	t.Helper()
	c, err := decodeCall([]byte(request))
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for r := range answer(c, "io.vcpeer", s) {
		frame, err := encodeReply(r)
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, strings.TrimSuffix(string(frame), "\x00"))
	}
	return strings.Join(lines, "\n")
}

func TestAnswer(t *testing.T) {
	const (
		alice   = `{"userName":"alice","realName":"Alice","uid":200001,"gid":200001,"homeDirectory":"/home/alice","shell":"/bin/sh","disposition":"regular","service":"io.vcpeer"}`
		bob     = `{"userName":"bob","uid":200002,"gid":200100,"homeDirectory":"/home/bob","shell":"/usr/sbin/nologin","disposition":"regular","locked":true,"notAfterUSec":86400000000,"service":"io.vcpeer"}`
		physics = `{"groupName":"physics","gid":200100,"disposition":"regular","service":"io.vcpeer"}`
		none    = `{"error":"io.systemd.UserDatabase.NoRecordFound"}`
	)
	record := func(r string) string { return `{"parameters":{"record":` + r + `,"incomplete":false}}` }
	more := func(r string) string {
		return `{"parameters":{"record":` + r + `,"incomplete":false},"continues":true}`
	}
	for _, tt := range []struct{ name, method, parameters, want string }{
		{"by name", "GetUserRecord", `"userName":"alice"`, record(alice)},
		{"by uid", "GetUserRecord", `"uid":200002`, record(bob)},
		{"by both", "GetUserRecord", `"uid":200001,"userName":"alice"`, record(alice)},
		{"by two that differ", "GetUserRecord", `"uid":200002,"userName":"alice"`, `{"error":"io.systemd.UserDatabase.ConflictingRecordFound"}`},
		{"by two, one unknown", "GetUserRecord", `"uid":7,"userName":"alice"`, `{"error":"io.systemd.UserDatabase.ConflictingRecordFound"}`},
		{"unknown name", "GetUserRecord", `"userName":"root"`, none},
		{"unknown uid", "GetUserRecord", `"uid":0`, none},
		{"null is not given", "GetUserRecord", `"uid":null,"userName":"alice"`, record(alice)},
		{"all, without leave for many", "GetUserRecord", ``, `{"error":"org.varlink.service.ExpectedMore"}`},
		{"all", "GetUserRecord+", ``, more(alice) + "\n" + record(bob)},
		{"filter by number", "GetUserRecord+", `"uidMin":200002,"uidMax":200002`, record(bob)},
		{"filter by part of a name", "GetUserRecord+", `"fuzzyNames":["LIC"]`, record(alice)},
		{"filter by kind", "GetUserRecord+", `"dispositionMask":["system"]`, none},
		{"found and filtered", "GetUserRecord", `"userName":"alice","uidMin":200002`, `{"error":"io.systemd.UserDatabase.NonMatchingRecordFound"}`},
		{"uid out of range", "GetUserRecord", `"uid":4294967296`, `{"parameters":{"parameter":"uid"},"error":"org.varlink.service.InvalidParameter"}`},
		{"uid that means none", "GetUserRecord", `"uid":4294967295`, `{"parameters":{"parameter":"uid"},"error":"org.varlink.service.InvalidParameter"}`},
		{"uid of another type", "GetUserRecord", `"uid":"0"`, `{"parameters":{"parameter":"uid"},"error":"org.varlink.service.InvalidParameter"}`},
		{"other service", "GetUserRecord", `"userName":"alice","service":"io.other"`, `{"error":"io.systemd.UserDatabase.BadService"}`},
		{"group by name", "GetGroupRecord", `"groupName":"physics"`, record(physics)},
		{"group by gid", "GetGroupRecord", `"gid":200100`, record(physics)},
		{"group unknown", "GetGroupRecord", `"groupName":"alic"`, none},
		{"groups filtered", "GetGroupRecord+", `"gidMin":200100,"gidMax":200100`, record(physics)},
		{"member of", "GetMemberships+", `"userName":"bob"`,
			`{"parameters":{"userName":"bob","groupName":"physics"},"continues":true}` + "\n" + `{"parameters":{"userName":"bob","groupName":"zoo"}}`},
		{"members", "GetMemberships+", `"groupName":"physics"`,
			`{"parameters":{"userName":"alice","groupName":"physics"},"continues":true}` + "\n" + `{"parameters":{"userName":"bob","groupName":"physics"}}`},
		{"one membership", "GetMemberships", `"userName":"bob","groupName":"zoo"`, `{"parameters":{"userName":"bob","groupName":"zoo"}}`},
		{"no such membership", "GetMemberships", `"userName":"alice","groupName":"zoo"`, none},
		{"memberships without leave for many", "GetMemberships", `"userName":"bob"`, `{"error":"org.varlink.service.ExpectedMore"}`},
		{"memberships of nobody", "GetMemberships+", `"userName":"root"`, none},
		{"no such method", "SetUserRecord", ``, `{"parameters":{"method":"io.systemd.UserDatabase.SetUserRecord"},"error":"org.varlink.service.MethodNotFound"}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			method, more := strings.CutSuffix(tt.method, "+")
			parameters := strings.Trim(tt.parameters+`,"service":"io.vcpeer"`, ",")
			if strings.Contains(tt.parameters, "service") {
				parameters = tt.parameters
			}
			request := `{"method":"io.systemd.UserDatabase.` + method + `","parameters":{` + parameters + `}`
			if more {
				request += `,"more":true`
			}
			if got := ask(t, sample(), request+"}"); got != tt.want {
				t.Errorf("%s\n got %s\nwant %s", request, got, tt.want)
			}
		})
	}
}

func TestAnswerWithoutRecords(t *testing.T) {
	const request = `{"method":"io.systemd.UserDatabase.GetUserRecord","parameters":{"service":"io.vcpeer"},"more":true}`
	if got := ask(t, nil, request); got != `{"error":"io.systemd.UserDatabase.ServiceNotAvailable"}` {
		t.Errorf("before anything is known: %s", got)
	}
	if got := ask(t, NewSnapshot(nil, nil, Local{}), request); got != `{"error":"io.systemd.UserDatabase.NoRecordFound"}` {
		t.Errorf("with no accounts: %s", got)
	}
	if got := ask(t, sample(), `{"method":"io.systemd.UserDatabase.GetUserRecord"}`); got != `{"error":"io.systemd.UserDatabase.BadService"}` {
		t.Errorf("without parameters: %s", got)
	}
}

func TestIntrospection(t *testing.T) {
	for request, want := range map[string]string{
		`{"method":"org.varlink.service.GetInfo"}`: `"interfaces":["org.varlink.service","io.systemd.UserDatabase"]`,
		`{"method":"org.varlink.service.GetInterfaceDescription","parameters":{"interface":"io.systemd.UserDatabase"}}`: `interface io.systemd.UserDatabase`,
		`{"method":"org.varlink.service.GetInterfaceDescription","parameters":{"interface":"x.y"}}`:                     `InterfaceNotFound`,
		`{"method":"org.varlink.service.GetInterfaceDescription","parameters":[]}`:                                      `InvalidParameter`,
		`{"method":"org.varlink.service.Get"}`:                                                                          `MethodNotFound`,
		`{"method":"io.systemd.Login.GetUser"}`:                                                                         `{"parameters":{"interface":"io.systemd.Login"},"error":"org.varlink.service.InterfaceNotFound"}`,
		`{"method":"x"}`:                                                                                                `InterfaceNotFound`,
	} {
		if got := ask(t, sample(), request); !strings.Contains(got, want) {
			t.Errorf("%s\n got %s\nwant …%s…", request, got, want)
		}
	}
}

func TestReadFrame(t *testing.T) {
	long := strings.Repeat("x", maxFrameBytes)
	for _, tt := range []struct {
		name, in string
		frames   []string
		end      error
	}{
		{"none", "", nil, io.EOF},
		{"two", "a\x00bc\x00", []string{"a", "bc"}, io.EOF},
		{"cut off", "a\x00b", []string{"a"}, io.ErrUnexpectedEOF},
		{"longest", long + "\x00a\x00", []string{long, "a"}, io.EOF},
		{"too long", long + "x\x00", nil, errFrameSize},
	} {
		r := newFrameReader(strings.NewReader(tt.in))
		var got []string
		var err error
		for {
			var frame []byte
			if frame, err = readFrame(r); err != nil {
				break
			}
			got = append(got, string(frame))
		}
		if strings.Join(got, "|") != strings.Join(tt.frames, "|") || err != tt.end {
			t.Errorf("%s: %d frames, %v; want %d, %v", tt.name, len(got), err, len(tt.frames), tt.end)
		}
	}
}

// FuzzCall: whatever comes over the socket, each call gets replies that are JSON, of which only the last ends the call.
func FuzzCall(f *testing.F) {
	for _, m := range []string{"GetUserRecord", "GetGroupRecord", "GetMemberships"} {
		f.Add([]byte(`{"method":"io.systemd.UserDatabase.` + m + `","parameters":{"service":"io.vcpeer"},"more":true}` + "\x00"))
	}
	f.Add([]byte(`{"method":"io.systemd.UserDatabase.GetUserRecord","parameters":{"uid":200001,"userName":"alice","fuzzyNames":["a"],"uidMin":1,"uidMax":2,"service":"io.vcpeer"}}` + "\x00\x00{}"))
	f.Add([]byte(`{"method":"org.varlink.service.GetInterfaceDescription","parameters":{"interface":"x"},"oneway":true}` + "\x00"))
	s := sample()
	f.Fuzz(func(t *testing.T, in []byte) {
		r := bufio.NewReaderSize(bytes.NewReader(in), maxFrameBytes+1)
		for {
			frame, err := readFrame(r)
			if err != nil {
				return
			}
			if len(frame) > maxFrameBytes || bytes.IndexByte(frame, 0) >= 0 {
				t.Fatalf("frame of %d bytes", len(frame))
			}
			c, err := decodeCall(frame)
			if err != nil {
				continue
			}
			open := true
			for reply := range answer(c, "io.vcpeer", s) {
				if !open {
					t.Fatalf("%s: a reply after the last", frame)
				}
				open = reply.Continues
				out, err := encodeReply(reply)
				if err != nil || !json.Valid(out[:len(out)-1]) || bytes.IndexByte(out, 0) != len(out)-1 {
					t.Fatalf("%s: reply %q, %v", frame, out, err)
				}
			}
			if open {
				t.Fatalf("%s: no last reply", frame)
			}
		}
	})
}
