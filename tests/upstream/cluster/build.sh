#!/usr/bin/env bash
# Builds everything the test cluster needs into BIN (see env.sh):
#   Kubernetes and etcd and CoreDNS binaries from Go modules, containerd/runc/CNI plugins from Debian packages,
#   and hand-made image archives (BIN/images/*.tar) under the names the upstream e2e tests ask for.
# Re-running skips what exists; FORCE=1 rebuilds.  Only package registries are contacted.
set -euo pipefail
HERE=$(cd "$(dirname "$0")" && pwd)
. "$HERE/env.sh"
FORCE=${FORCE:-}
mkdir -p "$BIN" "$BIN/images" "$W/log"
want() { [ -n "$FORCE" ] || [ ! -e "$BIN/$1" ]; }
say() { echo "$(date +%T) $*"; }

# --- Go modules -------------------------------------------------------------------------------------------------
LD="-s -w -X k8s.io/component-base/version.gitVersion=$KVER -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=36"
gob() { # module, output name, package
  want "$2" || return 0
  say "go build $2"; (cd "$HERE/src/$1" && CGO_ENABLED=0 nice go build -trimpath -ldflags "$LD" -o "$BIN/$2" "$3")
}
gob etcd etcd go.etcd.io/etcd/server/v3
for c in kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl; do gob kube $c k8s.io/kubernetes/cmd/$c; done
gob kube agnhost k8s.io/kubernetes/test/images/agnhost
gob kube regression-issue-74839 k8s.io/kubernetes/test/images/regression-issue-74839
gob coredns coredns github.com/coredns/coredns
if want e2e.test; then
  say "go test -c e2e.test"
  (cd "$HERE/src/kube" && CGO_ENABLED=0 nice go test -c -trimpath -ldflags "$LD" -o "$BIN/e2e.test" k8s.io/kubernetes/test/e2e)
fi
if want ginkgo; then say "go build ginkgo"; (cd "$HERE/src/kube" && CGO_ENABLED=0 nice go build -trimpath -o "$BIN/ginkgo" github.com/onsi/ginkgo/v2/ginkgo); fi

# --- container runtime from Debian packages, unpacked beside the binaries (nothing is installed) ------------------
if want deb/usr/bin/containerd; then
  say "containerd, runc, CNI plugins"
  mkdir -p "$W/pk" "$BIN/deb"
  (cd "$W/pk" && apt-get download containerd runc containernetworking-plugins >"$W/log/apt-rt.log" 2>&1
   for d in containerd_*.deb runc_*.deb containernetworking-plugins_*.deb; do dpkg-deb -x "$d" "$BIN/deb"; done)
fi

