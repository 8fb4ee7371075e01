# shellcheck shell=bash
# What goes wrong on purpose.

link() { # WHAT down|up
  (($# == 2)) || die "usage: link N|N-api|N-M|A-to-B|all down|up"
  local verb a b
  case $2 in
    down) verb=add ;;
    up) verb=delete ;;
    *) die "link: '$2' is neither down nor up" ;;
  esac
  if [[ $1 == all ]]; then
    [[ $2 == up ]] || die "link all: only up"
    local set
    for set in "${CUTS[@]}"; do
      nsenter --net="/run/netns/$CP" nft flush set bridge pgpair "$set"
    done
    return
  fi
  case $1 in
    api-to-*)
      a=$(node_number "${1#api-to-}")
      change_cut "$verb" cut_from_api "\"n$a\""
      return
      ;;
  esac
  a=$(node_number "${1%%-*}")
  case $1 in
    *-to-api) change_cut "$verb" cut_to_api "\"n$a\"" ;;
    *-to-*)
      b=$(node_number "${1#*-to-}")
      change_cut "$verb" cut_pair "\"n$a\" . \"n$b\""
      ;;
    *-api) change_cut "$verb" cut_api "\"n$a\"" ;;
    *-*)
      b=$(node_number "${1#*-}")
      change_cut "$verb" cut_pair "\"n$a\" . \"n$b\", \"n$b\" . \"n$a\""
      ;;
    *) change_cut "$verb" cut "\"n$a\"" ;;
  esac
}

# Healing what is whole is no error: adding first makes the removal succeed.
change_cut() { # add|delete SET ELEMENT
  if [[ $1 == delete ]]; then faults_set add "$2" "$3"; fi
  faults_set "$1" "$2" "$3"
}

node() { # stop|start N
  (($# == 2)) || die "usage: node stop|start N"
  local n
  n=$(node_number "$2")
  case $1 in
    stop)
      is_running "init-n$n" || die "node n$n has no power already"
      node_stop "$n"
      ;;
    start)
      is_gone "init-n$n" || die "node n$n runs already"
      node_start "$n"
      wait_for 30 "containerd of n$n" node_ctr "$n" version
      ;;
    *) die "node: '$1' is neither stop nor start" ;;
  esac
}

api() { # stop|start|pause|resume
  local pid
  case ${1:-} in
    stop) kill_recorded apiserver ;;
    start)
      is_gone apiserver || die "the API server runs already"
      start_apiserver
      wait_for 60 "the API server's /readyz" api_ready
      start_controllers
      start_provisioner
      ;;
    pause | resume)
      pid=$(recorded_pid apiserver) || die "the API server does not run"
      if [[ $1 == pause ]]; then kill -STOP "$pid"; else kill -CONT "$pid"; fi
      ;;
    *) die "usage: api stop|start|pause|resume" ;;
  esac
}

etcd() { # stop|start
  case ${1:-} in
    stop) kill_recorded etcd ;;
    start)
      is_gone etcd || die "etcd runs already"
      start_etcd
      wait_for 60 "the API server's /readyz" api_ready
      start_controllers
      start_provisioner
      ;;
    *) die "usage: etcd stop|start" ;;
  esac
}

# To processes as this machine sees them: no API server, no shell in the container is needed.
process() { # kill|stop|continue NODE NAMESPACE POD CONTAINER agent|postmaster
  (($# == 6)) || die "usage: process kill|stop|continue NODE NAMESPACE POD CONTAINER agent|postmaster"
  local signal first pid
  case $1 in
    kill) signal=KILL ;;
    stop) signal=STOP ;;
    continue) signal=CONT ;;
    *) die "process: '$1' is none of kill, stop, continue" ;;
  esac
  first=$(container_pid "${@:2:4}")
  case $6 in
    agent) pid=$(oldest_child "$first") ;;
    postmaster) pid=$(oldest_child "$(oldest_child "$first")" --exact postgres) ;;
    *) die "process: '$6' is neither agent nor postmaster" ;;
  esac
  kill "-$signal" "$pid"
  echo "$pid"
}

# Init starts the agent before anything else; orphans that it adopts later are younger.
oldest_child() { # PID [PGREP-ARGUMENT...]
  local pid
  pid=$(pgrep --oldest --parent "$@") || die "process $1 has no such child (${*:2})"
  echo "$pid"
}

