#!/usr/bin/env bash
# The first process of a node: prepares its mounts, runs containerd, kubelet and
# kube-proxy, restarts what ends, and reaps orphans. It has namespaces of its
# own for processes and mounts, so killing it is a loss of power: the kernel
# ends every process of the node at once, pods included, and its mounts vanish.
# usage: node-init.sh NAME RUN-FOLDER DISK-FOLDER BIN-FOLDER LOG-FOLDER
set -euo pipefail
name=$1 run=$2 disk=$3 bin=$4 log=$5

# Pods' volumes must propagate to containers; nothing must propagate to the machine.
mount --make-rshared /

# Programs with built-in paths get the node's own folder in each.
while read -r target source; do
  mount --bind "$source" "$target"
done <<MOUNTS
/run/containerd $run/containerd
/run/netns $run/netns
/etc/cni/net.d $run/cni
/var/lib/containerd $disk/containerd
/var/lib/kubelet $disk/kubelet
/var/lib/cni $disk/cni
/var/log/pods $disk/pods
/var/log/containers $disk/containers
MOUNTS

keep_running() { # NAME COMMAND...
  local what=$1
  shift
  while true; do
    "$@" >>"$log/$what-$name.log" 2>&1 || true
    echo "node-init: $what ended, starts again in 1 s" >>"$log/$what-$name.log"
    sleep 1
  done
}

keep_running containerd containerd --config "$run/containerd.toml" &
for _ in {1..150}; do
  [[ -S /run/containerd/containerd.sock ]] && break
  sleep 0.1
done
keep_running kubelet "$bin/kubelet" --config="$run/kubelet.yaml" --kubeconfig="$run/kubelet.kubeconfig" \
  --hostname-override="$name" --node-ip="$(<"$run/address")" --v=1 &
keep_running kube-proxy "$bin/kube-proxy" --config="$run/kube-proxy.yaml" &

# Bash reaps adopted children while it waits.
while true; do
  sleep 3600 &
  wait $! || true
done
