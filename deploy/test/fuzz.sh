#!/usr/bin/env bash
# Run every fuzz target of the project for FUZZTIME (default 30s) each; stops at the first that finds something.
set -euo pipefail
cd "$(dirname "$0")/../.."
for package in $(go list ./...); do
	for target in $(go test -list '^Fuzz' "$package" | grep '^Fuzz' || true); do
		echo "== $package $target"
		go test -run '^$' -fuzz "^$target\$" -fuzztime "${FUZZTIME:-30s}" "$package"
	done
done
