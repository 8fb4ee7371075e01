# shellcheck shell=bash
# The cluster's certificates and kubeconfigs, made anew for each run.

make_pki() {
  mkdir -p "$RUN/pki"
  chmod 0700 "$RUN/pki"
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 365 -subj /CN=pgpair-ca \
    -keyout "$RUN/pki/ca.key" -out "$RUN/pki/ca.crt" 2>/dev/null
  openssl genrsa -out "$RUN/pki/sa.key" 2048 2>/dev/null
  openssl rsa -in "$RUN/pki/sa.key" -pubout -out "$RUN/pki/sa.pub" 2>/dev/null

  local n
  make_cert apiserver kube-apiserver "" \
    "IP:127.0.0.1,IP:$NET.1,IP:10.96.0.1,DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local"
  make_cert kubelet-client kube-apiserver-kubelet-client system:masters
  make_cert admin admin system:masters
  make_cert kcm system:kube-controller-manager
  make_cert scheduler system:kube-scheduler
  make_cert proxy system:kube-proxy
  for n in "${NODES[@]}"; do
    make_cert "node-n$n" "system:node:n$n" system:nodes "DNS:n$n,IP:$NET.1$n"
  done
  make_kubeconfig admin "https://127.0.0.1:$API_PORT" >"$KUBECONFIG_ADMIN"
  chmod 0600 "$KUBECONFIG_ADMIN"
}

make_cert() { # NAME COMMON-NAME [ORGANISATION] [ALTERNATIVE-NAMES]
  local base=$RUN/pki/$1
  openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "${3:+/O=$3}/CN=$2" \
    -keyout "$base.key" -out "$base.csr" 2>/dev/null
  openssl x509 -req -in "$base.csr" -CA "$RUN/pki/ca.crt" -CAkey "$RUN/pki/ca.key" -CAcreateserial \
    -days 365 -out "$base.crt" -extfile <(
      printf 'subjectAltName=%s\nextendedKeyUsage=clientAuth,serverAuth\n' "${4:-DNS:$1}"
    ) 2>/dev/null
  make_kubeconfig "$1" "https://$API_ADDRESS" >"$base.kubeconfig"
}

# Certificates lie inside the file, so that it can be copied anywhere.
make_kubeconfig() { # NAME SERVER
  cat <<YAML
apiVersion: v1
kind: Config
clusters:
  - name: pgpair
    cluster:
      server: $2
      certificate-authority-data: $(base64 -w0 "$RUN/pki/ca.crt")
users:
  - name: $1
    user:
      client-certificate-data: $(base64 -w0 "$RUN/pki/$1.crt")
      client-key-data: $(base64 -w0 "$RUN/pki/$1.key")
contexts:
  - {name: pgpair, context: {cluster: pgpair, user: $1}}
current-context: pgpair
YAML
}
