#!/usr/bin/env bash
# Run the tests of the overlay on Debian's kernel in a virtual machine, whatever kernel this machine has. Debian's has the
# modules that decide how Open vSwitch works (openvswitch, ip_gre, nf_tables); with another, its datapath in user space is
# all that is ever tested.
#
#   deploy/test/kernel.sh                     all the tests of kernel/tests
#   deploy/test/kernel.sh PACKAGE [REGEXP]    one package's, or those that the regular expression names
#   deploy/test/kernel.sh -- COMMAND ...      a command, in the project's directory of the virtual machine
#
# The virtual machine's root is this machine's own, read only, with a layer in memory over it: what is installed here is there, and
# nothing that is done there stays. The kernel comes by apt and is unpacked, not installed. What is said in there is
# printed, and kept in .cache/kernel/log; the exit code is the tests'.
#   KERNEL_ACCEL     how QEMU runs it: tcg,thread=multi (default) runs everywhere and is some ten times slower than kvm
#   KERNEL_PATIENCE  how many times longer than elsewhere tests wait, default 5; 1 with kvm, where figures mean something
#   KERNEL_CPUS      default 2
#   KERNEL_MEMORY    MiB, default 6144
#   KERNEL_TIMEOUT   seconds for all of it, default 2400
set -euo pipefail
cd "$(dirname "$0")/../.."
cache=$PWD/.cache/kernel
mkdir -p "$cache"

packages() {
	local missing=()
	for p in qemu-system-x86 busybox-static kmod; do
		dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q 'install ok installed' || missing+=("$p")
	done
	((${#missing[@]})) || return 0
	echo "kernel: installing ${missing[*]}"
	local as_root=()
	((EUID == 0)) || as_root=(sudo -n)
	"${as_root[@]}" apt-get update -qq
	"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# kernel unpacks Debian's newest, and sets $release.
kernel() {
	local package
	package=$(apt-cache depends linux-image-amd64 | sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p' | head -1)
	[[ -n $package ]] || { echo "kernel: apt knows no linux-image-amd64" >&2; exit 1; }
	release=${package#linux-image-}
	[[ -e $cache/$release/ready ]] && return
	rm -rf "${cache:?}/$release" "$cache"/linux-image-*.deb
	echo "kernel: getting $package"
	(cd "$cache" && apt-get download -qq "$package" 2>"$cache/download" || { cat "$cache/download" >&2; exit 1; })
	mkdir "$cache/$release"
	dpkg-deb -x "$cache"/linux-image-*.deb "$cache/$release"
	rm -f "$cache"/linux-image-*.deb
	depmod -b "$cache/$release" "$release"
	touch "$cache/$release/ready"
}

# first makes the file system that the kernel starts with: what is needed to find the other.
first() {
	local dir=$cache/first module
	rm -rf "$dir"
	mkdir -p "$dir"/{bin,dev,lower,modules,proc,root,upper}
	cp /bin/busybox "$dir/bin/busybox"
	cp deploy/test/kernel/init "$dir/init"
	for module in virtio_pci 9pnet_virtio 9p overlay; do
		modprobe -d "$cache/$release" -S "$release" --show-depends "$module"
	done | awk '$1 == "insmod" && !seen[$2]++ {print $2}' | while read -r module; do
		cp "$module" "$dir/modules/"
		basename "$module" >>"$dir/modules/order"
	done
	(cd "$dir" && find . | busybox cpio -o -H newc 2>/dev/null) >"$cache/initrd"
}

# binaries compiles what is run in there, where a compiler would take minutes.
binaries() {
	local package
	make -s build
	rm -rf "$cache/bin"
	mkdir -p "$cache/bin"
	while read -r package _; do
		[[ -e $cache/bin/${package//\//-}.test ]] || go test -c -o "$cache/bin/${package//\//-}.test" "./$package"
	done < <(grep -v -e '^#' -e '^$' "$cache/tests")
}

packages
kernel
first
quoted=
case ${1:-} in
--)
	shift
	: >"$cache/tests"
	printf -v quoted '%q ' "$@"
	;;
"") cp deploy/test/kernel/tests "$cache/tests" ;;
*) echo "$1 ${2:-.}" >"$cache/tests" ;;
esac
printf '%s\n' "$quoted" >"$cache/command"
binaries

rm -f "$cache/status"
began=$SECONDS
# The project's directory is there under the same name; $cache can be written to.
timeout --foreground "${KERNEL_TIMEOUT:-2400}" qemu-system-x86_64 \
	-accel "${KERNEL_ACCEL:-tcg,thread=multi}" -cpu max -smp "${KERNEL_CPUS:-2}" -m "${KERNEL_MEMORY:-6144}" \
	-kernel "$cache/$release/boot/vmlinuz-$release" -initrd "$cache/initrd" \
	-append "console=ttyS0 quiet loglevel=4 panic=-1 vcpeer.project=$PWD vcpeer.patience=${KERNEL_PATIENCE:-5}" \
	-fsdev "local,id=machine,path=/,readonly=on,security_model=none,multidevs=remap" -device virtio-9p-pci,fsdev=machine,mount_tag=machine \
	-fsdev "local,id=project,path=$PWD,readonly=on,security_model=none" -device virtio-9p-pci,fsdev=project,mount_tag=project \
	-fsdev "local,id=cache,path=$cache,security_model=none" -device virtio-9p-pci,fsdev=cache,mount_tag=cache \
	-device virtio-rng-pci -nic none -display none -monitor none -serial stdio -no-reboot | tee "$cache/log" || true
status=$(cat "$cache/status" 2>/dev/null || echo "the virtual machine did not come to an end")
echo "== kernel $release: $([[ $status == 0 ]] && echo passed || echo "FAILED ($status)") after $((SECONDS - began)) s"
[[ $status == 0 ]]
