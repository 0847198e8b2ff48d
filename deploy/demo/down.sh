#!/usr/bin/env bash
# End a demo that was left running, that of run.sh and that of lab.sh: jobs, nodes, and their state. Molecules and results
# stay for the next time.
set -euo pipefail
# shellcheck source=deploy/demo/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

there=0
if [[ -d /run/vcpeer-lab/$demo_lab ]]; then
	there=1
	((EUID == 0)) || die "lab $demo_lab is up, and only root can end it: sudo make demo-down"
	end_lab
fi
if [[ -d $demo/nodes ]]; then
	there=1
	own_dir
	end_cluster
fi
((there)) || {
	say "no demo is running (nothing in $demo)"
	exit 0
}
say "the demo has ended; molecules and results are still in $demo"
