#!/usr/bin/env bash
# A small cluster on this machine, until Ctrl-C. See --help.
set -euo pipefail

case ${1:-} in
  -h | --help)
    cat <<'U'
usage: cluster.sh [--check]        (CHECK=1 in the environment means --check, too)

What `make cluster` runs: builds the programs, starts a real control plane, a controller and two nodes with pods in network
namespaces of their own, says what to try, and runs until Ctrl-C. --check: tests itself and exits 0 if all is well.
Needs root (or sudo), iproute2, nftables and openssl; for the first start, Go, to build the control plane.
U
    exit 0
    ;;
esac
[ -z "${CHECK:-}" ] || set -- --check
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$HERE/../..
die() { echo "cluster.sh: $*" >&2; exit 1; }
for tool in ip nft openssl; do
  PATH=$PATH:/usr/sbin:/sbin command -v $tool >/dev/null ||
    die "the tool '$tool' is missing (packages: iproute2, nftables, openssl)"
done
cd "$ROOT"
if [ -z "${RULECAST_BIN_DIR:-}" ]; then
  command -v cargo >/dev/null || die "cargo is missing: install Rust (https://rustup.rs)"
  # Built by who calls this, not by root: root would own the files.
  cargo build --quiet -p rulecast-controller -p rulecast-node
  RULECAST_BIN_DIR=${CARGO_TARGET_DIR:-target}/debug
fi
command -v cargo >/dev/null && cargo build --quiet -p rulecast-tests --bin rulecast-cluster
BIN=$(cd "${CARGO_TARGET_DIR:-target}/debug" && pwd)
RULECAST_BIN_DIR=$(cd "$RULECAST_BIN_DIR" && pwd)
CACHE=${RULECAST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/rulecast}
RULECAST_CACHE=$CACHE tests/peers/build.sh >/dev/null
run=(env "RULECAST_BIN_DIR=$RULECAST_BIN_DIR" "RULECAST_CACHE=$CACHE" "PATH=$PATH:/usr/sbin:/sbin" "$BIN/rulecast-cluster" "$@")
if [ "$(id -u)" = 0 ]; then exec "${run[@]}"; fi
command -v sudo >/dev/null || die "this needs root, for network namespaces: run it as root"
exec sudo "${run[@]}"
