# Targets of the local cluster and of the images. CACHE and CARGO_TARGET_DIR come
# from the top-level Makefile.

CLUSTER := e2e/cluster/cluster
IMAGES := e2e/images/images

.PHONY: cluster cluster-down cluster-status image image-full image-e2e images-base

## Kubernetes of three nodes on this machine (as root); quick if it is up already
cluster:
	$(CLUSTER) up

## stop it and leave nothing behind but the cache
cluster-down:
	$(CLUSTER) down

cluster-status:
	$(CLUSTER) status

## the operator's image localhost/pgpair:dev from a binary built here; loaded into the cluster if it is up
image: sbom
	$(IMAGES) pgpair "$(CARGO_TARGET_DIR)/image/pgpair"

## the Dockerfile as any engine builds it, binary built inside: localhost/pgpair:full
image-full:
	$(IMAGES) pgpair-full

## the test client's image localhost/pgpair-e2e:dev
image-e2e:
	cargo build --release -p pgpair-e2e --bin pgpair-oracle
	$(IMAGES) e2e "$(CARGO_TARGET_DIR)/release/pgpair-oracle"

## the images that the cluster itself needs, and stock PostgreSQL
images-base:
	$(IMAGES) base