# --- images -------------------------------------------------------------------------------------------------------
PKGS=${PKGS:-busybox-static libc-bin bash coreutils grep sed procps curl wget netcat-openbsd bind9-dnsutils iproute2 conntrack iperf iptables nftables util-linux}
ROOT=$W/rootfs
if [ -n "$FORCE" ] || [ ! -e "$ROOT/bin/sh" ]; then
  say "tools root file system from Debian packages"
  rm -rf "$ROOT" "$W/apt"; mkdir -p "$W/apt/archives/partial" "$ROOT"; : >"$W/apt/status"
  apt-get -y -o Dir::State::status="$W/apt/status" -o Dir::Cache::archives="$W/apt/archives" -o APT::Install-Recommends=false \
    -o Debug::NoLocking=1 --download-only install $PKGS >"$W/log/apt-rootfs.log" 2>&1
  for d in bin sbin lib lib64; do mkdir -p "$ROOT/usr/$d"; ln -s usr/$d "$ROOT/$d"; done
  for d in "$W"/apt/archives/*.deb; do dpkg-deb --fsys-tarfile "$d" | tar -x --keep-directory-symlink -C "$ROOT"; done
  rm -rf "$ROOT"/usr/share/{doc,man,locale,info,i18n} "$ROOT"/usr/lib/x86_64-linux-gnu/gconv
  mkdir -p "$ROOT"/{tmp,uploads,proc,sys,dev,root,run,var/run,home,etc}; chmod 1777 "$ROOT/tmp"
  printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\nuser-defined-in-image:x:1000:1000::/home:/bin/sh\n' >"$ROOT/etc/passwd"
  printf 'root:x:0:\nnogroup:x:65534:\ngroup-defined-in-image:x:50000:user-defined-in-image\n' >"$ROOT/etc/group"
  printf 'passwd: files\ngroup: files\nhosts: files dns\n' >"$ROOT/etc/nsswitch.conf"
  ln -sf nc.openbsd "$ROOT/usr/bin/nc"
  echo "tries = 1" >"$ROOT/etc/wgetrc"   # as busybox wget behaves (Debian 12 busybox wget itself crashes)
  for t in iptables ip6tables; do for s in "" -save -restore; do ln -sf xtables-nft-multi "$ROOT/usr/sbin/$t$s"; done; done
  ln -sf bash "$ROOT/usr/bin/sh"  # not busybox: its shell would prefer its own nc over the real one
  for a in $("$ROOT/usr/bin/busybox" --list); do
    [ -e "$ROOT/usr/bin/$a" ] || [ -L "$ROOT/usr/bin/$a" ] || [ -e "$ROOT/usr/sbin/$a" ] || [ -L "$ROOT/usr/sbin/$a" ] || ln -s busybox "$ROOT/usr/bin/$a"
  done
fi

mkimg() { # archive name, rootfs dir, entrypoint JSON, cmd JSON, tag...
  local n=$1 root=$2 ep=$3 cmd=$4; shift 4
  want "images/$n.tar" || return 0
  say "image $n: $*"
  local t; t=$(mktemp -d "$W/img.XXXXXX")
  tar --numeric-owner --owner=0 --group=0 -C "$root" -cf "$t/layer.tar" .
  local sum; sum=$(sha256sum "$t/layer.tar" | cut -d' ' -f1)
  printf '{"architecture":"amd64","os":"linux","created":"2024-01-01T00:00:00Z","config":{"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],"Entrypoint":%s,"Cmd":%s,"WorkingDir":"/"},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]},"history":[{"created":"2024-01-01T00:00:00Z","created_by":"build.sh"}]}' "$ep" "$cmd" "$sum" >"$t/config.json"
  local tags; tags=$(printf '"%s",' "$@"); tags=${tags%,}
  printf '[{"Config":"config.json","RepoTags":[%s],"Layers":["layer.tar"]}]' "$tags" >"$t/manifest.json"
  tar -C "$t" -cf "$BIN/images/$n.tar" manifest.json config.json layer.tar
  rm -rf "$t"
}
KDIR=$(cd "$HERE/src/kube" && go list -m -f '{{.Dir}}' k8s.io/kubernetes)
tag() { sed -n "s/^\tconfigs\[$1\] *= Config{[^,]*, \"[^\"]*\", \"\([^\"]*\)\"}.*/\1/p" "$KDIR/test/utils/image/manifest.go"; }
R=registry.k8s.io/e2e-test-images
if want images/pause.tar; then
  mkdir -p "$W/pause"; gcc -Os -static -s -o "$W/pause/pause" "$KDIR/build/pause/linux/pause.c"
  mkimg pause "$W/pause" '["/pause"]' null registry.k8s.io/pause:"$(tag Pause)"
fi
if want images/agnhost.tar; then
  cp "$BIN/agnhost" "$BIN/coredns" "$ROOT/"; ln -sf agnhost "$ROOT/agnhost-2"
  cp "$KDIR"/test/images/agnhost/porter/localhost.* "$ROOT/"
  mkimg agnhost "$ROOT" '["/agnhost"]' '["pause"]' $R/agnhost:"$(tag Agnhost)" $R/agnhost:"$(tag AgnhostPrev)"
  rm -f "$ROOT"/agnhost "$ROOT"/agnhost-2 "$ROOT"/coredns "$ROOT"/localhost.*
fi
# Stand-ins built from the same tools: busybox's shell, and a plain web server in place of nginx.
mkimg busybox "$ROOT" null '["sh"]' $R/busybox:"$(tag BusyBox)" registry.k8s.io/build-image/distroless-iptables:"$(tag DistrolessIptables)" $R/glibc-dns-testing:"$(tag GlibcDnsTesting)"
mkimg nginx "$ROOT" '["/bin/busybox","httpd","-f","-p","80","-h","/tmp"]' null $R/nginx:"$(tag Nginx)" $R/nginx:"$(tag NginxNew)"
if want images/regression.tar; then
  mkdir -p "$W/regr"; cp "$BIN/regression-issue-74839" "$W/regr/"
  mkimg regression "$W/regr" '["/regression-issue-74839"]' null $R/regression-issue-74839:"$(tag RegressionIssue74839)"
fi
if want images/coredns.tar; then
  mkdir -p "$W/cdns"; cp "$BIN/coredns" "$W/cdns/"
  mkimg coredns "$W/cdns" '["/coredns"]' null registry.k8s.io/coredns/coredns:local
fi
say "done: $BIN"
