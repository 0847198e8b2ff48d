#!/usr/bin/env bash
# The whole story on one machine, as root: a lab of four sites (lab/sites.yaml) whose six nodes are machines of their own,
# one network over all of them, the screening job of run.sh as an array over all sites, an MPI program over all nodes
# (mpi/), and a site that is cut off while its tasks run. lib.sh lists the variables that change what happens.
# shellcheck disable=SC2317 # traps and follow call functions by name
set -euo pipefail
# shellcheck source=deploy/demo/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=deploy/demo/screen.sh
source "$here/screen.sh"

ligands=${DEMO_LIGANDS:-12}
export VCPEER_LAB=$demo_lab
nodes=(kyoto-1 kyoto-2 osaka-1 osaka-2 sandiego-1 singapore-1)
from=kyoto-1     # where alice works
far=singapore    # the site that is cut off; one node
lab=/run/vcpeer-lab/$VCPEER_LAB
user=alice

main() {
	((EUID == 0)) || die "a lab needs root, for network and mount namespaces: sudo make demo-lab"
	[[ -x $vcpeer ]] || die "$vcpeer is not there: make build"
	vcpeer=$(cd "$(dirname "$vcpeer")" && pwd)/$(basename "$vcpeer")
	own_dir
	"$here/packages.sh" lab
	! "$vcpeer" lab status >/dev/null 2>&1 || die "lab $VCPEER_LAB is up already: make demo-down ends it"
	trap 'ended $?' EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM HUP

	step "Molecules"
	"$here/molecules.sh" "$demo/molecules" "$ligands"
	say "HIV-1 protease and $ligands ligands are in $demo/molecules"
	start_lab
	show_network
	show_detour
	make_user
	screen
	heat
	cut_off
	show_end
	stay
}

# ended is the end, however it came.
ended() {
	trap - EXIT
	trap '' INT TERM HUP # the second Ctrl-C must not stop the tidying
	if [[ ${keep:-} ]]; then
		exit "$1"
	fi
	say ""
	say "taking the lab down ..."
	end_lab
	say "ended; molecules and the results of the last job are still in $demo"
	exit "$1"
}

# on NODE COMMAND... runs it there; as_user NODE COMMAND... as the user, in $HOME/screen when that is there.
on() { "$vcpeer" lab exec "$1" -- "${@:2}"; }
# shellcheck disable=SC2016 # expands there
as_user() { on "$1" runuser -u "$user" -- sh -c 'cd; cd screen 2>/dev/null; exec "$@"' sh "${@:2}"; }
vc() { as_user "$from" vcpeer "$@"; }
look="$vcpeer lab exec --name $VCPEER_LAB $from -- vcpeer"
work=$lab/$from/home/$user/screen

# try SECONDS COMMAND... until it succeeds.
try() {
	local deadline=$((SECONDS + $1))
	until "${@:2}" >/dev/null 2>&1; do
		((SECONDS < deadline)) || die "gave up after $1 s: ${*:2}"
		sleep 0.3
	done
}

start_lab() {
	step "Four sites, six machines"
	say "\$ vcpeer lab up deploy/demo/lab/sites.yaml"
	"$vcpeer" lab up "$here/lab/sites.yaml" >/dev/null
	for node in "${nodes[@]}"; do
		try 60 well "$node"
	done
	say "\$ vcpeer members; vcpeer hosts        # on $from"
	on "$from" vcpeer members
	on "$from" vcpeer hosts
}

# well NODE: it is well, hears all others and reaches all sites over the network.
well() {
	on "$1" vcpeer status --json | jq -e --argjson n "${#nodes[@]}" '.well and .cluster.alive == $n' &&
		on "$1" vcpeer overlay --json | jq -e '.up and (.uplink != null or .sites == .sitesOf)'
}

show_network() {
	local node
	step "One network over all of them: every machine by its name"
	for node in "${nodes[@]:1}"; do
		say "\$ ping -c3 $node   $(on "$from" ping -q -c3 -i0.2 "$node" | awk -F/ '/^rtt/ { printf "%.1f ms\n", $5 }')"
	done
	say "\$ iperf3 -c kyoto-2        # from osaka-1, through user space twice and the lab's network"
	on kyoto-2 iperf3 -s -1 -D
	try 5 on osaka-1 ping -c1 -W1 kyoto-2
	sleep 0.5
	rate=$(on osaka-1 iperf3 -c kyoto-2 -t 3 -J | jq '.end.sum_received.bits_per_second / 1e6 | round')
	say "$rate Mbit/s"
}

# way FROM TO prints the way between two nodes, its RTT and that of the direct link, in milliseconds.
way() {
	on "$1" vcpeer why "$1" "$2" --json | jq -r '[(.way | join(" > ")), .path.rttMillis // 0, .path.directMillis // 0] | @tsv'
}

