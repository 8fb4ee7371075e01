# shellcheck shell=bash
# One node: its configuration, its start and end, its images.

# Where programs have built-in paths; made if missing, and then removed by `down`.
MOUNT_POINTS=(/run/containerd /run/netns /etc/cni/net.d /var/lib/containerd /var/lib/kubelet /var/lib/cni
  /var/log/pods /var/log/containers)

make_mount_points() {
  local dir parent
  for dir in "${MOUNT_POINTS[@]}"; do
    parent=$dir
    while [[ ! -d $parent ]]; do
      echo "$parent" >>"$RUN/created-dirs"
      parent=$(dirname "$parent")
    done
    mkdir -p "$dir"
  done
}

node_start() { # N
  local n=$1 run=$RUN/n$1 disk=$DISKS/n$1
  # What a real machine keeps in memory starts empty.
  rm -rf "$run"
  mkdir -p "$run"/{containerd,netns,cni} "$disk"/{containerd,kubelet,cni,pods,containers,volumes}
  node_cgroups "$n"
  node_configure "$n"
  node_net_up "$n"
  setsid env --chdir=/ nsenter --net="/run/netns/$(node_ns "$n")" \
    unshare --mount --mount-proc --propagation=private --pid --fork --kill-child \
    "$CLUSTER_DIR/node-init.sh" "n$n" "$run" "$disk" "$CACHE/bin" "$RUN/log" \
    >>"$RUN/log/init-n$n.log" 2>&1 </dev/null &
  record "unshare-n$n" $!
  wait_for 10 "the first process of node n$n" record_init "$n"
}

record_init() { # N: the child of unshare is the node's first process
  local parent child
  parent=$(recorded_pid "unshare-n$1")
  child=$(pgrep -P "$parent") && record "init-n$1" "$child"
}

# Loss of power. The cable goes first, or the kernel would tell the peers of the
# dying processes' connections, which a machine without power cannot do. What was
# written and not flushed survives in the machine's page cache, unlike in a real loss.
node_stop() { # N
  faults_set add off "\"n$1\""
  kill_recorded "init-n$1"
  kill_recorded "unshare-n$1"
  node_net_down "$1"
  faults_set delete off "\"n$1\""
  remove_cgroups "n$1"
}

node_cgroups() { # N
  local root
  for root in $(cgroup_roots); do
    mkdir -p "$root/$CGROUP/n$1"
  done
  [[ $(cgroup_version) == 2 ]] || return 0
  # Version 2: a folder has a controller only if its parents hand it down. One
  # by one: a controller that the machine keeps to itself must not stop the rest.
  local dir controller
  for dir in /sys/fs/cgroup "/sys/fs/cgroup/$CGROUP" "/sys/fs/cgroup/$CGROUP/n$1"; do
    for controller in $(<"$dir/cgroup.controllers"); do
      echo "+$controller" 2>/dev/null >"$dir/cgroup.subtree_control" || true
    done
  done
  for controller in cpu cpuset memory pids; do
    grep -qw "$controller" "/sys/fs/cgroup/$CGROUP/n$1/cgroup.subtree_control" ||
      die "cgroup controller '$controller' is not to be had (a nested cgroup namespace with processes in its root?)"
  done
}

remove_cgroups() { # NAME below our folder, or "" for the folder itself
  local root dir
  for root in $(cgroup_roots_all); do
    dir=$root/$CGROUP${1:+/$1}
    if [[ -d $dir ]]; then
      wait_for 10 "removal of the cgroups below $dir" remove_cgroup_tree "$dir"
    fi
  done
}

remove_cgroup_tree() {
  find "$1" -depth -type d -exec rmdir {} + 2>/dev/null
  [[ ! -d $1 ]]
}

node_configure() { # N
  local n=$1 run=$RUN/n$1
  echo "$NET.1$n" >"$run/address"
  # Pods ask the cluster's DNS, which asks nobody else.
  echo "nameserver 127.0.0.1" >"$run/resolv.conf"
  cp "$RUN/pki/node-n$n.kubeconfig" "$run/kubelet.kubeconfig"
  cat >"$run/cni/10-pgpair.conflist" <<JSON
{"cniVersion": "1.0.0", "name": "pgpair", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "hairpinMode": true,
   "ipam": {"type": "host-local", "ranges": [[{"subnet": "$POD_NET.$n.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
JSON
  # restrict_oom_score_adj: where the machine may not lower oom scores, runc would die of trying.
  cat >"$run/containerd.toml" <<TOML
version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "$PAUSE_IMAGE"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
TOML
  kubelet_config "$n" >"$run/kubelet.yaml"
  cat >"$run/kube-proxy.yaml" <<YAML
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
clientConnection: {kubeconfig: $RUN/pki/proxy.kubeconfig}
clusterCIDR: $POD_NET.0.0/16
hostnameOverride: n$n
# Zero: leave the machine's own settings alone.
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
YAML
}

kubelet_config() { # N
  local run=$RUN/n$1
  cat <<YAML
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: $NET.1$1
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
cgroupDriver: cgroupfs
cgroupRoot: /$CGROUP/n$1
failCgroupV1: false
failSwapOn: false
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $RUN/pki/ca.crt}}
authorization: {mode: Webhook}
tlsCertFile: $RUN/pki/node-n$1.crt
tlsPrivateKeyFile: $RUN/pki/node-n$1.key
clusterDNS: [10.96.0.10]
clusterDomain: cluster.local
resolvConf: $run/resolv.conf
# A full disk of the machine must not evict what is under test.
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
evictionHard: {memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1%}
# Tests make and remove many pods at once.
kubeAPIQPS: 100
kubeAPIBurst: 200
eventRecordQPS: 0
# Tests kill the same container again and again; how long the kubelet then waits (up to 5 min) is not under test.
crashLoopBackOff: {maxContainerRestartPeriod: 10s}
YAML
}

node_ctr() { # N ARGUMENT...
  local n=$1
  shift
  ctr -a "$RUN/n$n/containerd/containerd.sock" -n k8s.io "$@"
}
