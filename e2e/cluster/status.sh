# shellcheck shell=bash
# What runs, and whether it is healthy.

CONTROL_PLANE=(etcd apiserver controller-manager scheduler cert-manager provisioner api-inside api-outside)

# problems: prints one line per thing that is not as it should be.
problems() {
  local name n
  [[ -e $RUN/up ]] || echo "the start did not come to its end"
  for name in "${CONTROL_PLANE[@]}"; do
    is_running "$name" || echo "$name does not run"
  done
  for n in "${NODES[@]}"; do
    is_running "init-n$n" || echo "node n$n has no power"
  done
  if ! api_answers; then
    echo "the API server does not answer /readyz"
    return
  fi
  kctl get nodes -o 'jsonpath={range .items[*]}{.metadata.name} {.status.conditions[?(@.type=="Ready")].status}{"\n"}{end}' |
    awk '$2 != "True" { print "node " $1 " is not Ready" }'
  cuts | sed 's/^/link cut: /'
}

api_answers() { kctl get --raw /readyz --request-timeout=5s >/dev/null 2>&1; }

cuts() {
  local set
  for set in "${CUTS[@]}"; do
    nsenter --net="/run/netns/$CP" nft -j list set bridge pgpair "$set" 2>/dev/null |
      jq -r --arg set "$set" '.nftables[] | .set? // empty | .elem? // [] | .[] |
        if type == "object" then .concat | join(" - ") else . end | $set + " " + .'
  done
}

status() {
  [[ -e $RUN/pid/etcd ]] || die "no cluster in $RUN (make cluster)"
  local found
  found=$(problems)
  if api_answers; then
    kctl get nodes -o wide
    kctl get pods -A -o wide
  fi
  if [[ -n $found ]]; then
    printf 'not healthy:\n%s\n' "$found" >&2
    return 1
  fi
  echo "healthy; KUBECONFIG=$KUBECONFIG_ADMIN"
}
