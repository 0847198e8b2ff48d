#!/usr/bin/env bash
# Three sites on this machine, a real job over them: kyoto and osaka with two nodes each, lab with one, on loopback, each
# node with a port and a directory of its own, joined by nothing but the commands that a user types. The job docks
# molecules into HIV-1 protease (AutoDock Vina); one of them cannot succeed, and is explained.
# lib.sh lists the variables that change what happens.
# shellcheck disable=SC2317 # traps and await call functions by name
set -euo pipefail
# shellcheck source=deploy/demo/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=deploy/demo/screen.sh
source "$here/screen.sh"

ligands=${DEMO_LIGANDS:-12}

main() {
	[[ -x $vcpeer ]] || die "$vcpeer is not there: make build"
	vcpeer=$(cd "$(dirname "$vcpeer")" && pwd)/$(basename "$vcpeer")
	own_dir
	"$here/packages.sh"
	for name in "${nodes[@]}"; do
		! alive "$name" || die "a demo is running already in $demo: make demo-down ends it"
	done
	end_cluster # what a demo that was killed left
	trap 'ended $?' EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM HUP

	step "Molecules"
	"$here/molecules.sh" "$demo/molecules" "$ligands"
	say "HIV-1 protease and $ligands ligands are in $demo/molecules"
	start_cluster
	step "The job: $ligands dockings, one of which cannot succeed"
	look="$vcpeer --dir $demo/nodes/${nodes[0]}"
	work=$demo/work
	prepare_work
	cd "$work"
	submit
	follow
	show_results
	repeat
	look_around
}

# ended is the end, however it came.
ended() {
	trap - EXIT
	trap '' INT TERM HUP # the second Ctrl-C must not stop the tidying
	if [[ ${keep:-} ]]; then
		exit "$1"
	fi
	say ""
	say "ending the nodes ..."
	end_cluster
	say "ended; molecules and results are still in $demo"
	exit "$1"
}

start_cluster() {
	local i
	step "Three sites"
	base=$(free_ports)
	mkdir -p "$demo/nodes"
	say "\$ vcpeer start --name ${nodes[0]} --site kyoto        # makes a cluster"
	start_node "${nodes[0]}" "$base"
	expected=1
	await "${nodes[0]} is well" 30 all_well
	say "\$ vcpeer token --reusable"
	(umask 077 && vc token --reusable -q >"$demo/nodes/token")
	# The first node of a site makes the site: two that do so at one moment would make two of one name.
	for i in 1 2 4; do join "$i"; done
	expected=4
	await "each site has a node" 60 all_well
	join 3
	expected=5
	await "all five nodes are well" 60 all_well
	rm -f "$demo/nodes/token"
	vc members
}

# join INDEX starts a node that joins through the first one.
join() {
	local name=${nodes[$1]}
	say "\$ vcpeer start --name $name --site ${name%-*} --seed 127.0.0.1:$base --token-file token"
	start_node "$name" $((base + $1)) --seed "127.0.0.1:$base" --token-file "$demo/nodes/token"
}

# free_ports prints the first of five ports in a row at which nobody answers.
free_ports() {
	local base i
	[[ -z ${DEMO_PORT:-} ]] || {
		echo "$DEMO_PORT"
		return
	}
	for ((base = 17475; base < 18000; base += 10)); do
		for i in 0 1 2 3 4; do
			! (: <"/dev/tcp/127.0.0.1/$((base + i))") 2>/dev/null || continue 2
		done
		echo "$base"
		return
	done
	die "no five free ports in a row from 17475 on; set DEMO_PORT"
}

