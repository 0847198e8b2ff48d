#!/usr/bin/env bash
# All figures of `make bench`: whole processes through the public API, then the parts by Go's own benchmarks.
#   BENCH_NODES  size of the large cluster (default 100)
#   BENCH_PARTS  0: leave out the benchmarks of the packages
set -euo pipefail
cd "$(dirname "$0")/../.."
go run ./deploy/bench -binary bin/vcpeer -nodes "${BENCH_NODES:-100}"
[[ ${BENCH_PARTS:-1} == 0 ]] || go test -run '^$' -bench . -benchtime 1s ./...
