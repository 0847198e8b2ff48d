#!/usr/bin/env bash
# All figures of `make bench`: whole processes through the public API, then the parts by Go's own benchmarks.
#   BENCH_NODES  size of the large cluster of real processes (default 30, which two cores carry; 100 want eight)
#   BENCH_PARTS  0: leave out the benchmarks of the packages
#   BENCH_ONLY   overlay: only the network over all sites, against what is made by hand in its place (root; tinc and babeld
#                where they are installed)
set -euo pipefail
cd "$(dirname "$0")/../.."
overlay() { go run ./deploy/bench/overlay -binary bin/vcpeer; }
case ${BENCH_ONLY:-} in
"") ;;
overlay)
	overlay
	exit
	;;
*)
	echo "bench: BENCH_ONLY=$BENCH_ONLY: want overlay" >&2
	exit 2
	;;
esac
go run ./deploy/bench -binary bin/vcpeer -nodes "${BENCH_NODES:-30}"
echo "a node among 100 (virtual time, real Serf): what membership sends, and whether it is quiet"
VCPEER_LONG=1 go test -count=1 -v -run 'TestNoFalseAlarm|TestFailureIsSeen' ./gossip | grep -E 'nodes, |failed everywhere'
overlay
[[ ${BENCH_PARTS:-1} == 0 ]] || go test -run '^$' -bench . -benchtime 1s ./...
