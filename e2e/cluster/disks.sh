# shellcheck shell=bash
# Volumes with file systems of their own, so that one of them can be full, or hang, and the rest of the machine goes on.
# Files on the disks of two nodes, loop-mounted, offered as local PersistentVolumes: classes pgpair-data, pgpair-archive.

DISK_NODES=(1 2)
# A disk is called KIND, or KIND-SET when several pairs have some of their own.
# Sparse: only what is written takes room.
disk_size() { if [[ $1 == data* ]]; then echo 3G; else echo 12G; fi; }

disk_dir() { echo "$DISKS/n$1/disks/$2"; } # N NAME
disk_image() { echo "$(disk_dir "$1" "$2").img"; }
is_mounted() { grep -qsF " $1 " /proc/self/mounts; }

each_new_disk() { # SET COMMAND...: with number and name
  local set=$1 n kind
  shift
  for n in "${DISK_NODES[@]}"; do
    for kind in data archive; do "$@" "$n" "$kind${set:+-$set}"; done
  done
}

each_disk() { # SET COMMAND...: with number and name of those that are there, of one set or all
  local n image set=$1
  shift
  for n in "${DISK_NODES[@]}"; do
    for image in "$DISKS/n$n/disks/"*"${set:+-$set}.img"; do
      if [[ -e $image ]]; then "$@" "$n" "$(basename "$image" .img)"; fi
    done
  done
}

disks() { # up [SET]|down
  [[ ${2:-} =~ ^([a-z][a-z0-9]*)?$ ]] || die "disks: a set is named with small letters and digits"
  case ${1:-} in
    up)
      each_new_disk "${2:-}" disk_make
      { disk_class "data${2:+-$2}" && disk_class "archive${2:+-$2}" && each_new_disk "${2:-}" disk_volume; } |
        kctl apply -f - >/dev/null
      ;;
    down)
      local which="pgpair.dev/disk=e2e${2:+,pgpair.dev/set=$2}"
      each_disk "${2:-}" disk_heal
      kctl delete --ignore-not-found --wait=false storageclass -l "$which" >/dev/null
      kctl delete --ignore-not-found --timeout=60s pv -l "$which" >/dev/null
      each_disk "${2:-}" disk_unmount
      ;;
    *) die "usage: disks up|down [SET]" ;;
  esac
}

# Empty each time: a volume of an earlier pair is nobody's.
disk_make() { # N NAME
  local dir image init device
  dir=$(disk_dir "$1" "$2") image=$(disk_image "$1" "$2")
  init=$(recorded_pid "init-n$1") || die "node n$1 has no power"
  is_mounted "$dir" && die "$dir is mounted already: run 'cluster disks down' first"
  mkdir -p "$dir"
  rm -f "$image"
  truncate -s "$(disk_size "$2")" "$image"
  mkfs.ext4 -q -m 0 "$image"
  # On the machine, for nodes that start later; and in the node, which sees no mounts made after its start.
  mount -o loop "$image" "$dir"
  device=$(findmnt -no SOURCE "$dir")
  nsenter --target "$init" --mount --pid mount "$device" "$dir"
}

disk_labels() { # NAME
  local set=${1#"${1%%-*}"}
  echo "{pgpair.dev/disk: e2e, pgpair.dev/set: \"${set#-}\"}"
}

disk_class() { # NAME
  cat <<YAML
---
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: pgpair-$1, labels: $(disk_labels "$1")}
provisioner: kubernetes.io/no-provisioner
volumeBindingMode: WaitForFirstConsumer
YAML
}

disk_volume() { # N NAME
  cat <<YAML
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: pgpair-$2-n$1, labels: $(disk_labels "$2")}
spec:
  capacity: {storage: $(disk_size "$2")i}
  accessModes: [ReadWriteOnce]
  persistentVolumeReclaimPolicy: Retain
  storageClassName: pgpair-$2
  local: {path: $(disk_dir "$1" "$2")}
  nodeAffinity:
    required: {nodeSelectorTerms: [{matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: [n$1]}]}]}
YAML
}

disks_unmount() { each_disk "" disk_unmount; }

disk_unmount() { # N NAME
  local dir init
  dir=$(disk_dir "$1" "$2")
  if init=$(recorded_pid "init-n$1"); then
    # With the node's processes too: umount looks at its own /proc.
    nsenter --target "$init" --mount --pid umount -l "$dir" 2>/dev/null || true
  fi
  if is_mounted "$dir"; then umount -l "$dir"; fi
  rm -f "$(disk_image "$1" "$2")"
}

disk() { # fill|empty|freeze|thaw N NAME
  (($# == 3)) || die "usage: disk fill|empty|freeze|thaw N data|archive[-SET]"
  local n dir
  n=$(node_number "$2")
  dir=$(disk_dir "$n" "$3")
  is_mounted "$dir" || die "n$n has no disk '$3': run 'cluster disks up' first"
  case $1 in
    fill) disk_fill "$dir/filler" ;;
    empty) rm -f "$dir/filler" "$dir/filler.rest" ;;
    freeze) fsfreeze --freeze "$dir" ;;
    thaw) fsfreeze --unfreeze "$dir" ;;
    *) die "disk: '$1' is none of fill, empty, freeze, thaw" ;;
  esac
}

# Blocks are taken without being written; the last few, which fallocate cannot get in one piece, are.
disk_fill() { # FILE
  local room
  room=$(df --output=avail -B1 "$(dirname "$1")" | tail -n 1)
  fallocate -l "$room" "$1" 2>/dev/null || fallocate -l $((room - (4 << 20))) "$1"
  dd if=/dev/zero of="$1.rest" bs=64k >/dev/null 2>&1 || true
}

disks_heal() { each_disk "" disk_heal; }

disk_heal() { # N NAME
  local dir
  dir=$(disk_dir "$1" "$2")
  is_mounted "$dir" || return 0
  # Unfreezing what is not frozen is an error, and what was wanted.
  fsfreeze --unfreeze "$dir" 2>/dev/null || true
  rm -f "$dir/filler" "$dir/filler.rest"
}