# await WHAT SECONDS CHECK waits until CHECK succeeds, showing the line that it prints when that changes. It gives up after
# so long, or when a node has ended, with the end of that node's log.
await() {
	local what=$1 deadline=$((SECONDS + $2)) line last="" name
	until line=$("$3"); do
		if [[ $line != "$last" ]]; then
			say "  waiting until $what: $line"
			last=$line
		fi
		for name in "${nodes[@]}"; do
			[[ ! -e $demo/nodes/$name.pid ]] || alive "$name" || gone "$name"
		done
		if ((SECONDS >= deadline)); then
			tail -n 5 "$demo"/nodes/*.log >&2
			die "gave up waiting until $what: $line"
		fi
		sleep 0.3
	done
}

gone() {
	tail -n 20 "$demo/nodes/$1.log" >&2
	die "node $1 has ended; the end of its log is above"
}

# all_well: each node that was started is well and hears all of them ($expected).
all_well() {
	local name status well=0 unwell=""
	for name in "${nodes[@]}"; do
		[[ -e $demo/nodes/$name.pid ]] || continue
		status=$(status_of "$name")
		if jq -e --argjson n "$expected" '.well and .cluster.alive == $n' >/dev/null <<<"$status"; then
			well=$((well + 1))
			continue
		fi
		unwell+=", $name $(jq -r --argjson n "$expected" '
			if .node.phase != "running" then "\(.node.phase) \(.node.detail // "")"
			elif .cluster.alive != $n then "hears \(.cluster.alive) of \($n)"
			else ([.checks[]? | select(.level == "fail" or .level == "warn") | .message] + ["is not well yet"])[0] end' <<<"$status")"
	done
	say "$well of $expected$unwell"
	((well == expected))
}

# status_of NODE prints its status as JSON, something like it while the node does not answer yet.
status_of() {
	local status
	status=$(vc_of "$1" status --json --timeout 5s 2>/dev/null) || true
	jq -e .node >/dev/null 2>&1 <<<"$status" || status='{"node": {"phase": "starting"}}'
	printf '%s\n' "$status"
}

# repeat runs the quickest task again at another site: the pose must be the same, byte for byte.
repeat() {
	local task site other again
	step "The same task again, at another site"
	read -r task site < <(jq -r '[.taskList[] | select(.state == "done" and .index > 1)] | sort_by(.cpuNanos) | .[0] | "\(.index) \(.site)"' "$demo/job.json")
	other=$(printf '%s\n' "${nodes[@]%-*}" | grep -vx "$site" | tail -n 1)
	say "\$ vcpeer submit --wait --site $other --array $task-$task --result-dir again ... dock.sh"
	mkdir -p again
	again=$(vc submit -q --name again --site "$other" --array "$task-$task" --result-dir "$work/again" --in receptor.pdbqt --in lig --out 'out/*' dock.sh)
	vc wait "$again" --timeout 3m
	expect "where the repeated task ran" "$other" "$(vc job "$again" --json | jq -r '.taskList[0].site')"
	(cd out && sha256sum "$task.pdbqt") | sed "s/^/$site /"
	(cd again/out && sha256sum "$task.pdbqt") | sed "s/^/$other /"
	if cmp -s "out/$task.pdbqt" "again/out/$task.pdbqt"; then
		say "identical"
	else
		say "demo: the two differ, and should not"
		failed=1
	fi
}

look_around() {
	step "Look around, in another terminal"
	say "export VCPEER_DIR=$demo/nodes/${nodes[0]} PATH=$(dirname "$vcpeer"):\$PATH"
	say "vcpeer status · members · sites · jobs -a · job $id · events · token"
	say "vcpeer run -- hostname          # and kill -9 a node meanwhile: $demo/nodes/NAME.pid"
	say "results: $work/out"
	if [[ ${DEMO_KEEP:-0} == 1 ]]; then
		keep=1
		say "The cluster stays; make demo-down ends it."
	elif [[ -t 0 && -t 1 && -z ${CI:-} ]]; then
		say "Ctrl-C ends all of it."
		trap 'exit $failed' INT
		while alive "${nodes[0]}"; do sleep 1; done
		say "the nodes were ended from elsewhere"
	fi
	exit "$failed"
}

main
