# shellcheck shell=bash
# etcd, API server, controller manager, scheduler and the volume provisioner, as
# processes in the control plane's namespace: faults of nodes never touch them.

control_plane_up() {
  start_etcd
  start_apiserver
  start_api_bridge
  wait_for 90 "the API server's /readyz" api_ready
  start_controllers
}

api_ready() { kctl get --raw /readyz --request-timeout=5s; }
etcd_ready() { nsenter --net="/run/netns/$CP" bash -c '</dev/tcp/127.0.0.1/2379'; }

start_etcd() {
  mkdir -p "$DISKS/etcd"
  chmod 0700 "$DISKS/etcd"
  # Without fsync: the cluster does not outlive the machine, and tests share its disk.
  start_in "$CP" etcd "$CACHE/bin/etcd" --data-dir="$DISKS/etcd" --unsafe-no-fsync --log-level=warn \
    --listen-client-urls=http://127.0.0.1:2379 --advertise-client-urls=http://127.0.0.1:2379 \
    --listen-peer-urls=http://127.0.0.1:2380
  wait_for 30 "etcd" etcd_ready
}

start_apiserver() {
  local pki=$RUN/pki
  # shellcheck disable=SC2054 # commas belong to the values
  local flags=(
    --etcd-servers=http://127.0.0.1:2379
    --bind-address=0.0.0.0
    --advertise-address="$NET.1"
    --secure-port=6443
    --tls-cert-file="$pki/apiserver.crt"
    --tls-private-key-file="$pki/apiserver.key"
    --client-ca-file="$pki/ca.crt"
    --service-account-key-file="$pki/sa.pub"
    --service-account-signing-key-file="$pki/sa.key"
    --service-account-issuer=https://kubernetes.default.svc.cluster.local
    --service-cluster-ip-range="$SERVICE_CIDR"
    --authorization-mode=Node,RBAC
    --enable-admission-plugins=NodeRestriction
    --allow-privileged=true
    --kubelet-certificate-authority="$pki/ca.crt"
    --kubelet-client-certificate="$pki/kubelet-client.crt"
    --kubelet-client-key="$pki/kubelet-client.key"
    # Else logs and exec ask DNS for the nodes' names.
    --kubelet-preferred-address-types=InternalIP
    # No kube-proxy serves this namespace: webhooks are reached at the pod's address.
    --enable-aggregator-routing=true
    --audit-policy-file="$CLUSTER_DIR/manifests/audit-policy.yaml"
    --audit-log-path="$RUN/log/audit.log"
    --audit-log-maxsize=100
    --audit-log-maxbackup=1
  )
  start_in "$CP" apiserver "$CACHE/bin/kube-apiserver" "${flags[@]}"
}

# A process on the machine reaches the API through a unix socket, for those
# cross network namespaces: 127.0.0.1:PORT -> socket -> 127.0.0.1:6443 inside.
start_api_bridge() {
  start_in "$CP" api-inside socat "UNIX-LISTEN:$RUN/api.sock,fork,unlink-early" TCP:127.0.0.1:6443
  setsid env --chdir=/ socat "TCP-LISTEN:$API_PORT,bind=127.0.0.1,fork,reuseaddr" "UNIX-CONNECT:$RUN/api.sock" \
    >>"$RUN/log/api-outside.log" 2>&1 </dev/null &
  record api-outside $!
}

# Starts those that do not run: also called after the API server was away.
start_controllers() {
  local pki=$RUN/pki
  is_running controller-manager || start_in "$CP" controller-manager "$CACHE/bin/kube-controller-manager" \
    --kubeconfig="$pki/kcm.kubeconfig" --leader-elect=false --use-service-account-credentials=true \
    --service-account-private-key-file="$pki/sa.key" --root-ca-file="$pki/ca.crt" \
    --cluster-signing-cert-file="$pki/ca.crt" --cluster-signing-key-file="$pki/ca.key" \
    --allocate-node-cidrs=false --node-monitor-grace-period="$NODE_GRACE" \
    --kube-api-qps=100 --kube-api-burst=200
  is_running scheduler || start_in "$CP" scheduler "$CACHE/bin/kube-scheduler" \
    --kubeconfig="$pki/scheduler.kubeconfig" --leader-elect=false
}

# cert-manager's controllers, with its kinds known to the API server.
start_cert_manager() {
  local crd crds
  crds=$(cert_manager_crds) # apart: a failure inside an argument stops nothing
  for crd in certificaterequests certificates clusterissuers issuers; do
    kctl apply --server-side -f "$crds/cert-manager.io_$crd.yaml" >/dev/null
  done
  kctl wait --for=condition=Established --timeout=60s crd/certificates.cert-manager.io crd/issuers.cert-manager.io >/dev/null
  is_running cert-manager || start_in "$CP" cert-manager "$CACHE/bin/cert-manager" --kubeconfig "$RUN/pki/admin.kubeconfig"
}

# It ends at once where its ConfigMap is missing, so it comes after the add-ons.
start_provisioner() {
  is_running provisioner || start_in "$CP" provisioner env POD_NAMESPACE=local-path-storage \
    "$CACHE/bin/local-path-provisioner" start --kubeconfig "$RUN/pki/admin.kubeconfig" \
    --namespace local-path-storage --configmap-name local-path-config \
    --service-account-name local-path-provisioner --helper-image "$HELPER_IMAGE"
}
