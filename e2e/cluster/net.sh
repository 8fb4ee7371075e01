# shellcheck shell=bash
# Networks: one namespace for the control plane with a bridge, one per node with
# a cable (veth) to that bridge. No route leads out of them.

net_up() {
  ip netns add "$CP"
  ip -n "$CP" link set lo up
  # A fixed address: a bridge otherwise takes that of one of its ports, and with it that port's frames.
  ip -n "$CP" link add br0 address 02:50:47:00:00:01 type bridge
  ip -n "$CP" link set br0 up
  ip -n "$CP" addr add "$NET.1/24" dev br0
  local n
  for n in "${NODES[@]}"; do
    ip -n "$CP" route add "$POD_NET.$n.0/24" via "$NET.1$n"
  done
  faults_table
}

# Faults are packet filters on the bridge, by port: they see whatever crosses a
# cable (pods' packets and ARP too), send no answer, and leave the cable's
# carrier up, as a fault elsewhere in a real network does.
faults_table() {
  nsenter --net="/run/netns/$CP" nft -f - <<'NFT'
table bridge pgpair {
  set off { type ifname; }
  set cut { type ifname; }
  set cut_api { type ifname; }
  set cut_to_api { type ifname; }
  set cut_from_api { type ifname; }
  set cut_pair { type ifname . ifname; }
  chain forward {
    type filter hook forward priority 0;
    iifname @cut drop
    oifname @cut drop
    iifname @off drop
    oifname @off drop
    iifname . oifname @cut_pair drop
  }
  chain input {
    type filter hook input priority 0;
    iifname @cut drop
    iifname @cut_api drop
    iifname @cut_to_api drop
    iifname @off drop
  }
  chain output {
    type filter hook output priority 0;
    oifname @cut drop
    oifname @cut_api drop
    oifname @cut_from_api drop
    oifname @off drop
  }
}
NFT
}

faults_set() { # add|delete SET ELEMENT
  nsenter --net="/run/netns/$CP" nft "$1" element bridge pgpair "$2" "{ $3 }"
}

node_net_up() { # N
  local n=$1 ns other
  ns=$(node_ns "$n")
  ip netns add "$ns"
  ip -n "$ns" link set lo up
  ip link add eth0 netns "$ns" type veth peer name "n$n" netns "$CP"
  ip -n "$CP" link set "n$n" master br0 up
  ip -n "$ns" link set eth0 up
  ip -n "$ns" addr add "$NET.1$n/24" dev eth0
  nsenter --net="/run/netns/$ns" sysctl -qw net.ipv4.ip_forward=1
  # The kubelet needs a default route to choose an address; this one ends at the bridge.
  ip -n "$ns" route add default via "$NET.1"
  for other in "${NODES[@]}"; do
    [[ $n == "$other" ]] || ip -n "$ns" route add "$POD_NET.$other.0/24" via "$NET.1$other"
  done
}

node_net_down() { # N
  local ns
  ns=$(node_ns "$1")
  if [[ -e /run/netns/$ns ]]; then ip netns del "$ns"; fi
  # The kernel frees a namespace a little later; the cable's name must be free at once.
  ip -n "$CP" link del "n$1" 2>/dev/null || true
}