# pairs prints the ways between some pairs of nodes.
pairs() {
	local pair a b path rtt straight
	printf '%-12s %-12s %12s %12s  %s\n' from to "direct ms" "network ms" way
	for pair in osaka-1:kyoto-1 "osaka-1:$far-1" osaka-1:sandiego-1 kyoto-1:sandiego-1 "kyoto-1:$far-1" "sandiego-1:$far-1"; do
		a=${pair%:*} b=${pair#*:}
		IFS=$'\t' read -r path rtt straight < <(way "$a" "$b")
		printf '%-12s %-12s %12.1f %12.1f  %s\n' "$a" "$b" "$straight" "$rtt" "$path"
	done
}

# echoes FILE prints how many echo requests got no answer, and the RTT of the last answers.
echoes() {
	awk '/ received/ { lost = $1 - $4 } /time=/ { split($0, t, "time="); last = t[2] } END { print lost, "lost of 150, then " last }' "$1"
}

show_detour() {
	local path begun
	step "The shortest measured way, not the direct one"
	try 30 detour osaka-1 "$far-1"
	say "\$ vcpeer why osaka-1 $far-1"
	on osaka-1 vcpeer why osaka-1 "$far-1"
	say "\$ vcpeer trace $far-1        # on osaka-1"
	on osaka-1 vcpeer trace "$far-1"
	direct=$(on osaka-1 ping -q -c5 -i0.2 "$(underlay "$far-1")" | awk -F/ '/^rtt/ { printf "%.1f", $5 }')
	say "without the network, machine to machine: $direct ms"
	pairs >"$demo/pairs.txt"

	step "The link that it uses is cut, with packets on the way"
	on osaka-1 ping -i 0.05 -c 150 "$far-1" >"$demo/ping.txt" 2>&1 &
	path=$!
	sleep 2
	say "\$ vcpeer lab cut kyoto $far"
	"$vcpeer" lab cut kyoto "$far"
	wait "$path" || true
	failover=$(echoes "$demo/ping.txt")
	say "$failover (one every 50 ms)"
	say "now: $(way osaka-1 "$far-1" | cut -f1)"
	say "\$ vcpeer lab heal kyoto $far"
	"$vcpeer" lab heal kyoto "$far"
	begun=$SECONDS
	try 90 detour osaka-1 "$far-1"
	say "back on the shorter way $((SECONDS - begun)) s later: no link that came back a moment ago is taken at once"
}

# detour FROM TO: the way passes others.
detour() { on "$1" vcpeer why "$1" "$2" --json | jq -e '.path.via != [] and .path != null'; }

# underlay NODE prints its address below the network.
underlay() { "$vcpeer" lab status --json | jq -r --arg n "$1" '.nodes[] | select(.name == $n) | .addrs[0]'; }

# make_user makes an account of the cluster with a key, and has each machine let it in by ssh on the network's address.
make_user() {
	local node dir
	step "A user of the whole cluster, and ssh between all nodes"
	rm -rf "$demo/ssh"
	mkdir -m 0700 "$demo/ssh"
	ssh-keygen -q -t ed25519 -N '' -C "$user" -f "$demo/ssh/user"
	ssh-keygen -q -t ed25519 -N '' -C "hosts of the demo" -f "$demo/ssh/host"
	say "\$ vcpeer account add $user --key 'ssh-ed25519 …'"
	on "$from" vcpeer account add "$user" --key "$(cat "$demo/ssh/user.pub")"
	for node in "${nodes[@]}"; do
		try 20 on "$node" id "$user"
		dir=$lab/$node
		install -d -m 0755 "$dir/run/sshd" "$dir/etc/ssh"
		install -m 0600 "$demo/ssh/host" "$dir/etc/ssh/host"
		install -m 0755 "$here/lab/ssh-keys.sh" "$dir/etc/ssh/vcpeer-keys"
		sed "s/ADDRESS/$(on "$node" vcpeer overlay --json | jq -r .address)/" "$here/lab/sshd_config" >"$dir/etc/ssh/sshd_config"
		printf '* %s\n' "$(cut -d ' ' -f 1,2 "$demo/ssh/host.pub")" >"$dir/etc/ssh/ssh_known_hosts"
		install -d -m 0700 "$dir/home/$user/.ssh"
		install -m 0600 "$demo/ssh/user" "$dir/home/$user/.ssh/id_ed25519"
		on "$node" chown -R "$user:" "/home/$user"
		on "$node" /usr/sbin/sshd -f /etc/ssh/sshd_config
	done
	# shellcheck disable=SC2016 # expands there
	say "\$ ssh $far-1 'echo \$(hostname): \$(id)'        # as $user, on $from"
	# shellcheck disable=SC2016
	try 20 as_user "$from" ssh "$far-1" true
	as_user "$from" ssh "$far-1" 'echo $(hostname): $(id)'
}

screen() {
	step "The job: $ligands dockings over all sites, one of which cannot succeed"
	take_along
	submit
	follow
	show_results
	expect "sites that docked" 4 "$(jq '[.taskList[].site] | unique | length' "$demo/job.json")"
	screened=$(by_site)
	rm -rf "$demo/first"
	cp -R "$work/out" "$demo/first"
}

take_along() {
	prepare_work
	on "$from" chown -R "$user:" "/home/$user/screen"
}

heat() {
	step "An MPI program over all nodes, on the network's addresses"
	say "\$ cat \$VCPEER_HOSTFILE"
	on "$from" cat /run/vcpeer/hostfile
	install -m 0644 "$here/mpi/heat.c" "$here/mpi/heat.sh" "$work/"
	say "\$ vcpeer run --in heat.c heat.sh        # mpicc, then mpirun --hostfile \$VCPEER_HOSTFILE ./heat"
	vc run --in heat.c heat.sh | tee "$demo/heat.txt"
	expect "ranks of the MPI program" "${#nodes[@]}" "$(grep -c '^rank ' "$demo/heat.txt")"
	expect "what the MPI program says of its result" correct "$(sed -n 's/^heat equation.*: //p' "$demo/heat.txt")"
}

cut_off() {
	local cut begun tasks
	step "The same job again; $far is cut off while its tasks run"
	take_along
	submit
	follow far_runs
	tasks=$(at_far .index)
	say "\$ vcpeer lab cut $far        # it runs task $tasks"
	"$vcpeer" lab cut "$far"
	begun=$SECONDS
	say "\$ vcpeer run -- hostname        # at $far, alone: $(as_user "$far-1" vcpeer run --timeout 30s -- hostname)"
	follow others_ended
	cut=$((SECONDS - begun))
	say "\$ vcpeer members        # on $from"
	on "$from" vcpeer members | awk -v site="$far" 'NR == 1 || $2 == site'
	say "after ${cut} s: all that is not at $far has ended"
	say "\$ vcpeer lab heal $far"
	"$vcpeer" lab heal "$far"
	follow
	for index in $tasks; do
		jq -r --argjson n "$index" '.taskList[] | select(.index == $n) | "task \($n): \(.state) once, on \(.node), attempt \(.attempt)"' "$demo/job.json"
	done
	check_results
	expect "tasks that are told of more than once" 0 "$(jq '[.taskList[].index] | length - (unique | length)' "$demo/job.json")"
	if diff -rq -x '*.tsv' "$demo/first" "$work/out" && diff -rq "$demo/first" "$work/out"; then
		same="identical to those of the first run, byte for byte"
	else
		same="NOT those of the first run"
		failed=1
	fi
	say "results: $same"
	healed="$cut s without $far, $(jq '.tasks.done' "$demo/job.json") done and $(jq '.tasks.failed' "$demo/job.json") failed, each once"
}

# at_far FIELD lists the tasks that run at the far site.
at_far() { jq -r --arg s "$far" "[.taskList[]? | select(.state == \"running\" and .site == \$s) | $1] | join(\" \")" "$demo/job.json"; }

far_runs() { [[ $(at_far .index) ]]; }

# others_ended: nothing waits or runs but what was at the far site.
others_ended() {
	jq -e --arg s "$far" '(.tasks.pending // 0) == 0 and all(.taskList[]; .site == $s or (.state | IN("done", "failed")))' "$demo/job.json" >/dev/null
}

show_end() {
	step "In short"
	cat "$demo/pairs.txt"
	say ""
	printf '%-28s %s\n' \
		"osaka to kyoto, one flow" "$rate Mbit/s" \
		"osaka to $far, measured" "$direct ms from machine to machine" \
		"its first link was cut" "$failover" \
		"dockings by site" "$screened" \
		"MPI" "$(sed -n 's/^heat equation, //p' "$demo/heat.txt")" \
		"$far was cut off" "$healed" \
		"its results" "$same"
}

stay() {
	step "Look around, in another terminal"
	say "export VCPEER_LAB=$VCPEER_LAB PATH=$(dirname "$vcpeer"):\$PATH"
	say "vcpeer lab status · lab exec $from -- vcpeer status · paths · links · why osaka $far · jobs -a"
	say "vcpeer lab exec $from -- runuser -u $user -- bash        # the user's own shell"
	say "vcpeer lab cut $far · heal $far · set 'kyoto<>osaka' delay=50ms"
	if [[ ${DEMO_KEEP:-0} == 1 ]]; then
		keep=1
		say "The lab stays; make demo-down ends it."
	elif [[ -t 0 && -t 1 && -z ${CI:-} ]]; then
		say "Ctrl-C ends all of it."
		trap 'exit $failed' INT
		while "$vcpeer" lab status >/dev/null 2>&1; do sleep 2; done
		say "the lab was ended from elsewhere"
	fi
	exit "$failed"
}

main
