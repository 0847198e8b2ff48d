#!/usr/bin/env bash
# Install the Debian packages that tests use and this machine lacks (the race detector needs a C compiler). Without root
# and sudo, or without apt, it says what stays untested and goes on: the tests that need them skip with the reason.
set -euo pipefail

wanted=(gcc libc6-dev libnss-systemd libnss-extrausers iproute2 util-linux
	openvswitch-switch nftables ethtool iputils-ping iperf3 tcpdump procps miniupnpd miniupnpd-nftables
	udhcpc isc-dhcp-client openssh-server openssh-client)
missing=()
for package in "${wanted[@]}"; do
	dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
done
((${#missing[@]})) || exit 0

if ! command -v apt-get >/dev/null; then
	echo "packages: no apt-get here; tests that need ${missing[*]} will skip" >&2
	exit 0
fi
as_root=()
if ((EUID)); then
	if ! sudo -n true 2>/dev/null; then
		echo "packages: not root and no password-less sudo; tests that need ${missing[*]} will skip" >&2
		exit 0
	fi
	as_root=(sudo -n)
fi
echo "packages: installing ${missing[*]}"
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
