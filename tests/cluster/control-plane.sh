#!/usr/bin/env bash
# A real control plane without nodes: etcd and kube-apiserver. See --help.
set -euo pipefail

usage() {
  cat <<'U'
usage: control-plane.sh up DIR [--port P] [--bind IP] [--data ETCD] [-- KUBE-APISERVER-FLAG...]
       control-plane.sh stop-apiserver|kill-apiserver|start-apiserver DIR
       control-plane.sh down DIR

up              builds the programs if need be (tests/peers/build.sh), starts etcd and kube-apiserver, waits for
                /readyz and writes DIR/admin.kubeconfig. An earlier run's files in DIR are replaced.
                --bind IP: the one address the API server listens on (default 127.0.0.1); also in its certificate
                and in the kubeconfig. --port P: its port (default: a free one). --data ETCD: begins with a copy of
                this folder of etcd's, which no etcd may be using, instead of with nothing.
                RBAC is on. There are no controllers: make ServiceAccounts, Nodes and EndpointSlices yourself.
stop-apiserver  SIGTERM, and waits until it is gone. Good, too, when it already is.
kill-apiserver  SIGKILL, and the same.
start-apiserver starts it again, same port and same data, and waits for /readyz.
                Call it in the network namespace `up` was called in.
down            stops what `up` started, if it still runs. Logs and data stay in DIR.

In DIR: admin.kubeconfig, {etcd,kube-apiserver}.pid, .cmd (the command, a word a line), log/, pki/, etcd/.
U
}
die() { echo "control-plane.sh: $*" >&2; exit 1; }

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ETCD_WAIT=30 API_WAIT=120 STOP_WAIT=20 # seconds; generous, for a busy machine
export NO_PROXY='*' no_proxy='*'       # nothing here goes through a proxy

# --- processes: everything is known by DIR/NAME.cmd and DIR/NAME.pid ---

# alive NAME: the recorded process runs. A pid may have been given to another process since, hence the look at its
# command line, which names DIR; that of a zombie is empty.
alive() {
  local pid
  pid=$(cat "$DIR/$1.pid" 2>/dev/null) && [ -n "$pid" ] && grep -qsF -- "$DIR/" "/proc/$pid/cmdline"
}

start() { # NAME
  local cmd
  mapfile -t cmd <"$DIR/$1.cmd"
  # setsid: a Ctrl-C meant for the test must not reach it. It does not fork here, so $! is the program's own pid.
  setsid "${cmd[@]}" >>"$DIR/log/$1.log" 2>&1 </dev/null &
  echo $! >"$DIR/$1.pid"
  disown # or bash reports its end on stderr
}

stop() { # NAME SIGNAL
  local end=$((SECONDS + STOP_WAIT)) pid
  if alive "$1"; then
    pid=$(cat "$DIR/$1.pid")
    kill -s "$2" "$pid" 2>/dev/null || true
    while alive "$1"; do
      if [ $SECONDS -ge $end ]; then
        [ "$2" != KILL ] || die "$1 (pid $pid) does not end"
        echo "control-plane.sh: $1 ignores SIG$2 for $STOP_WAIT s, killing it" >&2
        stop "$1" KILL
        return
      fi
      sleep .05
    done
  fi
  rm -f "$DIR/$1.pid"
}

# wait_for NAME SECONDS COMMAND...: until COMMAND succeeds; fails with the end of the log if NAME dies or is too slow.
wait_for() {
  local name=$1 end=$((SECONDS + $2)) why=
  shift 2
  # A fresh child is `setsid` for a moment and has no DIR on its command line yet.
  for _ in {1..40}; do alive "$name" && break; sleep .05; done
  until "$@" >/dev/null 2>&1; do
    alive "$name" || why="ended early"
    [ $SECONDS -lt $end ] || why="is not ready in time"
    [ -z "$why" ] || break
    sleep .2
  done
  # Also after success: another process may have answered in place of a dead one.
  [ -n "$why" ] || alive "$name" || why="ended early"
  [ -n "$why" ] || return 0
  { echo "--- last lines of $DIR/log/$name.log"; tail -n 25 "$DIR/log/$name.log" | cut -c1-400; echo "---"; } >&2
  die "$name $why"
}

