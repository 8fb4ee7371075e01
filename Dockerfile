# The one image of the operator and its agent: one binary, so versions cannot differ.
#   docker build .                               builds the binary inside
#   docker build --target runtime-prebuilt .     takes target/image/pgpair, built outside

FROM debian:bookworm-slim AS runtime-base
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates \
 && rm -rf /var/lib/apt/lists/* \
 && groupadd --gid 65532 pgpair \
 && useradd --uid 65532 --gid 65532 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin pgpair
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/pgpair"]

FROM runtime-base AS runtime-prebuilt
COPY target/image/pgpair /usr/local/bin/pgpair

# bookworm on purpose: the agent is copied into PostgreSQL images, and must not
# need a newer libc than the oldest of them has.
FROM rust:1.95-bookworm AS build
WORKDIR /src
# Without rust-toolchain.toml: the image has the toolchain, and needs no more components of it.
COPY Cargo.toml Cargo.lock ./
COPY operator operator
COPY e2e e2e
RUN cargo build --profile=image --locked -p pgpair && install -D target/image/pgpair /out/pgpair

FROM runtime-base AS runtime
COPY --from=build /out/pgpair /usr/local/bin/pgpair
