# The client that end-to-end tests run inside the cluster.
FROM debian:bookworm-slim
COPY pgpair-oracle /usr/local/bin/pgpair-oracle
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/pgpair-oracle"]
