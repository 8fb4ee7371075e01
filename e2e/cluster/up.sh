# shellcheck shell=bash
# From nothing to three ready nodes with DNS and volumes.

up() {
  need_root
  if [[ -e $RUN/up ]]; then
    already_up
    return
  fi
  [[ ! -e $RUN && ! -e /run/netns/$CP ]] || die "a cluster half up is in the way: run 'make cluster-down' first"
  ensure_tools
  local files base=() made=() n
  files=$("$REPO/e2e/images/images" base) || die "images could not be made"
  mapfile -t base <<<"$files"
  mapfile -t made < <("$REPO/e2e/images/images" made)

  mkdir -p "$RUN"/{log,pid} "$DISKS"
  save_sysctls
  make_mount_points
  say "certificates, networks, control plane ..."
  make_pki
  net_up
  control_plane_up
  addons_up
  make_golden_root "${base[@]}"
  for n in "${NODES[@]}"; do
    golden_into_node "$n" "${base[@]}"
    node_start "$n"
  done
  for n in "${NODES[@]}"; do wait_for 30 "containerd of n$n" node_ctr "$n" version; done
  if ((${#made[@]} > 0)); then
    say "import ${made[*]##*/} ..."
    load_images "${made[@]}"
  fi
  say "wait for nodes and DNS ..."
  wait_for 60 "Ready of all nodes" nodes_ready
  wait_for 90 "the DNS deployment" dns_ready
  touch "$RUN/up"
  say "cluster is up: export KUBECONFIG=$KUBECONFIG_ADMIN"
}

already_up() {
  local found
  found=$(problems)
  if [[ -n $found ]]; then
    printf '%s\n' "$found" >&2
    die "the cluster is up but not healthy (see above); heal it, or run 'make cluster-down'"
  fi
  say "cluster is up and healthy already: export KUBECONFIG=$KUBECONFIG_ADMIN"
}

nodes_ready() {
  local ready
  ready=$(kctl get nodes -o 'jsonpath={.items[*].status.conditions[?(@.type=="Ready")].status}' | grep -o True | wc -l)
  ((ready == ${#NODES[@]}))
}

dns_ready() {
  [[ $(kctl -n kube-system get deployment coredns -o 'jsonpath={.status.readyReplicas}') == 2 ]]
}

# The kubelet sets these for the whole machine; `down` puts them back.
save_sysctls() {
  sysctl vm.overcommit_memory vm.panic_on_oom kernel.panic kernel.panic_on_oops \
    kernel.keys.root_maxkeys kernel.keys.root_maxbytes >"$RUN/sysctls" 2>/dev/null || true
}
