# The one image of the operator and its agent: one binary, so versions cannot differ.
#   docker build .                               builds the binary inside
#   docker build --target runtime-prebuilt .     takes target/image/pgpair and its bill of materials, built outside

# What the binary needs of a system, and nothing else: the loader, the C library, what GCC adds to it, and the certificates of public
# authorities. No shell, no package manager: whoever gets into the container finds nothing to start but `pgpair`.
# bookworm on purpose: the agent is copied into PostgreSQL images, and must not need a newer libc than the oldest of them has.
FROM debian:bookworm-slim AS system
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates libgcc-s1 \
 && mkdir -p /image/usr/share/sbom /image/etc/ssl/certs \
 && cat /usr/share/ca-certificates/mozilla/*.crt >/image/etc/ssl/certs/ca-certificates.crt \
 && for file in /lib64/ld-linux-x86-64.so.2 /lib/ld-linux-aarch64.so.1 \
      /lib/*-linux-gnu/libc.so.6 /lib/*-linux-gnu/libm.so.6 /lib/*-linux-gnu/libgcc_s.so.1 \
      /usr/share/doc/libc6/copyright /usr/share/doc/libgcc-s1/copyright /usr/share/doc/ca-certificates/copyright; do \
      if [ -e "$file" ]; then cp -L --parents "$file" /image; fi; \
    done \
 && dpkg-query -W -f '{"type":"library","name":"${Package}","version":"${Version}","purl":"pkg:deb/debian/${Package}@${Version}?arch=${Architecture}"},\n' \
      libc6 libgcc-s1 ca-certificates >/tmp/packages \
 && { printf '{"bomFormat":"CycloneDX","specVersion":"1.5","version":1,"components":[\n'; sed '$ s/,$//' /tmp/packages; printf ']}\n'; } \
      >/image/usr/share/sbom/system.cdx.json

FROM scratch AS runtime-base
COPY --from=system /image /
USER 65532:65532
# The init container of a pair's pods starts `pgpair` by its name.
ENV PATH=/usr/local/bin
ENTRYPOINT ["/usr/local/bin/pgpair"]

FROM runtime-base AS runtime-prebuilt
COPY target/image/pgpair /usr/local/bin/pgpair
COPY target/image/pgpair.cdx.json /usr/share/sbom/pgpair.cdx.json

FROM rust:1.95-bookworm AS build
WORKDIR /src
# Without rust-toolchain.toml: the image has the toolchain, and needs no more components of it.
COPY Cargo.toml Cargo.lock ./
COPY operator operator
COPY e2e e2e
RUN cargo build --profile=image --locked -p pgpair && install -D target/image/pgpair /out/pgpair \
 && cargo run --release --locked -p pgpair-sbom -- /out/pgpair >/out/pgpair.cdx.json

FROM runtime-base AS runtime
COPY --from=build /out/pgpair /usr/local/bin/pgpair
COPY --from=build /out/pgpair.cdx.json /usr/share/sbom/pgpair.cdx.json
