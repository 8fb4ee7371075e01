# shellcheck shell=bash
# What the machine must have: Debian's packages, and programs built from their Go
# modules into the cache. Each Go program has a go.mod of its own under tools/:
# their dependencies clash.

PACKAGES=(containerd runc containernetworking-plugins iptables nftables conntrack iproute2 ethtool socat
  procps util-linux openssl jq mmdebstrap buildah busybox-static gcc libc6-dev ca-certificates)

ensure_tools() {
  need_root
  ensure_packages
  ensure_go
  mkdir -p "$CACHE/bin"
  ensure_tool etcd "about 1 min" go.etcd.io/etcd/server/v3 server=etcd
  ensure_tool coredns "about 1 min" . coredns
  ensure_tool local-path "about 30 s" github.com/rancher/local-path-provisioner local-path-provisioner
  ensure_tool cert-manager "about 3 min" . cert-manager
  ensure_tool helm "about 1 min" helm.sh/helm/v4/cmd/helm helm
  ensure_tool kubernetes "about 9 min on 2 cores" \
    k8s.io/kubernetes/cmd/{kube-apiserver,kube-controller-manager,kube-scheduler,kubelet,kube-proxy,kubectl} \
    kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl
}

ensure_packages() {
  local missing=() package
  for package in "${PACKAGES[@]}"; do
    dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
  done
  ((${#missing[@]} > 0)) || return 0
  say "install ${missing[*]} (about 20 s) ..."
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null ||
    die "apt-get could not install: ${missing[*]}"
}

# Any Go from 1.21 on fetches the toolchain that a go.mod asks for.
ensure_go() {
  local version
  command -v go >/dev/null ||
    die "no 'go' in PATH. Install Go 1.21 or newer: from go.dev/dl, or 'apt-get install golang-1.21-go' or newer where Debian has it (bookworm: from bookworm-backports) with /usr/lib/go-1.21/bin in PATH. It fetches the toolchain it needs by itself (GOTOOLCHAIN=auto)."
  version=$(GOTOOLCHAIN=local go env GOVERSION)
  [[ $version =~ ^go1\.([0-9]+) ]] || die "cannot read the version of Go: '$version'"
  ((BASH_REMATCH[1] >= 21)) ||
    die "this is $version; Go 1.21 or newer is needed (go.dev/dl); from there on Go fetches the toolchain it needs by itself"
  export GOTOOLCHAIN=${GOTOOLCHAIN:-auto}
}

# tool_version NAME: the version of the module that gives a tool its name.
tool_version() {
  local module
  case $1 in
    kubernetes) module=k8s.io/kubernetes ;;
    etcd) module=go.etcd.io/etcd/server/v3 ;;
    helm) module=helm.sh/helm/v4 ;;
    coredns) module=github.com/coredns/coredns ;;
    cert-manager) module=github.com/cert-manager/cert-manager ;;
    local-path) module=github.com/rancher/local-path-provisioner ;;
    *) die "no tool '$1'" ;;
  esac
  awk -v module="$module" '{ sub(/^require /, "") } $1 == module && $2 ~ /^v/ { print $2; exit }' \
    "$CLUSTER_DIR/tools/$1/go.mod"
}

# ensure_tool NAME DURATION PACKAGE... PROGRAM...: builds a tool unless the cache
# has it. PROGRAM is a file name, or BUILT=WANTED where Go gives it another.
ensure_tool() {
  local name=$1 duration=$2 dir=$CLUSTER_DIR/tools/$1 packages=() programs=() argument version key
  shift 2
  for argument in "$@"; do
    if [[ $argument == */* || $argument == . ]]; then packages+=("$argument"); else programs+=("$argument"); fi
  done
  version=$(tool_version "$name")
  key=$({ cat "$dir"/* && ldflags "$name" "$version"; } | sha256sum | cut -c1-10)
  local out=$CACHE/bin/$name-$version-$key
  if [[ ! -d $out ]]; then
    say "build $name $version ($duration the first time) ..."
    rm -rf "$out.part"
    mkdir -p "$out.part"
    (cd "$dir" && CGO_ENABLED=0 go build -trimpath -ldflags "$(ldflags "$name" "$version")" \
      -o "$out.part/" "${packages[@]}") || die "build of $name $version failed"
    for argument in "${programs[@]}"; do
      [[ $argument == *=* ]] && mv "$out.part/${argument%=*}" "$out.part/${argument#*=}"
    done
    mv "$out.part" "$out"
    say "built $name $version"
  fi
  for argument in "${programs[@]}"; do
    ln -sfn "$(basename "$out")/${argument#*=}" "$CACHE/bin/${argument#*=}"
  done
}

# cert_manager_crds: where the definitions of its kinds lie, in the module that the tool is built from.
cert_manager_crds() {
  local dir
  dir=$(cd "$CLUSTER_DIR/tools/cert-manager" && go mod download github.com/cert-manager/cert-manager &&
    go list -m -f '{{.Dir}}' github.com/cert-manager/cert-manager) || die "no source of cert-manager"
  echo "$dir/deploy/crds"
}

ldflags() { # NAME VERSION
  local flags="-s -w" variable=k8s.io/component-base/version minor=${2#*.}
  if [[ $1 == kubernetes ]]; then
    # Without these the servers report a placeholder, and clients refuse it.
    flags+=" -X $variable.gitVersion=$2 -X $variable.gitMajor=1 -X $variable.gitMinor=${minor%%.*}"
    flags+=" -X $variable.gitTreeState=clean -X k8s.io/client-go/pkg/version.gitVersion=$2"
  fi
  if [[ $1 == helm ]]; then
    flags+=" -X helm.sh/helm/v4/internal/version.version=$2"
  fi
  echo "$flags"
}
