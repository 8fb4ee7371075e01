# shellcheck shell=bash
# Images of nodes. To import the same gigabyte into each node would take most of
# a start. So the base images are imported once, into a containerd folder in the
# cache, and every node begins with hard links to it: containerd never writes to
# a blob, and overlay mounts never to a lower layer. Its databases are copied.

golden_root() { # TAR...
  echo "$CACHE/node-images/$(printf '%s\n' "$@" | sha256sum | cut -c1-12)"
}

make_golden_root() { # TAR...
  local root work tar
  root=$(golden_root "$@")
  [[ ! -d $root ]] || return 0
  say "unpack ${#@} images once for all nodes (about 20 s) ..."
  # Only the newest stays.
  rm -rf "$CACHE/node-images"
  mkdir -p "$root.part"
  work=$RUN/unpack
  mkdir -p "$work"
  printf 'version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n' >"$work/containerd.toml"
  start_in "$CP" unpack containerd --config "$work/containerd.toml" --root "$root.part" \
    --state "$work/state" --address "$work/containerd.sock"
  wait_for 20 "containerd for unpacking" ctr -a "$work/containerd.sock" version
  for tar in "$@"; do
    ctr -a "$work/containerd.sock" -n k8s.io images import "$tar" >/dev/null || die "import of $tar failed"
  done
  # Politely: its databases must be whole.
  kill -TERM "$(recorded_pid unpack)"
  wait_for 20 "end of the containerd for unpacking" is_gone unpack
  rm -rf "$work" "$RUN/pid/unpack"
  mv "$root.part" "$root"
}

golden_into_node() { # N TAR...
  local n=$1 target=$DISKS/n$1/containerd root tar db
  shift
  root=$(golden_root "$@")
  mkdir -p "$target" "$DISKS/n$n/loaded"
  if cp -al "$root/." "$target/" 2>/dev/null; then
    while read -r db; do
      cp -a "$db" "$db.copy"
      mv "$db.copy" "$db"
    done < <(find "$target" -mindepth 2 -maxdepth 2 -name '*.db')
  else
    # The cache lies on another file system.
    rm -rf "$target"
    cp -a "$root" "$target"
  fi
  for tar in "$@"; do touch "$(loaded_mark "$n" "$tar")"; done
}

# load_images TAR...: into all nodes that have power, side by side; a tar that a
# node has already (same content) is passed over.
load_images() {
  local n jobs=() pid
  (($# > 0)) || die "load: name at least one image file"
  for n in "${NODES[@]}"; do
    [[ -S $RUN/n$n/containerd/containerd.sock ]] || continue
    load_into "$n" "$@" &
    jobs+=($!)
  done
  ((${#jobs[@]} > 0)) || die "load: no node is up"
  for pid in "${jobs[@]}"; do
    wait "$pid" || die "import of images failed"
  done
}

load_into() { # N TAR...
  local n=$1 tar mark
  shift
  mkdir -p "$DISKS/n$n/loaded"
  for tar in "$@"; do
    mark=$(loaded_mark "$n" "$tar")
    [[ -e $mark ]] && continue
    node_ctr "$n" images import "$tar" >/dev/null || die "import of $tar into n$n failed"
    touch "$mark"
  done
}

# Path, size and time stand for the content.
loaded_mark() { # N TAR
  local file
  file=$(readlink -f "$2")
  [[ -f $file ]] || die "no image file $2"
  echo "$DISKS/n$1/loaded/$(stat -c '%n %s %Y' "$file" | sha256sum | cut -c1-16)"
}

# tag_image SOURCE TARGET: another name for an image, in all nodes that have power. untag_image TARGET: that name away.
tag_image() {
  (($# == 2)) || die "tag: name an image and its other name"
  in_each_node images tag --force "$1" "$2"
}

untag_image() {
  (($# == 1)) || die "untag: name one image"
  in_each_node images rm "$1"
}

in_each_node() { # ARGUMENT... of ctr
  local n
  for n in "${NODES[@]}"; do
    [[ -S $RUN/n$n/containerd/containerd.sock ]] || continue
    node_ctr "$n" "$@" >/dev/null || die "ctr $* in n$n failed"
  done
}
