#!/bin/sh
# arm64-sysroot.sh DIR - Debian's arm64 libraries in a folder, for cross builds run by qemu-user.
# Needs no root and leaves the machine's own packages alone: apt works on a private state. Writes
# DIR/cross.ini for meson.
set -eu
mkdir -p "$1"
root=$(cd "$1" && pwd)
lib=$root/usr/lib/aarch64-linux-gnu
packages="libuv1-dev libmicrohttpd-dev libcjson-dev libopenblas-dev libcmocka-dev"

private_apt() {
    apt-get -q -y -o Dir::State="$root/apt" -o Dir::State::status="$root/apt/status" \
        -o Dir::Cache="$root/apt" -o APT::Architecture=arm64 -o APT::Architectures=arm64 \
        -o APT::Install-Recommends=false -o Debug::NoLocking=1 -o APT::Sandbox::User= "$@"
}

if [ ! -f "$root/complete" ]; then
    mkdir -p "$root/apt/lists/partial" "$root/apt/archives/partial"
    : >"$root/apt/status"
    private_apt update
    # shellcheck disable=SC2086 # a list of words
    private_apt --download-only install $packages
    for deb in "$root"/apt/archives/*.deb; do
        dpkg-deb -x "$deb" "$root"
    done
    rm -rf "$root/apt"
    touch "$root/complete"
fi

cat >"$root/cross.ini" <<INI
[binaries]
c = ['aarch64-linux-gnu-gcc', '-I$root/usr/include', '-I$root/usr/include/aarch64-linux-gnu']
ar = 'aarch64-linux-gnu-ar'
strip = 'aarch64-linux-gnu-strip'
pkgconfig = 'pkg-config'
exe_wrapper = ['qemu-aarch64', '-L', '$root', '-E', 'LD_LIBRARY_PATH=$lib:$lib/openblas-pthread']

[properties]
sys_root = '$root'
pkg_config_libdir = ['$lib/pkgconfig', '$lib/openblas-pthread/pkgconfig', '$root/usr/share/pkgconfig']

[built-in options]
c_link_args = ['-Wl,-rpath-link=$lib', '-Wl,-rpath-link=$lib/openblas-pthread']

[host_machine]
system = 'linux'
cpu_family = 'aarch64'
cpu = 'armv8-a'
endian = 'little'
INI
