#!/usr/bin/env bash
# Install what the demo needs and this machine lacks, from Debian: the programs that prepare and dock molecules, and the
# molecules themselves; with the word "lab" also what the lab needs and what people do over its network. It says what it
# installs, and does nothing when all is there.
set -euo pipefail

wanted=(
	autodock-vina # docks
	openbabel     # makes molecules three-dimensional
	autogrid-test # the receptor, HIV-1 protease
	pdb2pqr-doc   # three inhibitors of it
	rdkit-data    # 5,000 molecules of the NCI
	jq            # reads the JSON that vcpeer prints
)
lab=(
	openvswitch-switch          # one for each node
	nftables iproute2 ethtool   # the network between them, and below them
	libnss-systemd              # accounts of the cluster, as the system sees them
	openssh-server openssh-client openmpi-bin libopenmpi-dev gcc libc6-dev # an MPI program, from its source on
	iputils-ping iperf3         # measure
)
[[ ${1:-} != lab ]] || wanted+=("${lab[@]}")
missing=()
for package in "${wanted[@]}"; do
	dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
done
((${#missing[@]})) || exit 0

command -v apt-get >/dev/null || {
	echo "demo: this is not Debian or one of its kin; install what these packages hold: ${missing[*]}" >&2
	exit 1
}
as_root=()
if ((EUID)); then
	command -v sudo >/dev/null || {
		echo "demo: as root, once: apt-get install --no-install-recommends ${missing[*]}" >&2
		exit 1
	}
	as_root=(sudo)
fi
echo "installing from Debian, about a minute: ${missing[*]}"
"${as_root[@]}" apt-get update -qq
# Images for containers leave out /usr/share/doc, where the inhibitors are; this asks for them all the same.
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
	-o DPkg::Options::=--path-include='/usr/share/doc/pdb2pqr/*' "${missing[@]}" >/dev/null
