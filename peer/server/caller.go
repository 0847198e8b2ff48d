package server

import (
	"context"
	"fmt"
	"net"
	"os/user"
	"strconv"

	"golang.org/x/sys/unix"
)

// Caller is the process at the other end of the socket, as the kernel vouches for it (SO_PEERCRED, unix(7)).
type Caller struct {
	UID, GID uint32
	PID      int32
}

// Name returns the caller's user name, or its number where the machine has no name for it.
func (c Caller) Name() string {
	id := strconv.FormatUint(uint64(c.UID), 10)
	if u, err := user.LookupId(id); err == nil {
		return u.Username
	}
	return id
}

type callerKey struct{}

// CallerOf returns who made the request that ctx belongs to. It is false for a context that is not of a request.
func CallerOf(ctx context.Context) (Caller, bool) {
	c, ok := ctx.Value(callerKey{}).(Caller)
	return c, ok
}

// withCaller asks the kernel who connected and keeps the answer for all requests of the connection.
func withCaller(ctx context.Context, conn net.Conn) context.Context {
	c, err := peerCredentials(conn)
	if err != nil {
		return ctx // the handlers refuse a request without a caller
	}
	return context.WithValue(ctx, callerKey{}, c)
}

func peerCredentials(conn net.Conn) (Caller, error) {
	uc, ok := conn.(*net.UnixConn)
	if !ok {
		return Caller{}, fmt.Errorf("server: %T is not a unix socket", conn)
	}
	raw, err := uc.SyscallConn()
	if err != nil {
		return Caller{}, err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return Caller{}, err
	}
	if credErr != nil {
		return Caller{}, fmt.Errorf("server: SO_PEERCRED: %w", credErr)
	}
	return Caller{UID: cred.Uid, GID: cred.Gid, PID: cred.Pid}, nil
}
