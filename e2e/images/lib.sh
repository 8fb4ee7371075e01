# shellcheck shell=bash disable=SC2034
# Making images without an engine: root file systems from Debian's packages,
# buildah for the rest, results as files in the cache, keyed by their inputs.

IMAGES_DIR=$REPO/e2e/images
STORE=$CACHE/images
export BUILDAH_ISOLATION=chroot STORAGE_DRIVER=overlay

bh() { buildah --root "$CACHE/containers" --runroot "$CACHE/containers-run" "$@"; }

# One build at a time: they share buildah's storage.
lock_store() {
  mkdir -p "$STORE"
  exec 9>"$STORE/.lock"
  flock -w 900 9 || die "another image build holds $STORE/.lock for over 15 min"
}

# image_file NAME INPUT...: where the image lies; INPUTs are files, or words that matter.
image_file() {
  local name=$1 input
  shift
  for input in "$@"; do
    if [[ -f $input ]]; then sha256sum <"$input"; else echo "$input"; fi
  done | sha256sum | { read -r sum _ && echo "$STORE/${name//[\/:]/_}-${sum:0:12}.tar"; }
}

# A base image lies in buildah's storage; an empty file tells from which inputs it was made.
base_mark() { # NAME INPUT...
  local file
  file=$(image_file "base-$1" "${@:2}")
  echo "${file%.tar}.made"
}

have_image() { bh inspect --type image "$1" >/dev/null 2>&1; }

# rootfs SUITE PACKAGES TAR [OPTION...]: the file system of a minimal Debian with these packages.
rootfs() {
  local suite=$1 packages=$2 tar=$3
  shift 3
  mmdebstrap --quiet --format=tar --variant=minbase --mode=root --include="$packages" \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    "$@" "$suite" "$tar.part" >&2 || die "mmdebstrap of $suite failed"
  mv "$tar.part" "$tar"
}

# image_from_rootfs TAR NAME CONFIG...: an image of one layer, in buildah's storage.
image_from_rootfs() {
  local tar=$1 name=$2 container
  shift 2
  container=$(bh from scratch)
  bh add --quiet "$container" "$tar" / >/dev/null
  bh config "$@" "$container"
  bh commit --quiet --rm "$container" "$name" >/dev/null
}

# build_from DOCKERFILE CONTEXT NAME [OPTION...]
build_from() {
  local file=$1 context=$2 name=$3
  shift 3
  bh build --quiet --pull-never --layers --network host "$@" -f "$file" -t "$name" "$context" >/dev/null ||
    die "build of $name failed"
}

# export_image NAME TAR: an archive that containerd imports under that very name.
export_image() {
  rm -f "$2.part"
  bh push --quiet "$1" "docker-archive:$2.part:$1"
  mv "$2.part" "$2"
  # Only the newest stays: the name before the hash is the same.
  find "$STORE" -maxdepth 1 -name "$(basename "${2%-*}")-????????????.tar" ! -path "$2" -delete
}