etcd_ready() { grep -q 'serving client traffic' "$DIR/log/etcd.log"; }
apiserver_ready() {
  local kubectl
  kubectl=$(dirname "$(head -n 1 "$DIR/kube-apiserver.cmd")")/kubectl
  "$kubectl" --kubeconfig "$DIR/admin.kubeconfig" --request-timeout 5s get --raw /readyz
}

# --- up ---

# free_port: sets FREE to a port not in use here nor handed out before, below those the kernel and Kubernetes (NodePorts)
# give out.
free_port() {
  for _ in {1..100}; do
    FREE=$((20000 + RANDOM % 10000))
    [[ " ${TAKEN[*]} " != *" $FREE "* ]] || continue
    if ! grep -qsE ":$(printf %04X "$FREE") " /proc/net/tcp /proc/net/tcp6; then
      TAKEN+=("$FREE")
      return
    fi
  done
  die "found no free port"
}

make_pki() { # in the current directory, for the addresses in $BIND
  local ec=(-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes)
  # A configuration of our own: what the machine's openssl.cnf would add differs between distributions.
  cat >openssl.cnf <<C
[req]
distinguished_name = dn
[dn]
[ca]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign,cRLSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:localhost,IP:127.0.0.1,IP:::1,IP:10.96.0.1,IP:fd00:96::1,IP:$BIND
C
  openssl req -config openssl.cnf -x509 -extensions ca "${ec[@]}" -days 3650 -subj /CN=test-ca -keyout ca.key -out ca.crt
  openssl req -config openssl.cnf "${ec[@]}" -subj /CN=kube-apiserver -keyout apiserver.key -out apiserver.csr
  openssl x509 -req -in apiserver.csr -CA ca.crt -CAkey ca.key -set_serial 2 -days 3650 \
    -extfile openssl.cnf -extensions server -out apiserver.crt
  # Service account tokens are signed with this pair.
  openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out sa.key
  openssl pkey -in sa.key -pubout -out sa.pub
}

up() {
  local port='' data='' extra=() bin token host endpoints c p
  BIND=127.0.0.1
  while [ $# -gt 0 ]; do
    case $1 in
      --port | --bind | --data) [ $# -ge 2 ] || die "$1 wants a value" ;;&
      --port) port=$2; shift 2 ;;
      --bind) BIND=$2; shift 2 ;;
      --data) data=$2; shift 2 ;;
      --) shift; extra=("$@"); break ;;
      *) usage >&2; exit 2 ;;
    esac
  done
  [[ $port =~ ^[0-9]*$ ]] || die "--port $port: not a number"
  [[ $BIND =~ ^[0-9.]+$ || $BIND =~ ^[0-9a-fA-F:.]+:[0-9a-fA-F:.]*$ ]] || die "--bind $BIND: not an IP address"
  # An API server with a token in a file has no business on every interface of the machine.
  [[ ! $BIND =~ ^[0.]+$ && ! $BIND =~ ^[0:.]+$ ]] || die "--bind $BIND: name one address, not all of them"
  command -v openssl >/dev/null || die "needs openssl"
  for p in etcd kube-apiserver; do ! alive $p || die "$p already runs in $DIR; call 'down' first"; done

  bin=$("$HERE/../peers/build.sh")
  umask 077
  rm -rf "$DIR"/{etcd,log,pki,admin.kubeconfig,{etcd,kube-apiserver}.{pid,cmd}}
  mkdir -p "$DIR"/{log,pki}
  [ -z "$data" ] || cp -a --reflink=auto -- "$data" "$DIR/etcd"
  (cd "$DIR/pki" && make_pki) >"$DIR/log/pki.log" 2>&1 || { cat "$DIR/log/pki.log" >&2; die "openssl failed"; }

  host=$BIND; [[ $BIND != *:* ]] || host="[$BIND]"
  TAKEN=("$port")
  free_port; c=$FREE
  free_port; p=$FREE
  [ -n "$port" ] || { free_port; port=$FREE; }
  token=$(openssl rand -hex 24)
  echo "$token,admin,admin,\"system:masters\"" >"$DIR/pki/tokens.csv"
  cat >"$DIR/admin.kubeconfig" <<K
