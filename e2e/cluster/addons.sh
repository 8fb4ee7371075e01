# shellcheck shell=bash
# What every cluster has: kube-proxy's rights, DNS, a default StorageClass, and cert-manager.

addons_up() {
  kctl apply -f "$CLUSTER_DIR/manifests/kube-proxy.yaml" >/dev/null
  sed "s|@COREDNS_IMAGE@|$(coredns_image)|" "$CLUSTER_DIR/manifests/coredns.yaml" | kctl apply -f - >/dev/null
  local n path_map=
  for n in "${NODES[@]}"; do
    path_map+=${path_map:+, }"{\"node\": \"n$n\", \"paths\": [\"$DISKS/n$n/volumes\"]}"
  done
  sed "s|@PATH_MAP@|$path_map|; s|@HELPER_IMAGE@|$HELPER_IMAGE|" "$CLUSTER_DIR/manifests/local-path.yaml" |
    kctl apply -f - >/dev/null
  start_provisioner
  start_cert_manager
}

coredns_image() { echo "localhost/coredns:$(tool_version coredns)"; }
