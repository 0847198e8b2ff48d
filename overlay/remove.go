package overlay

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"vcpeer/overlay/ovs"
	"vcpeer/overlay/sealed"
	"vcpeer/overlay/underlay"
)

// Remove takes away all that this Network made, when Run has ended.
func (n *Network) Remove(ctx context.Context) error {
	_, err := Remove(ctx, n.cfg)
	return err
}

// Remove takes away all that a node made in Open vSwitch and in the kernel, and names it. Other bridges, also those of other
// nodes of this machine, stay as they are. Without Open vSwitch there is nothing to take away. Not while its Network runs.
func Remove(ctx context.Context, cfg Config) (removed []string, err error) {
	if cfg.Name == "" {
		cfg.Name = defaultName
	}
	sw, err := ovs.Open(ctx, ovs.Config{RunDir: cfg.RunDir, Owner: cfg.Self.String(), Log: cfg.Log})
	switch {
	case errors.Is(err, ovs.ErrNotInstalled) || errors.Is(err, ovs.ErrNotRunning):
		return nil, nil
	case err != nil:
		return nil, err
	}
	defer sw.Close()
	bridges := sw.Owned()
	if len(bridges) == 0 {
		return nil, nil
	}
	left := readGiven(sw).take(nil)
	if err := sw.Remove(ctx); err != nil {
		return nil, errors.Join(left, fmt.Errorf("overlay: remove the bridges: %w", err))
	}
	for _, b := range bridges {
		removed = append(removed, "bridge "+b)
		if strings.HasSuffix(b, "u") {
			continue // only the other has a guard, and the TAP its name
		}
		if err := sealed.RemoveTAP(tapPort(b)); err != nil {
			return removed, err
		}
		if err := underlay.Unguard(ctx, b); err != nil && !errors.Is(err, underlay.ErrNoNFT) {
			return removed, err
		}
	}
	return removed, left
}
