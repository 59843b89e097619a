#!/usr/bin/env bash
# Sees to it that everything the tests use is there: Debian packages, and the peers built from source.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ "$(id -u)" != 0 ]; then
  echo "The tests make network namespaces and change the kernel's rules in them: run them as root (sudo -E make test)." >&2
  exit 1
fi

missing=()
need() { command -v "$1" >/dev/null || missing+=("$2"); }
need nft nftables
need iptables iptables
need ip iproute2
need openssl openssl
need setpriv util-linux
need cc gcc
need make make
need git git
need linux.uml user-mode-linux
need ipvsadm ipvsadm
need ipset ipset
need conntrack conntrack
need modprobe kmod
if [ ${#missing[@]} -gt 0 ]; then
  command -v apt-get >/dev/null || { echo "Missing: install the packages ${missing[*]}." >&2; exit 1; }
  echo "installing ${missing[*]}" >&2
  apt-get update -qq >&2
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
fi
command -v cargo >/dev/null || { echo "cargo is missing: install Rust with rustup." >&2; exit 1; }
rustup component list --installed 2>/dev/null | grep -q clippy || rustup component add clippy rustfmt >&2

# User-mode Linux looks for its modules where every kernel does; its root is this machine's.
for modules in /usr/lib/uml/modules/*/; do
  release=$(basename "$modules")
  if [ ! -e "/lib/modules/$release/modules.dep" ]; then
    mkdir -p /lib/modules
    ln -sfn "/usr/lib/uml/modules/$release" "/lib/modules/$release"
    depmod "$release"
  fi
done

tests/peers/build.sh >/dev/null
