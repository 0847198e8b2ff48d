#!/usr/bin/env bash
# Prepare the molecules of the demo in DIR, all of them from Debian packages:
#   receptor.pdbqt  HIV-1 protease (package autogrid-test)
#   lig/N.pdbqt     ligand of task N, 3D, with hydrogens of pH 7.4
#   lig/names.tsv   task, name, kind (inhibitor, decoy)
# Task 1 is amprenavir, a drug made for this protease, and from 20 ligands on KNI-272 and DMP-323 are there too
# (crystal poses, package pdb2pqr-doc). The others are from the NCI's open set (package rdkit-data), spread evenly over
# those of drug-like size. Task 7 is one that no docking can succeed with: it has boron, for which Vina has no parameters.
# What is prepared is kept, so a second run, or one with more ligands, prepares only what is new.
set -euo pipefail

usage="usage: molecules.sh DIR COUNT (8 to 200)"
dir=${1:?$usage} count=${2:?$usage}
if ! [[ $count =~ ^[0-9]+$ ]] || ((count < 8 || count > 200)); then
	echo "molecules: $count ligands asked for; the set has 8 to 200" >&2
	exit 2
fi

receptor=/usr/share/autogrid/Tests/hsg1.pdbqt
inhibitors=/usr/share/doc/pdb2pqr/examples/ligands
library=/usr/share/RDKit/Data/NCI/first_5K.smi
boron_task=7
boron='CC1=C(OB(OC2=C(C)C=CC=C2)OC3=C(C)C=CC=C3)C=CC=C1' # tri-o-tolyl borate, NCI-807

# prepare NAME SOURCE writes store/NAME.pdbqt, or an empty one when it cannot be made. SOURCE is a mol2 file or a SMILES.
# One thread: with more, Open Babel's OpenMP loops spin for each other, 0.2 s become 60 s when the cores are shared.
# The limit is on CPU seconds, not on time, so that a busy machine leaves out the same molecules as an idle one.
prepare() {
	local out=store/$1.pdbqt part=store/.part.$1.pdbqt source=(-:"$2" --gen3d -p 7.4)
	[[ ! -e $2 ]] || source=(-imol2 "$2")
	[[ ! -e $out ]] || return 0
	{ (ulimit -t 20 && OMP_NUM_THREADS=1 exec obabel "${source[@]}" -opdbqt -O "$part") >/dev/null; } 2>/dev/null || true
	built "$part" || : >"$part"
	mv "$part" "$out"
	echo "$1"
}

# built FILE: a molecule is there, its atoms not all at the origin, which is how Open Babel fails without saying so.
built() {
	[[ -s $1 ]] && awk '/^(ATOM|HETATM)/ { n++; if ($6 || $7 || $8) placed++ } END { exit !(n > 8 && placed >= n - 1) }' "$1"
}

# candidates prints "NAME SMILES" of the NCI set: 300 to 500 Da, fewer than 9 rotatable bonds, neither salts, nor metals,
# nor marked stereo centres; in an order that spreads any number of them over the whole set.
candidates() {
	obabel -ismi "$library" -otxt --append "MW rotors" --filter "MW>300 MW<500 rotors<9" 2>/dev/null |
		awk 'NR == FNR { fit[$1]; next } ($2 in fit) && $1 !~ /[.@\/\\[]/ && $1 !~ /B([^r]|$)/ { print "NCI-" $2, $1 }' - "$library" |
		awk '{ line[NR - 1] = $0 } END { step = 101; while (NR % step == 0) step += 2; for (i = 0; i < NR; i++) print line[i * step % NR] }'
}

mkdir -p "$dir/lig" "$dir/store"
cd "$dir"
if [[ ! -s receptor.pdbqt ]]; then
	grep -E '^(ATOM|HETATM)' "$receptor" >receptor.part # Vina refuses any other record in a receptor
	mv receptor.part receptor.pdbqt
fi
[[ -s candidates ]] || { candidates >candidates.part && mv candidates.part candidates; }

known=(amprenavir:LIG_1HPV.mol2)
((count < 20)) || known+=(KNI-272:LIG_1HPX.mol2 DMP-323:LIG_1QBS.mol2)
{
	for entry in "${known[@]}"; do echo "${entry%%:*} $inhibitors/${entry#*:}"; done
	echo "NCI-807 $boron"
	head -n $((count + count / 6 + 2)) candidates # some cannot be built
} >wanted

export -f prepare built
while read -r name source; do printf '%s\0%s\0' "$name" "$source"; done <wanted |
	xargs -0 -n 2 -P "$(nproc)" bash -c 'prepare "$@"' _ |
	awk -v of="$(wc -l <wanted)" '{ if (++n % 4 == 0) printf "molecules: %d built (of at most %d)\n", n, of; fflush() }'

: >names.part
task=0
number() { # number NAME KIND makes it the next task's ligand
	task=$((task + 1))
	cp "store/$1.pdbqt" "lig/$task.pdbqt"
	printf '%s\t%s\t%s\n' "$task" "$1" "$2" >>names.part
}
rm -f lig/*.pdbqt
for entry in "${known[@]}"; do number "${entry%%:*}" inhibitor; done
while read -r name _ && ((task < count)); do
	if ((task + 1 == boron_task)); then number NCI-807 decoy; fi
	if [[ -s store/$name.pdbqt ]]; then number "$name" decoy; fi
done < <(grep -v -e '^NCI-807 ' -e '\.mol2$' wanted)
mv names.part lig/names.tsv
if ((task < count)); then
	echo "molecules: only $task of $count ligands could be built" >&2
	exit 1
fi
