# shellcheck shell=bash disable=SC2016 # mmdebstrap's hooks expand $1 themselves
# One function per image. Those of the cluster print the file they made.

pause_image() {
  local tar work
  tar=$(image_file pause "$IMAGES_DIR"/pause.*)
  if [[ ! -e $tar ]]; then
    work=$(mktemp -d)
    gcc -Os -static -s -Wall -Wextra -o "$work/pause" "$IMAGES_DIR/pause.c"
    build_from "$IMAGES_DIR/pause.Dockerfile" "$work" "$PAUSE_IMAGE"
    export_image "$PAUSE_IMAGE" "$tar"
    rm -rf "$work"
  fi
  echo "$tar"
}

coredns_image_file() {
  local tar name
  name=localhost/coredns:$(tool_version coredns)
  tar=$(image_file coredns "$name" "$CACHE/bin/coredns" "$IMAGES_DIR/coredns.Dockerfile")
  if [[ ! -e $tar ]]; then
    build_from "$IMAGES_DIR/coredns.Dockerfile" "$(dirname "$(readlink -f "$CACHE/bin/coredns")")" "$name"
    export_image "$name" "$tar"
  fi
  echo "$tar"
}

busybox_image() {
  local tar work applet
  tar=$(image_file busybox "$HELPER_IMAGE" /bin/busybox "$IMAGES_DIR/busybox.Dockerfile")
  if [[ ! -e $tar ]]; then
    work=$(mktemp -d)
    mkdir -p "$work/files/bin" "$work/files/tmp"
    cp /bin/busybox "$work/files/bin/"
    for applet in $(/bin/busybox --list); do
      [[ $applet == busybox ]] || ln -s busybox "$work/files/bin/$applet"
    done
    tar -C "$work/files" --owner=0 --group=0 -cf "$work/busybox.tar" .
    build_from "$IMAGES_DIR/busybox.Dockerfile" "$work" "$HELPER_IMAGE"
    export_image "$HELPER_IMAGE" "$tar"
    rm -rf "$work"
  fi
  echo "$tar"
}

# Stock PostgreSQL: Debian's packages and nothing of ours. The user has the ids
# of the images that people run (999), so it must exist before the packages come.
postgresql_image() { # SUITE VERSION
  local suite=$1 version=$2 name=localhost/postgresql:$2 tar
  tar=$(image_file "postgresql-$version" "$suite" "$(declare -f postgresql_image rootfs)" "$IMAGES_DIR/apt-sources")
  if [[ ! -e $tar ]]; then
    say "image $name from Debian $suite (about 1 min the first time) ..."
    # The index of a suite that is not released expires within days, and a mirror that is kept at one day has it longer.
    rootfs "$suite" "postgresql-$version,postgresql-client-$version,ca-certificates" "$STORE/rootfs.tar" \
      --aptopt='Acquire::Check-Valid-Until "false"' --setup-hook="$IMAGES_DIR/apt-sources \"\$1\" $suite $version" \
      --essential-hook='echo "postgres:x:999:" >>"$1/etc/group"' \
      --essential-hook='echo "postgres:x:999:999:PostgreSQL administrator:/var/lib/postgresql:/bin/bash" >>"$1/etc/passwd"' \
      --essential-hook='echo "postgres:*:20000:0:99999:7:::" >>"$1/etc/shadow"' \
      --essential-hook='mkdir -p "$1/etc/postgresql-common"' \
      --essential-hook='echo "create_main_cluster = false" >"$1/etc/postgresql-common/createcluster.conf"'
    image_from_rootfs "$STORE/rootfs.tar" "$name" --user 999 --workingdir / \
      --env "PATH=/usr/lib/postgresql/$version/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" \
      --env LANG=C.UTF-8 --env "PG_MAJOR=$version" --stop-signal SIGINT --cmd postgres
    export_image "$name" "$tar"
    bh rmi "$name" >/dev/null
    rm -f "$STORE/rootfs.tar"
  fi
  echo "$tar"
}

# The images that the Dockerfiles' FROM lines name, made here so that those lines
# hold where no registry can be reached.
debian_base() {
  local name=debian:bookworm-slim mark
  mark=$(base_mark debian "$(declare -f debian_base rootfs)")
  if [[ -e $mark ]] && have_image "$name"; then return; fi
  say "base image $name (about 30 s the first time) ..."
  # As in the stock image: apt's index caches would weigh 70 MB in every layer that installs something.
  rootfs bookworm ca-certificates "$STORE/rootfs.tar" --essential-hook='printf "%s \"\";\n" \
    Dir::Cache::pkgcache Dir::Cache::srcpkgcache >"$1/etc/apt/apt.conf.d/docker-clean"' \
    --customize-hook='rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/*'
  image_from_rootfs "$STORE/rootfs.tar" "$name" --cmd bash \
    --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
  rm -f "$STORE/rootfs.tar"
  touch "$mark"
}

rust_base() {
  local channel name mark toolchain
  channel=$(sed -n 's/^channel *= *"\(.*\)"/\1/p' "$REPO/rust-toolchain.toml")
  name=rust:${channel%.*}-bookworm
  toolchain=$(cd "$REPO" && rustc --print sysroot) ||
    die "no Rust toolchain: install rustup (rustup.rs), it reads rust-toolchain.toml"
  mark=$(base_mark rust "$name" "$(declare -f rust_base rootfs)")
  if [[ -e $mark ]] && have_image "$name"; then return; fi
  say "base image $name from Debian and this machine's toolchain (about 2 min the first time) ..."
  rootfs bookworm ca-certificates,gcc,libc6-dev,make,pkg-config "$STORE/rootfs.tar" \
    --customize-hook='mkdir -p "$1/usr/local/rust"' \
    --customize-hook="cp -a '$toolchain'/bin '$toolchain'/lib \"\$1/usr/local/rust/\""
  image_from_rootfs "$STORE/rootfs.tar" "$name" --cmd bash \
    --env PATH=/usr/local/rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
  rm -f "$STORE/rootfs.tar"
  touch "$mark"
}
