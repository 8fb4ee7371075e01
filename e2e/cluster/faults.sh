# shellcheck shell=bash
# What goes wrong on purpose.

link() { # WHAT down|up
  (($# == 2)) || die "usage: link N|N-api|N-M|all down|up"
  local verb a b
  case $2 in
    down) verb=add ;;
    up) verb=delete ;;
    *) die "link: '$2' is neither down nor up" ;;
  esac
  if [[ $1 == all ]]; then
    [[ $2 == up ]] || die "link all: only up"
    local set
    for set in cut cut_api cut_pair; do
      nsenter --net="/run/netns/$CP" nft flush set bridge pgpair "$set"
    done
    return
  fi
  a=$(node_number "${1%%-*}")
  case $1 in
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
    # Ended attempts have no task, or a stopped one.
    inner=$(node_ctr "$n" tasks ls | awk -v id="$id" '$1 == id && $3 == "RUNNING" { print $2 }')
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
