#!/usr/bin/env bash
# Print the ranked table of a screening job: table.sh WORKDIR JOB.json, where JOB.json is what `vcpeer job ID --json`
# printed and WORKDIR holds the results that came back (out/N.tsv) and lig/names.tsv.
set -euo pipefail

work=$1 job=$2

# One line a task: number, name, kind, affinity or "-", seconds, site, node.
joined() {
	jq -r '
		def seconds: sub("\\.[0-9]+"; "") | sub("[+-][0-9:]+$"; "Z") | fromdate;
		def fraction: (capture("(?<f>\\.[0-9]+)").f // "0") | tonumber;
		.taskList[] | [.index, .state, ((.ended | seconds + fraction) - (.started | seconds + fraction)), .site, .node] | @tsv' "$job" |
		while IFS=$'\t' read -r task state seconds site node; do
			IFS=$'\t' read -r _ name kind < <(awk -F '\t' -v n="$task" '$1 == n' "$work/lig/names.tsv")
			affinity=-
			[[ $state != "done" || ! -s $work/out/$task.tsv ]] || affinity=$(cut -f 3 "$work/out/$task.tsv")
			printf '%s\t%s\t%s\t%s\t%s\t%s\t%s\n' "$task" "$name" "$kind" "$affinity" "$seconds" "$site" "$node"
		done
}

printf '%4s  %-12s %-10s %9s %8s  %-9s %-11s %s\n' rank ligand kind kcal/mol seconds site node task
joined | awk -F '\t' '$4 != "-"' | sort -t $'\t' -k 4,4n |
	awk -F '\t' '{ printf "%4d  %-12s %-10s %9.2f %8.1f  %-9s %-11s %s\n", NR, $2, $3, $4, $5, $6, $7, $1 }'
joined | awk -F '\t' '$4 == "-"' |
	awk -F '\t' '{ printf "%4s  %-12s %-10s %9s %8.1f  %-9s %-11s %s\n", "-", $2, $3, "failed", $5, $6, $7, $1 }'
