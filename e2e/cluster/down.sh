# shellcheck shell=bash
# The end: nothing stays but the cache, and that is checked.

down() {
  need_root
  local n file
  # What is frozen cannot be killed.
  thaw_all
  disks_heal
  for n in "${NODES[@]}"; do
    # Also where the network is gone already, half way up or down.
    kill_recorded "init-n$n"
    kill_recorded "unshare-n$n"
    node_net_down "$n"
  done
  for file in "$RUN"/pid/*; do
    [[ -e $file ]] && kill_recorded "$(basename "$file")"
  done
  kill_in_namespaces
  remove_cgroups ""
  disks_unmount
  if [[ -e /run/netns/$CP ]]; then ip netns del "$CP"; fi
  if [[ -e $RUN/sysctls ]]; then sysctl -q -p "$RUN/sysctls" >/dev/null 2>&1 || true; fi
  remove_files
  verify_down
}

# Children of recorded processes (socat has one per connection) are found by
# where they live: our network namespaces and our cgroups.
kill_in_namespaces() {
  local pid
  for pid in $(our_processes); do
    kill -KILL "$pid" 2>/dev/null || true
  done
  wait_for 20 "end of all processes of the cluster" no_processes
}

our_namespaces() {
  ip netns list | awk -v name="$NAME" 'index($1, name "-") == 1 && substr($1, length(name) + 2) ~ /^(cp|n[0-9]+)$/ { print $1 }'
}

our_processes() {
  local ns
  for ns in $(our_namespaces); do ip netns pids "$ns"; done
  find "$(cgroup_process_root)/$CGROUP" -name cgroup.procs -exec cat {} + 2>/dev/null || true
}

no_processes() { [[ -z $(our_processes) ]]; }

our_mounts() { awk -v run="$RUN/" -v disks="$DISKS/" 'index($2, run) == 1 || index($2, disks) == 1 { print $2 }' /proc/mounts; }

our_cgroups() {
  local root
  for root in $(cgroup_roots_all); do
    [[ ! -d $root/$CGROUP ]] || echo "$root/$CGROUP"
  done
}

remove_files() {
  [[ -z $(our_mounts) ]] || our_mounts | sort -r | xargs -n1 umount -l
  # Never through a mount: what is left below would be somebody's live data.
  [[ -z $(our_mounts) ]] || die "mounts below $RUN or $DISKS do not go away: $(our_mounts | tr '\n' ' ')"
  remove_created_dirs
  rm -rf --one-file-system "$RUN" "$DISKS"
}

# Mount points that were missing. One that holds something stays, and so does one
# that another cluster mounts on: to remove it would undo that mount.
remove_created_dirs() {
  local dir
  [[ -e $RUN/created-dirs ]] || return 0
  while read -r dir; do
    if grep -qsF " $dir " /proc/[0-9]*/mountinfo; then
      say "$dir stays: another cluster uses it"
    else
      rmdir "$dir" 2>/dev/null || true
    fi
  done < <(sort -ru "$RUN/created-dirs")
}

verify_down() {
  local left=0
  check_none "processes" "$(our_processes)"
  check_none "network namespaces" "$(our_namespaces)"
  check_none "mounts below $RUN and $DISKS" "$(our_mounts)"
  check_none "cgroups named $CGROUP" "$(our_cgroups)"
  check_none "files in $RUN and $DISKS" "$(ls -d "$RUN" "$DISKS" 2>/dev/null)"
  check_none "listeners on port $API_PORT" "$(ss -Hltn "sport = :$API_PORT")"
  ((left == 0)) || die "something stayed behind (above)"
  say "cluster is down; only the cache $CACHE stays"
}

check_none() { # WHAT FOUND
  if [[ -z $2 ]]; then
    echo "none left: $1"
  else
    echo "STILL THERE: $1: $2"
    left=1
  fi
}
