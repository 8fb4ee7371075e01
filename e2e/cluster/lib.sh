# shellcheck shell=bash disable=SC2034 # settings are used by the files that read this one
# What every other file uses: settings, messages, waits, recorded processes, cgroups.
# Kept light: `cluster link` must start in a few milliseconds.

CLUSTER_DIR=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
REPO=${CLUSTER_DIR%/e2e/cluster}
CACHE=${PGPAIR_CACHE:-$HOME/.cache/pgreplicapair}
RUN=${PGPAIR_RUN:-/run/pgreplicapair}
# The nodes' disks lie apart from the run folder: /run is often a small tmpfs.
DISKS=${PGPAIR_DISKS:-/var/lib/pgreplicapair}
API_PORT=${PGPAIR_API_PORT:-16443}
NODE_GRACE=${PGPAIR_NODE_GRACE:-40s}

# A second cluster beside the first needs another name, run folder, disk folder and port.
NAME=${PGPAIR_CLUSTER:-pgpair}

NODES=(1 2 3)
CP=$NAME-cp                     # network namespace of the control plane
CGROUP=$NAME                    # our folder in every cgroup hierarchy
NET=172.31.250                  # control plane .1, nodes .11 .12 .13
SERVICE_CIDR=10.96.0.0/16
POD_NET=10.244                  # node N has POD_NET.N.0/24
API_ADDRESS=$NET.1:6443
PAUSE_IMAGE=localhost/pause:1
HELPER_IMAGE=localhost/busybox:1   # the provisioner's helper pods need sh, mkdir, rm
KUBECONFIG_ADMIN=$RUN/kubeconfig
CUTS=(cut cut_api cut_to_api cut_from_api cut_pair)   # sets of the packet filter

SECONDS=0
say() { printf '[%3ds] %s\n' "$SECONDS" "$*" >&2; }
die() {
  printf 'cluster: %s\n' "$*" >&2
  exit 1
}

# wait_for SECONDS WHAT COMMAND...: until the command succeeds; names what did not come.
wait_for() {
  local limit=$1 what=$2 end
  shift 2
  end=$((SECONDS + limit))
  until "$@" >/dev/null 2>&1; do
    ((SECONDS < end)) || die "$what did not come within $limit s (logs: $RUN/log)"
    sleep 0.2
  done
}

need_root() { ((EUID == 0)) || die "must run as root: it makes network namespaces, mounts and cgroups"; }

# node_number n2|2: prints 2, refuses what is no node of ours.
node_number() {
  local n=${1#n} known
  for known in "${NODES[@]}"; do
    if [[ $n == "$known" ]]; then
      echo "$n"
      return
    fi
  done
  die "no node '$1': nodes are ${NODES[*]/#/n}"
}

node_ns() { echo "$NAME-n$1"; }

kctl() { "$CACHE/bin/kubectl" --kubeconfig="$KUBECONFIG_ADMIN" "$@"; }

# --- recorded processes -----------------------------------------------------
# A record is "pid start-time", so that a number that the kernel gave to
# somebody else since is never taken for ours.

process_start_time() { # the 22nd field; the name before it may hold spaces
  local stat
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
  stat=${stat##*) }
  # shellcheck disable=SC2086 # split on purpose
  set -- $stat
  echo "${20}"
}

record() { # NAME PID
  echo "$2 $(process_start_time "$2")" >"$RUN/pid/$1"
}

recorded_pid() { # NAME: prints the pid if that very process still runs
  local pid start
  { read -r pid start <"$RUN/pid/$1"; } 2>/dev/null || return 1
  [[ $(process_start_time "$pid") == "$start" ]] && [[ $(process_state "$pid") != Z ]] && echo "$pid"
}

process_state() {
  local stat
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
  stat=${stat##*) }
  echo "${stat%% *}"
}

is_running() { recorded_pid "$1" >/dev/null; }
is_gone() { ! is_running "$1"; }

# start_in NAMESPACE NAME COMMAND...: a daemon in that network namespace.
# nsenter and not `ip netns exec`: the latter mounts a fresh /sys, without cgroups.
start_in() {
  local namespace=$1 name=$2
  shift 2
  setsid env --chdir=/ nsenter --net="/run/netns/$namespace" "$@" >>"$RUN/log/$name.log" 2>&1 </dev/null &
  record "$name" $!
}

kill_recorded() { # NAME: SIGKILL, and waits until it is gone
  local pid
  if pid=$(recorded_pid "$1"); then
    kill -KILL "$pid" 2>/dev/null || true
    wait_for 20 "end of $1 (pid $pid)" is_gone "$1"
  fi
  rm -f "$RUN/pid/$1"
}

# --- cgroups, version 1 and 2 -----------------------------------------------

cgroup_version() { [[ -f /sys/fs/cgroup/cgroup.controllers ]] && echo 2 || echo 1; }

# The mounted hierarchies. In version 1 the named one (systemd) counts too, or
# runc finds no folder there; `unified` beside them holds no controllers.
cgroup_roots() {
  if [[ $(cgroup_version) == 2 ]]; then
    echo /sys/fs/cgroup
    return
  fi
  local root
  for root in /sys/fs/cgroup/*/; do
    root=${root%/}
    # Some systems have links such as cpu -> cpu,cpuacct.
    [[ -L $root || $root == */unified ]] || echo "$root"
  done
}

# Where our folders may be: runc makes one in `unified` too.
cgroup_roots_all() {
  cgroup_roots
  if [[ -d /sys/fs/cgroup/unified ]]; then echo /sys/fs/cgroup/unified; fi
}

# The hierarchy in which every process of a pod can be found.
cgroup_process_root() {
  if [[ $(cgroup_version) == 2 ]]; then echo /sys/fs/cgroup; else echo /sys/fs/cgroup/pids; fi
}
