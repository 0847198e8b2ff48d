#!/usr/bin/awk -f
# From the output of `go test -v` keep the line of each package, all that a failed test printed, and all that a process
# said when it died.
/^=== RUN/ { name = $3; held[name] = ""; order[++n] = name; next }
/^=== (PAUSE|CONT|NAME)/ { name = $3; next }
/^ *--- (PASS|SKIP):/ { delete held[$3]; next }
/^ *--- FAIL:/ { failed = 1; printf "%s\n%s", $0, held[$3]; delete held[$3]; next }
/^(panic:|fatal error:|SIG[A-Z]+: |unexpected fault|ThreadSanitizer: |WARNING: DATA RACE)/ {
	if (!loud) printf "== in %s\n", name
	loud = 1; failed = 1
}
/^(ok|FAIL|\?|\t)/ { if ($1 == "FAIL") failed = 1; if ($1 != "?" || loud) print; if ($1 == "ok" || $1 == "FAIL") loud = 0; next }
/^#/ { print; next }
loud { print; next }
/^PASS$/ { next }
name != "" { held[name] = held[name] $0 "\n"; if (length(held[name]) > 60000) held[name] = substr(held[name], length(held[name]) - 40000); next }
{ print }
END { exit failed }