apiVersion: v1
kind: Config
clusters: [{name: test, cluster: {server: "https://$host:$port", certificate-authority-data: $(base64 <"$DIR/pki/ca.crt" | tr -d '\n')}}]
users: [{name: admin, user: {token: $token}}]
contexts: [{name: test, context: {cluster: test, user: admin}}]
current-context: test
K

  printf '%s\n' "$bin/etcd" --name default --data-dir "$DIR/etcd" --unsafe-no-fsync \
    --listen-client-urls "http://127.0.0.1:$c" --advertise-client-urls "http://127.0.0.1:$c" \
    --listen-peer-urls "http://127.0.0.1:$p" --initial-advertise-peer-urls "http://127.0.0.1:$p" \
    --initial-cluster "default=http://127.0.0.1:$p" >"$DIR/etcd.cmd"

  # The address published as the endpoint of the Service "kubernetes" cannot be a loopback one, and must be of the first
  # service range's family; where BIND is not such an address, nothing is published (192.0.2.1 is for documentation).
  endpoints=(--advertise-address "$BIND")
  [[ $BIND != *:* && $BIND != 127.* ]] || endpoints=(--advertise-address 192.0.2.1 --endpoint-reconciler-type none)
  # The watch grace period: without it, a SIGTERM takes 60 s as soon as anyone watches.
  printf '%s\n' "$bin/kube-apiserver" --etcd-servers "http://127.0.0.1:$c" \
    --bind-address "$BIND" --secure-port "$port" "${endpoints[@]}" \
    --shutdown-watch-termination-grace-period 1s \
    --tls-cert-file "$DIR/pki/apiserver.crt" --tls-private-key-file "$DIR/pki/apiserver.key" \
    --token-auth-file "$DIR/pki/tokens.csv" --anonymous-auth=false --authorization-mode RBAC \
    --service-account-issuer https://kubernetes.default.svc --service-account-key-file "$DIR/pki/sa.pub" \
    --service-account-signing-key-file "$DIR/pki/sa.key" --disable-admission-plugins ServiceAccount \
    --service-cluster-ip-range 10.96.0.0/16,fd00:96::/112 ${extra[@]+"${extra[@]}"} >"$DIR/kube-apiserver.cmd"

  trap 'exit 130' INT TERM
  trap undo EXIT
  start etcd
  wait_for etcd $ETCD_WAIT etcd_ready
  start kube-apiserver
  wait_for kube-apiserver $API_WAIT apiserver_ready
}

down() { # nothing here is worth an orderly end: the data is not kept
  stop kube-apiserver KILL
  stop etcd KILL
}

undo() { # whatever made `up` fail, it leaves nothing running
  local rc=$?
  trap - EXIT
  [ $rc = 0 ] || down
  exit $rc
}

case ${1:-} in
  -h | --help) usage; exit 0 ;;
  up | down | stop-apiserver | start-apiserver | kill-apiserver) [ -n "${2:-}" ] || { usage >&2; exit 2; } ;;
  *) usage >&2; exit 2 ;;
esac
SUB=$1 DIR=$2
shift 2
case $DIR in -*) usage >&2; exit 2 ;; esac
[ "$SUB" = up ] || [ $# = 0 ] || { usage >&2; exit 2; }
if [ "$SUB" = up ]; then
  mkdir -p "$DIR"
elif [ ! -d "$DIR" ]; then
  [ "$SUB" = down ] || die "$DIR: no such directory"
  exit 0
fi
DIR=$(cd "$DIR" && pwd)

case $SUB in
  up) up "$@" ;;
  down) down ;;
  stop-apiserver) stop kube-apiserver TERM ;;
  kill-apiserver) stop kube-apiserver KILL ;;
  start-apiserver)
    [ -f "$DIR/kube-apiserver.cmd" ] || die "nothing was started in $DIR"
    alive etcd || die "etcd does not run in $DIR; call 'up'"
    if ! alive kube-apiserver; then start kube-apiserver; fi
    wait_for kube-apiserver $API_WAIT apiserver_ready
    ;;
esac
