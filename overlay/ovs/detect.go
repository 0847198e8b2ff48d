package ovs

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
)

// Info is what a machine's Open vSwitch is and can do.
type Info struct {
	Version    string   // of ovs-vswitchd: "3.1.0"
	Datapaths  []string // that it offers
	Interfaces []string // types of ports that it offers
	Datapath   string   // to use: "system", the kernel's, where it works, else "netdev", in user space
	Kernel     bool     // the kernel has Open vSwitch
}

// Detect looks whether Open vSwitch is there and running; it changes nothing. ErrNotInstalled and ErrNotRunning come as an
// Error with a hint.
func Detect(ctx context.Context, cfg Config) (Info, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return Info{}, err
	}
	if _, err := exec.LookPath("ovs-ofctl"); err != nil {
		return Info{}, &Error{
			Thing: "this machine",
			Err:   fmt.Errorf("%w: %w", ErrNotInstalled, err),
			Hint:  "install it: apt-get install openvswitch-switch (Debian, Ubuntu), dnf install openvswitch (Fedora, EL)",
		}
	}
	db, err := dialDatabase(ctx, cfg)
	if err != nil {
		return Info{}, err
	}
	defer db.close()
	have, err := db.read(ctx)
	if err != nil {
		return Info{}, err
	}
	version, err := control(ctx, cfg, "version")
	if err != nil {
		return Info{}, err
	}
	info := Info{Datapaths: have.datapaths, Interfaces: have.kinds, Kernel: kernelHas()}
	if f := strings.Fields(version); len(f) > 0 {
		info.Version = f[len(f)-1]
	}
	return info, info.choose()
}

func (i *Info) choose() error {
	for _, d := range []string{"system", "netdev"} {
		if slices.Contains(i.Datapaths, d) && (d != "system" || i.Kernel) {
			i.Datapath = d
			return nil
		}
	}
	return errors.New("ovs: no datapath: ovs-vswitchd offers " + strings.Join(i.Datapaths, ", "))
}

// kernelHas asks the kernel itself: ovs-vswitchd may offer "system" where it does not work.
func kernelHas() bool {
	_, err := netlink.GenlFamilyGet("ovs_datapath")
	return err == nil
}
