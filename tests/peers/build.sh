#!/usr/bin/env bash
# Builds the programs the tests run against. See --help.
set -euo pipefail

KUBE=v1.36.3 ETCD=v3.6.6
GO_MINOR=26 # Go 1.26: what Kubernetes 1.36 asks for

usage() {
  cat <<U
usage: build.sh [--help]

Builds kube-apiserver, kube-proxy and kubectl ($KUBE) and etcd ($ETCD) from Go modules
and prints the folder that holds them, the only line on stdout. Needs Go 1.$GO_MINOR or later.
What is already built is kept. The first build takes some minutes and about 4 GB below
the module and build caches of Go.

The folder is peers/k8s-$KUBE-etcd-$ETCD below \$RULECAST_CACHE
(default \${XDG_CACHE_HOME:-\$HOME/.cache}/rulecast).
U
}
say() { echo "build.sh: $*" >&2; }

case ${1:-} in
  '') ;;
  -h | --help) usage; exit 0 ;;
  *) usage >&2; exit 2 ;;
esac

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
CACHE=${RULECAST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/rulecast}
mkdir -p "$CACHE/peers"
CACHE=$(cd "$CACHE" && pwd)
OUT=$CACHE/peers/k8s-$KUBE-etcd-$ETCD
mkdir -p "$OUT"

complete() {
  local b
  for b in etcd kubectl kube-apiserver kube-proxy; do [ -f "$OUT/$b" ] || return 1; done
}
# Everything there: Go is not needed at all.
if complete; then echo "$OUT"; exit 0; fi

check_go() {
  local want="Go 1.$GO_MINOR or later is needed to build the test peers; install it (your distribution's golang package, or https://go.dev/doc/install) and put its bin folder in the PATH, or set RULECAST_CACHE to a cache that already holds $OUT"
  command -v go >/dev/null || { say "no 'go' in the PATH. $want"; exit 1; }
  local v minor
  # Outside a module, so that this is the installed version. GOTOOLCHAIN may still let an older Go (1.21 up) fetch a newer one.
  v=$(cd / && go env GOVERSION)
  minor=${v#go1.}; minor=${minor%%[!0-9]*}
  if [ "${v#go1.}" != "$v" ] && [ "${minor:-0}" -lt "$GO_MINOR" ]; then
    if [ "$minor" -ge 21 ] && [ "$(cd / && go env GOTOOLCHAIN)" != local ]; then
      say "go is $v; it will fetch Go 1.$GO_MINOR by itself (GOTOOLCHAIN)"
    else
      say "found $v ($(command -v go)). $want"; exit 1
    fi
  fi
}
check_go

# Two test runs at once must not build the same thing twice.
exec 9>"$OUT/.lock"
flock -n 9 || { say "another build is running, waiting for it"; flock 9; }

# The modules are built in a copy: nothing is ever written next to the sources. The lock covers the folder, so what an
# interrupted build left there can go.
WORK=$OUT/.work
rm -rf "$WORK"
mkdir -p "$WORK"
trap 'rm -rf "$WORK"' EXIT
trap 'exit 130' INT TERM

# build MODULE NAME PACKAGE LDFLAGS
build() {
  [ ! -f "$OUT/$2" ] || return 0
  [ -d "$WORK/$1" ] || cp -R "$HERE/$1" "$WORK/$1"
  say "building $2 (first time, some minutes)..."
  local t=$SECONDS
  (cd "$WORK/$1" && CGO_ENABLED=0 GOWORK=off GOFLAGS="-mod=readonly -trimpath -buildvcs=false" \
    nice go build -ldflags "-s -w $4" -o "$WORK/$2.new" "$3") >&2 9>&- ||
    { say "building $2 failed (see above)"; exit 1; }
  mv "$WORK/$2.new" "$OUT/$2" # same file system: there in full or not at all
  say "built $2 in $((SECONDS - t)) s"
}

V=k8s.io/component-base/version
LD="-X $V.gitVersion=$KUBE -X $V.gitMajor=1 -X $V.gitMinor=36"
build etcd etcd go.etcd.io/etcd/server/v3 ""
build kubernetes kubectl k8s.io/kubernetes/cmd/kubectl "$LD"
build kubernetes kube-apiserver k8s.io/kubernetes/cmd/kube-apiserver "$LD"
build kubernetes kube-proxy k8s.io/kubernetes/cmd/kube-proxy "$LD"

echo "$OUT"
