# shellcheck shell=bash
# The screening job as run.sh and lab.sh run it: submitted, followed, ranked, explained. Whoever sources it has $here,
# $demo, $ligands, $work (where results come back, as seen from here), and the functions of lib.sh; and defines
#   vc ARG...    the command line of vcpeer, run in $work as the user whose job it is
#   $look        how that user types it, for people to copy

failed=0

# expect WHAT WANTED GOT notes that the demo did not do what it should.
expect() {
	[[ $2 == "$3" ]] || {
		say "demo: $1: $3, should be $2"
		failed=1
	}
}

# prepare_work fills $work with what the job takes along.
prepare_work() {
	rm -rf "$work"
	mkdir -p "$work"
	cp -R "$demo/molecules/receptor.pdbqt" "$demo/molecules/lig" "$here/dock.sh" "$work/"
}

# submit [OPTION...] hands in the job and keeps its ID in $id.
submit() {
	say "\$ vcpeer submit --name screen --array 1-$ligands $*${*:+ }--in receptor.pdbqt --in lig --out 'out/*' dock.sh"
	id=$(vc submit -q --name screen --array "1-$ligands" "$@" --in receptor.pdbqt --in lig --out 'out/*' dock.sh)
	say "job $id"
}

# ask writes what there is to know of the job to $demo/job.json.
ask() { vc job "$id" --json >"$demo/job.json" || die "cannot ask for job $id"; }

# follow [CHECK] shows how the tasks stand, and where, until all have ended and their results are here; or until CHECK,
# which finds the job in $demo/job.json, succeeds.
follow() {
	local line last="" begun=$SECONDS
	while :; do
		ask
		line=$(jq -r '
			def some(n; what): if (n // 0) > 0 then ["\(n) \(what)"] else [] end;
			(some(.tasks.done; "done") + some(.tasks.failed; "failed") + some(.tasks.running; "running") + some(.tasks.unknown; "unknown") +
				some((.tasks.pending // 0) + (.tasks.held // 0); "waiting") | join(", ")) + "   " +
			([.taskList[]? | select(.state == "running")] | group_by(.site) | map("\(.[0].site) runs \(map(.index | tostring) | join(" "))") | join(", "))' "$demo/job.json")
		if [[ $line != "$last" ]]; then
			printf '  %3d s  %s\n' $((SECONDS - begun)) "$line"
			last=$line
		fi
		if [[ ${1:-} ]] && "$1"; then
			return
		fi
		if all_returned; then
			return
		fi
		((SECONDS - begun < 60 + ligands * 30)) || die "the job takes too long; look at: $look why $id"
		sleep 1
	done
}

all_returned() {
	jq -e '(.tasks.done // 0) + (.tasks.failed // 0) + (.tasks.cancelled // 0) >= .tasks.total and all(.taskList[]; .returned)' "$demo/job.json" >/dev/null
}

show_results() {
	local task
	step "Ranked: the more negative, the tighter it binds"
	"$here/table.sh" "$work" "$demo/job.json"
	say "(One quick search each: this shows a cluster at work, not a discovery.)"
	say "Tasks by site: $(by_site)"
	for task in $(jq -r '.taskList[] | select(.state == "failed") | .index' "$demo/job.json"); do
		step "Why did task $task fail?"
		say "\$ vcpeer why $id"
		vc why "$id"
		say "\$ vcpeer logs '${id}[$task]'"
		vc logs "${id}[$task]" 2>&1 | sed 's/^/  | /'
		jq -r --argjson n "$task" '.taskList[] | select(.index == $n) | "  exit code \(.exit), on \(.node)"' "$demo/job.json"
	done
	check_results
}

check_results() {
	expect "tasks that ended well" "$((ligands - 1))" "$(jq '.tasks.done // 0' "$demo/job.json")"
	expect "tasks that failed" 1 "$(jq '.tasks.failed // 0' "$demo/job.json")"
	expect "results that came back" "$((ligands - 1))" "$(find "$work/out" -name '*.tsv' | wc -l)"
}

by_site() { jq -r '[.taskList[].site] | group_by(.) | map("\(.[0]) \(length)") | join(", ")' "$demo/job.json"; }
