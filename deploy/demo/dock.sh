#!/bin/sh
# Dock one ligand into the receptor: one task of the array job. It needs only what travels with the job: receptor.pdbqt,
# lig/NUMBER.pdbqt and lig/names.tsv. The pose and a line of figures go to out/, which is sent back.
# Seed and a single thread make the pose the same, byte for byte, on whichever node this runs.
set -eu

task=${VCPEER_TASK_ID:-${SGE_TASK_ID:-${PBS_ARRAY_INDEX:?no task number: run this as a task of an array job}}}
name=$(awk -F '\t' -v n="$task" '$1 == n { print $2 }' lig/names.tsv)
: "${name:?lig/names.tsv has no line for task $task}"

mkdir -p out
echo "task $task: $name into HIV-1 protease, on ${VCPEER_NODE:-$(uname -n)} at site ${VCPEER_SITE:-none}"

# The box covers the active site; its centre is that of the grid that Debian's autogrid ships for this receptor.
vina --receptor receptor.pdbqt --ligand "lig/$task.pdbqt" \
	--center_x 2.5 --center_y 6.5 --center_z -7.5 --size_x 22 --size_y 22 --size_z 22 \
	--exhaustiveness 1 --num_modes 1 --seed 42 --cpu 1 --verbosity 0 --out "out/$task.pdbqt"

affinity=$(awk '/^REMARK VINA RESULT/ { print $4; exit }' "out/$task.pdbqt")
: "${affinity:?vina wrote no pose for $name}"
printf '%s\t%s\t%s\n' "$task" "$name" "$affinity" >"out/$task.tsv"
echo "task $task: $name binds with $affinity kcal/mol"