pod() { # freeze|thaw NODE NAMESPACE POD [CONTAINER-OF-IT]
  (($# == 4 || $# == 5)) || die "usage: pod freeze|thaw NODE NAMESPACE POD [CONTAINER]"
  local pid dir
  pid=$(container_pid "$2" "$3" "$4" "${5:-postgres}")
  dir=$(pod_cgroup "$pid")
  case $1 in
    freeze) set_frozen "$dir" 1 ;;
    thaw) set_frozen "$dir" 0 ;;
    *) die "pod: '$1' is neither freeze nor thaw" ;;
  esac
}

# The folder above that of the container, where freezing reaches every container of the pod.
pod_cgroup() { # PID
  local path
  if [[ $(cgroup_version) == 2 ]]; then
    path=/sys/fs/cgroup$(sed -n 's/^0:://p' "/proc/$1/cgroup")
  else
    path=/sys/fs/cgroup/freezer$(sed -n 's/^[0-9]*:freezer://p' "/proc/$1/cgroup")
  fi
  dirname "$path"
}

set_frozen() { # CGROUP 0|1
  if [[ $(cgroup_version) == 2 ]]; then
    echo "$2" >"$1/cgroup.freeze"
  elif [[ $2 == 1 ]]; then
    echo FROZEN >"$1/freezer.state"
    wait_for 10 "the freezing of $1" grep -qx FROZEN "$1/freezer.state"
  else
    echo THAWED >"$1/freezer.state"
  fi
}

thaw_all() {
  local file word
  while read -r file; do
    if [[ $file == *.state ]]; then word=THAWED; else word=0; fi
    # One that is gone meanwhile needs no thawing.
    echo "$word" 2>/dev/null >"$file" || true
  done < <(find "/sys/fs/cgroup/freezer/$CGROUP" "/sys/fs/cgroup/$CGROUP" -mindepth 2 \
    \( -name freezer.state -o -name cgroup.freeze \) 2>/dev/null)
}

# What is whole stays as it is.
heal() {
  local n pid
  link all up
  thaw_all
  disks_heal
  is_running etcd || start_etcd
  if pid=$(recorded_pid apiserver); then kill -CONT "$pid"; else start_apiserver; fi
  wait_for 60 "the API server's /readyz" api_ready
  start_controllers
  start_provisioner
  for n in "${NODES[@]}"; do
    is_running "init-n$n" || node start "$n"
  done
}

container() { # kill NODE NAMESPACE POD CONTAINER
  [[ ${1:-} == kill ]] || die "usage: container kill NODE NAMESPACE POD CONTAINER"
  shift
  local pid
  pid=$(container_pid "$@")
  kill -KILL "$pid"
}

# The pid, on this machine, of a container's first process.
container_pid() { # NODE NAMESPACE POD CONTAINER
  (($# == 4)) || die "usage: exec-pid NODE NAMESPACE POD CONTAINER"
  local n id inner dir file pid
  n=$(node_number "$1")
  while read -r id; do
    # Ended attempts have no task, or a stopped one; a frozen one counts as paused.
    inner=$(node_ctr "$n" tasks ls | awk -v id="$id" '$1 == id && $3 ~ /^(RUNNING|PAUSED)$/ { print $2 }')
    [[ -n $inner ]] || continue
    dir=$(find "$(cgroup_process_root)/$CGROUP/n$n" -type d -name "$id" -print -quit)
    while read -r file; do
      while read -r pid; do
        # NSpid: on this machine, in the node, in the container.
        if awk -v inner="$inner" '$1 == "NSpid:" { exit $3 != inner }' "/proc/$pid/status"; then
          echo "$pid"
          return
        fi
      done <"$file"
    done < <(find "$dir" -name cgroup.procs)
  done < <(node_ctr "$n" containers ls -q \
    "$(label_filter pod.namespace "$2"),$(label_filter pod.name "$3"),$(label_filter container.name "$4")")
  die "no running container '$4' of pod $2/$3 on n$n"
}

label_filter() { printf 'labels."io.kubernetes.%s"=="%s"' "$1" "$2"; }
