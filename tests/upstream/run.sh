#!/usr/bin/env bash
# Runs Kubernetes' own end-to-end tests with rulecast in kube-proxy's place. See --help.
set -euo pipefail

usage() {
  cat <<'U'
usage: run.sh [FOCUS]        FOCUS: a regular expression of test names, such as 'Services should serve'

Boots a real three-node, dual-stack cluster on this machine (cluster/README.md), installs rulecast, runs the tests of
[sig-network] that kube-proxy was run through, and prints what differs from kube-proxy in nftables mode
(cluster/baseline-nftables.txt). Exit status: 0 when everything that passes with kube-proxy passes, 1 when not.

The first run builds Kubernetes from source: ten minutes, and what cluster/README.md names. A full run takes about a
quarter of an hour more. Needs root. One at a time on a machine.

Environment:
  PROCS=6                 tests at once
  KEEP=1                  leave the cluster up for the next run (cluster/down.sh stops it)
  PROXY=kube-proxy        run kube-proxy itself in place of rulecast
  RULECAST_BIN_DIR=DIR    take rulecast-controller and rulecast-node from there instead of building them
  W, BIN, OUT             folders for the work, the programs and the results; cluster/env.sh has the defaults
U
}
case ${1:-} in -h | --help) usage; exit 0 ;; -*) usage >&2; exit 2 ;; esac
say() { echo "$(date +%T) run.sh: $*" >&2; }
die() { echo "run.sh: $*" >&2; exit 1; }
[ "$(id -u)" = 0 ] || die "this makes namespaces, bridges and routes: run it as root"

for tool in go gcc python3 openssl ip nft iptables apt-get dpkg-deb; do
  command -v $tool >/dev/null || die "the tool '$tool' is missing; cluster/README.md says what is needed, and on which Linux"
done

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(cd "$HERE/../.." && pwd)
WANTED=${PROXY:-rulecast}
SYSTEM=rulecast-system
export DUAL=1
. "$HERE/cluster/env.sh"
# The cluster boots without a proxy; it is started when all is there that it needs.
export W BIN RUN PROXY=none
OUT=${OUT:-$W/e2e/$(date +%m%d-%H%M%S)}
export OUT PROCS=${PROCS:-6}

# Not tests of a Service proxy, or not to be run here: other add-ons' features, the internet, SSH to the nodes, SCTP sockets.
SKIP='\[Disruptive\]|configMap nameserver|\[Provider:GCE\]|KubeProxyNFAcct|PerformanceDNS'
SKIP=$SKIP'|\[Feature:(Ingress|NetworkPolicy|SCTPConnectivity|Networking-)'

programs() {
  if [ -z "${RULECAST_BIN_DIR:-}" ]; then
    say "building rulecast"
    (cd "$ROOT" && cargo build --quiet --release -p rulecast-controller -p rulecast-node)
    RULECAST_BIN_DIR=$(cd "$ROOT" && cd "${CARGO_TARGET_DIR:-target}/release" && pwd)
  fi
  export RULECAST_NODE=$RULECAST_BIN_DIR/rulecast-node
  [ -x "$RULECAST_NODE" ] || die "there is no $RULECAST_NODE"
}

# account_kubeconfig NAME ACCOUNT KUBECTL-CREATE-TOKEN-ARGUMENT...: writes RUN/rulecast/NAME.kubeconfig
account_kubeconfig() {
  local name=$1 account=$2 token
  shift 2
  token=$(kc create token "$account" -n $SYSTEM --duration 24h "$@")
  sed "s/^users:.*/users: [{name: u, user: {token: $token}}]/" "$KUBECONFIG_ADMIN" >"$RUN/rulecast/$name.kubeconfig"
}

