#!/usr/bin/env bash
# End a demo that was left running: its jobs, its nodes, and their state. Molecules and results stay for the next time.
set -euo pipefail
# shellcheck source=deploy/demo/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

[[ -d $demo/nodes ]] || {
	say "no demo is running (nothing in $demo)"
	exit 0
}
own_dir
end_cluster
say "the demo has ended; molecules and results are still in $demo"
