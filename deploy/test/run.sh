#!/usr/bin/env bash
# Run every test with the race detector, then the largest simulations without it, and say at the end what was skipped
# and why.
#   TEST_FLAGS   more flags for go test, e.g. "-run Join -v"
set -uo pipefail
cd "$(dirname "$0")/../.."
log=$(mktemp)
trap 'rm -f "$log"' EXIT

status=0
# shellcheck disable=SC2086 # TEST_FLAGS is a list of words on purpose
run() { go test -v -count=1 -timeout 20m "$@" ${TEST_FLAGS:-} 2>&1 | tee -a "$log" | deploy/test/summary.awk || status=1; }

# What runs whole networks on this machine, and judges by what comes through them, runs alone.
alone=(./deploy/e2e ./deploy/e2e/nat ./deploy/lab ./overlay/flow ./overlay/ovs)
mapfile -t beside < <(go list ./... | grep -vxF "$(go list "${alone[@]}")")

echo "== packages side by side, with -race"
run -race "${beside[@]}"
echo "== packages with networks of their own, one after another, with -race"
run -race -p 1 "${alone[@]}"
echo "== 100 nodes over lossy links, ten virtual minutes, without -race"
VCPEER_LONG=1 run -run 'TestFailureIsSeen|TestNoFalseAlarm' ./gossip

skipped=$(grep -A1 -- '--- SKIP' "$log" | grep -v '^--$' || true)
if [[ -n $skipped ]]; then
	echo "== skipped, with the reason"
	echo "$skipped"
fi
exit "$status"