# What manifests/ installs, but for the pods: their programs run on the machine, and in the nodes' namespaces.
install() {
  mkdir -p "$RUN/rulecast"
  kc apply --server-side --force-conflicts -k "$ROOT/crds/yaml" >/dev/null
  kc apply --server-side --force-conflicts -k "$ROOT/manifests/namespace" >/dev/null
  kc apply --server-side --force-conflicts -n $SYSTEM -f "$ROOT/manifests/controller/rbac.yaml" \
    -f "$ROOT/manifests/applier/rbac.yaml" -f "$ROOT/manifests/applier/own-rulenode-only.yaml" >/dev/null
  kc wait --for condition=Established --timeout 60s -f "$ROOT/crds/yaml/rulepools.yaml" -f "$ROOT/crds/yaml/rulebundles.yaml" >/dev/null
  # serviceCIDRs come from the API server. The time-outs are kube-proxy's own, which one test looks at.
  kc apply --server-side --force-conflicts -f - >/dev/null <<P
apiVersion: rulecast.dev/v1alpha1
kind: RulePool
metadata: {name: default}
spec:
  clusterCIDR: $POD_NET.0.0/16,$POD_NET6::/48
  conntrack: {tcpEstablishedTimeout: 24h, tcpCloseWaitTimeout: 1h}
P
  account_kubeconfig controller rulecast-controller
  local i
  for i in $(seq "$(cat "$RUN/nodes")"); do
    account_kubeconfig "node$i" rulecast-node --bound-object-kind Node --bound-object-name "node$i"
  done
}

# One test makes 200 Services and deletes them, which is what the guard against sudden loss is for.
start() { # the pid goes where down.sh finds it
  setsid "$RULECAST_BIN_DIR/rulecast-controller" run --kubeconfig "$RUN/rulecast/controller.kubeconfig" --bind 127.0.0.1:16266 \
    --lease-namespace $SYSTEM --identity upstream --allow-shrink >"$RUN/log/rulecast-controller.log" 2>&1 </dev/null &
  echo "rulecast-controller $!" >>"$RUN/pids"
  PROXY=$HERE/adapter.sh "$HERE/cluster/proxy.sh" start
  local i
  for i in $(seq "$(cat "$RUN/nodes")"); do
    for _ in {1..100}; do
      [ -z "$(kc get rulenode "node$i" -o 'jsonpath={.status.sequence}' 2>/dev/null)" ] || continue 2
      sleep .3
    done
    tail -n 5 "$RUN/log/rulecast-controller.log" "$RUN/log/node$i-proxy.log" >&2
    die "node$i reports no rules after 30 s"
  done
}

stop_controller() { # of an earlier run
  local pid
  for pid in $(awk '$1 == "rulecast-controller" { print $2 }' "$RUN/pids"); do
    kill "$pid" 2>/dev/null || true
    for _ in {1..50}; do [ -d "/proc/$pid" ] || break; sleep .1; done
  done
  sed -i '/^rulecast-controller /d' "$RUN/pids"
}

finish() {
  local rc=$?
  trap - EXIT
  if [ -n "${KEEP:-}" ]; then
    say "the cluster stays up: KUBECONFIG=$KUBECONFIG_ADMIN"
  else
    "$HERE/cluster/down.sh" >&2 || true
  fi
  exit $rc
}

[ "$WANTED" != rulecast ] || programs
"$HERE/cluster/build.sh" >&2
trap finish EXIT
trap 'exit 130' INT TERM
if [ -f "$RUN/pids" ]; then
  say "using the cluster that is up"
  "$HERE/cluster/proxy.sh" stop
  stop_controller
else
  nice "$HERE/cluster/up.sh" 3 >&2
fi
if [ "$WANTED" = rulecast ]; then
  install
  start
else
  PROXY=$WANTED "$HERE/cluster/proxy.sh" start
fi
kc -n kube-system rollout status deployment/coredns --timeout=120s >/dev/null
say "$WANTED serves; running the tests"
nice "$HERE/cluster/e2e.sh" '\[sig-network\].*'"(${1:-})" "$SKIP" >/dev/null || true
[ -f "$OUT/report.json" ] || die "the tests did not run, see $OUT/e2e.log"
python3 "$HERE/compare.py" "$OUT/report.json" "$HERE/cluster/baseline-nftables.txt" ${1:+--part} | tee "$OUT/comparison.txt"
