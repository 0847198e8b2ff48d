# shellcheck shell=bash
# What run.sh, lab.sh and down.sh share: where things are, and how the processes of a demo are started, known again and
# ended.
# Variables that a user may set:
#   DEMO_LIGANDS     how many molecules to dock, 8 to 200 (12)
#   DEMO_KEEP=1      leave the cluster, or the lab, running at the end
#   VCPEER_DEMO_DIR  where all of it lives (/tmp/vcpeer-demo-UID)
#   DEMO_PORT        first of five ports on 127.0.0.1 (the first five in a row that are free from 17475 on)

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
demo=${VCPEER_DEMO_DIR:-/tmp/vcpeer-demo-$UID}
vcpeer=${VCPEER:-$here/../../bin/vcpeer}
demo_lab=demo
nodes=(kyoto-1 kyoto-2 osaka-1 osaka-2 lab-1) # a site's name and a number; the first makes the cluster

say() { printf '%s\n' "$*"; }
step() { printf '\n\033[1m%s\033[0m\n' "$*"; }
[[ -t 1 ]] || step() { printf '\n%s\n' "$*"; }
die() {
	printf 'demo: %s\n' "$*" >&2
	exit 1
}

# own_dir makes the demo's directory, refusing one that another user made: /tmp is everybody's.
own_dir() {
	[[ -d $demo ]] || mkdir -m 0700 "$demo"
	[[ -O $demo && ! -L $demo ]] || die "$demo belongs to somebody else; set VCPEER_DEMO_DIR"
	demo=$(cd "$demo" && pwd -P)
}

# birth PID prints when the process started, in clock ticks since boot: together with the number it means one process for
# ever, while the number alone is given again. One that has ended and is not reaped yet is gone. The name at the front of
# the line, in brackets, may hold anything.
birth() {
	local stat fields
	stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
	read -ra fields <<<"${stat##*) }" # from the third field on
	[[ ${fields[0]} != [ZX] ]] && echo "${fields[19]}"
}

# is PID BIRTH: that process is there.
is() { [[ -n $2 && $(birth "$1") == "$2" ]]; }

# alive NODE: the process that this demo started for the node runs.
alive() {
	local pid born
	read -r pid born 2>/dev/null <"$demo/nodes/$1.pid" || return 1
	is "$pid" "$born"
}

# vc runs the command line against the first node, and vc_of NODE against another.
vc() { "$vcpeer" --dir "$demo/nodes/${nodes[0]}" "$@"; }
vc_of() { "$vcpeer" --dir "$demo/nodes/$1" "${@:2}"; }

# start_node NAME PORT [FLAG...] starts a node in a session of its own, so that Ctrl-C does not reach it before its jobs.
start_node() {
	local name=$1 port=$2 pid
	shift 2
	mkdir -p "$demo/nodes/$name"
	setsid "$vcpeer" --dir "$demo/nodes/$name" start --name "$name" --site "${name%-*}" --listen "127.0.0.1:$port" \
		--slots 1 --jobs-as self --integrate off "$@" >"$demo/nodes/$name.log" 2>&1 </dev/null &
	pid=$!
	disown "$pid"
	echo "$pid $(birth "$pid")" >"$demo/nodes/$name.pid"
}

# shims prints "PID BIRTH" of the processes that look after jobs of this demo: they outlive their node by design. They
# are known by the binary's name and by a directory of this demo among their arguments.
shims() {
	local dir pid
	for dir in /proc/[0-9]*; do
		pid=${dir#/proc/}
		[[ -O $dir && $(readlink "$dir/exe" 2>/dev/null) == */vcpeer* ]] || continue
		tr '\0' '\n' 2>/dev/null <"$dir/cmdline" | grep -qF "$demo/nodes/" || continue
		echo "$pid $(birth "$pid")"
	done
}

# end_all SECONDS "PID BIRTH"... ends processes, with SIGKILL what is left after so long.
end_all() {
	signal_all TERM "${@:2}"
	gone_within "$1" "${@:2}" && return 0 # a bare return within a trap has the status from before it
	signal_all KILL "${@:2}"
	gone_within 3 "${@:2}"
}

signal_all() {
	local process pid born
	for process in "${@:2}"; do
		read -r pid born <<<"$process"
		if is "$pid" "$born"; then kill "-$1" "$pid" 2>/dev/null || true; fi
	done
}

gone_within() {
	local end=$((SECONDS + $1)) process pid born left
	while :; do
		left=0
		for process in "${@:2}"; do
			read -r pid born <<<"$process"
			if is "$pid" "$born"; then left=1; fi
		done
		((left)) || return 0
		((SECONDS <= end)) || return 1
		sleep 0.1
	done
}

# end_cluster ends whatever runs of a demo, jobs first, and takes its state away. Molecules and results stay.
end_cluster() {
	local name job running=()
	[[ -d $demo/nodes ]] || return 0
	for name in "${nodes[@]}"; do
		if alive "$name"; then running+=("$(cat "$demo/nodes/$name.pid")"); fi
	done
	if ((${#running[@]})) && alive "${nodes[0]}"; then
		for job in $(vc jobs --json --timeout 5s 2>/dev/null | jq -r '.items[]? | select(.state | IN("done", "failed", "cancelled") | not) | .id'); do
			vc cancel "$job" --timeout 5s >/dev/null 2>&1 || true
		done
	fi
	((${#running[@]} == 0)) || end_all 15 "${running[@]}" || say "demo: some nodes do not end: ${running[*]}"
	mapfile -t running < <(shims)
	((${#running[@]} == 0)) || end_all 10 "${running[@]}" || say "demo: some jobs do not end: ${running[*]}"
	rm -rf "$demo/nodes"
}

# end_lab takes down the lab of lab.sh, whatever there is of it.
end_lab() { "$vcpeer" lab down --name "$demo_lab" || say "demo: the lab does not end"; }
