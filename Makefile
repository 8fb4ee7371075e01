# The commands of this repository; `.ci/run` runs the same. As root, because the local cluster makes network
# namespaces, mounts and cgroups. With PGPAIR_CONTEXT=NAME that context of your kubeconfig is used instead of the
# local cluster; PGPAIR_IMAGE and PGPAIR_E2E_IMAGE then name the images where that cluster can pull them.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.NOTPARALLEL:
.DEFAULT_GOAL := help

CACHE := $(or $(PGPAIR_CACHE),$(HOME)/.cache/pgreplicapair)
RUN := $(or $(PGPAIR_RUN),/run/pgreplicapair)
export CARGO_TARGET_DIR ?= $(CACHE)/target
export INSTA_UPDATE ?= no
export PATH := $(PATH):$(CACHE)/bin

PGPAIR_IMAGE ?= localhost/pgpair:dev
# The local cluster can pull nothing: its PostgreSQL is made from Debian's packages.
POSTGRES_IMAGES ?= $(if $(PGPAIR_CONTEXT),postgres:{version},localhost/postgresql:{version})
CHART := charts/pgreplicapair-operator
SYSTEM := pgpair-system
ACCESS := $(if $(PGPAIR_CONTEXT),--context=$(PGPAIR_CONTEXT),--kubeconfig=$(RUN)/kubeconfig)
HELM_ACCESS := $(if $(PGPAIR_CONTEXT),--kube-context=$(PGPAIR_CONTEXT),--kubeconfig=$(RUN)/kubeconfig)
HELM := $(firstword $(wildcard $(CACHE)/bin/helm) helm)
KUBECTL := $(firstword $(wildcard $(CACHE)/bin/kubectl) kubectl)
SCRIPTS := .ci/run .ci/advisories fuzz/run e2e/setup e2e/cluster/cluster e2e/images/images e2e/images/apt-sources $(wildcard e2e/cluster/*.sh e2e/images/*.sh)

-include e2e/cluster/cluster.mk

.PHONY: help demo test setup lint unit unit-on model-ci model model-page model-deep e2e e2e-long e2e-full fault-page soak calm dirty-buffers faults-runner bench bench-scale scale-page fuzz fuzz-specs sbom install uninstall ready-cluster generate plugin

## this list
help:
	@awk '/^## /{d=substr($$0,4);next} /^[a-z0-9-]+:/{if(d){split($$0,t,":");printf "  make %-14s %s\n",t[1],d}} {d=""}' $(MAKEFILE_LIST)

## a pair comes up, its primary is killed, its standby takes over; with times
demo: setup ready-cluster install
	cargo build --release -p pgpair-e2e --bin pgpair-demo
	"$(CARGO_TARGET_DIR)/release/pgpair-demo"

## everything that must hold before a change is done
test: setup lint unit
	cargo build --release --locked -p pgpair-model --features mutations
	@# The model checker is content with what the cluster leaves of the processors.
	@log=$$(mktemp); nice -n 19 $(MAKE) --no-print-directory model-ci >"$$log" 2>&1 & model=$$!; \
	  $(MAKE) e2e; e2e=$$?; wait "$$model"; model=$$?; cat "$$log"; rm -f "$$log"; exit $$((e2e || model))

## what the other targets need on this machine
setup:
	e2e/setup

## format, clippy, dependencies, shell scripts
lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --features pgpair-e2e/cluster --locked -- -D warnings
	cargo deny --workspace --locked check bans licenses sources
	.ci/advisories
	shellcheck -x $(SCRIPTS)

# Each version that is there; the first is that of the machine, the last the newest.
POSTGRES_BINS = $(patsubst %/postgres,%,$(wildcard /usr/lib/postgresql/*/bin/postgres $(or $(PGPAIR_POSTGRES),/opt/pgreplicapair)/*/usr/lib/postgresql/*/bin/postgres))
colon := :
empty :=
ALL_BINS = $(subst $(empty) $(empty),$(colon),$(strip $(POSTGRES_BINS)))

## tests without a cluster: the core, and agents against real postgres processes of each version on loopback
unit:
	PGPAIR_PG_BIN="$(lastword $(POSTGRES_BINS))" PGPAIR_TEST_PG_BINS="$(ALL_BINS)" cargo test --workspace --locked
	cargo test --locked -p pgpair-model --features mutations --test mutations

## the tests against real postgres processes with another PostgreSQL: BIN=directory of its programs
unit-on:
	PGPAIR_TEST_PG_BINS="$(BIN)" cargo test --locked -p pgpair-agent -p pgpair-backup --test it
	PGPAIR_PG_BIN="$(BIN)" PGPAIR_TEST_PG_BINS="$(BIN):$(ALL_BINS)" cargo test --locked -p pgpair --test it

## the protocol under the model checker: every order of events within bounds, millions of states
model-ci:
	cargo run --release --locked -p pgpair-model --features mutations -- ci

## the same, the shortest way to a broken claim without each clause, and long random runs
model: model-ci
	cargo run --release --locked -p pgpair-model --features mutations -- mutations
	cargo run --release --locked -p pgpair-model --features mutations -- walk seed=$(or $(SEED),1) steps=2000000

## the parsers under libFuzzer, each for SECONDS=600, T="name ..." for some of them; into docs/numbers/fuzz.md. `make unit` tries each for a moment
fuzz:
	fuzz/run $(or $(SECONDS),600) $(T)

## the tables of docs/model.md and docs/authority.md from the code
model-page:
	PGPAIR_WRITE_PAGES=1 cargo test --locked -p pgpair-core --lib page
	cargo run --release --locked -p pgpair-model --features mutations -- page docs/model.md

## the same runs, two events deeper
model-deep:
	cargo run --release --locked -p pgpair-model -- deep

## tests on a real cluster; part of a name in T chooses some of them
e2e: ready-cluster install
	cargo build --locked -p kubectl-pgpair
	cargo test --locked -p pgpair-e2e --features cluster --test it -- $(T)

## tests on a real cluster that take many minutes: the operator upgraded and rolled back with three pairs under load (PGPAIR_E2E_PAIRS=50 for more)
e2e-long: ready-cluster install
	cargo test --locked -p pgpair-e2e --features cluster --test it -- --long $(T)

## every kind of fault in each durability and both directions (hours) into target/e2e and docs/fault-matrix.md; F="--faults=agent-kill --resume" for less
e2e-full: ready-cluster install faults-runner
	"$(CARGO_TARGET_DIR)/release/pgpair-faults" $(F)

## docs/fault-matrix.md anew from the rows in target/e2e/faults.json
fault-page: faults-runner
	"$(CARGO_TARGET_DIR)/release/pgpair-faults" page

## faults at random under load; MINUTES=n, and SEED=n to bring one back
soak: ready-cluster install faults-runner
	"$(CARGO_TARGET_DIR)/release/pgpair-faults" soak --minutes=$(or $(MINUTES),30) --seed=$(or $(SEED),0)

## no fault, every core busy: nobody may take over; MINUTES=n TTL=seconds, or several such as 5,2
calm: ready-cluster install faults-runner
	"$(CARGO_TARGET_DIR)/release/pgpair-faults" calm --minutes=$(or $(MINUTES),20) --ttl=$(or $(TTL),5)

## what a large dirty buffer cache costs on a slow volume (root, minutes, a quiet machine): prints RESULT lines for docs/numbers/dirty-buffers.md
dirty-buffers:
	cargo test --locked -p pgpair --test dirty-buffers -- --test-threads=1 --nocapture

faults-runner:
	cargo build --release --locked -p pgpair-e2e --bin pgpair-faults

## numbers into target/bench: each fault many times, and what a pair costs at rest; B="--n=5 --faults=pod-delete" for less
bench: ready-cluster install
	cargo build --release --locked -p pgpair-e2e --bin pgpair-bench
	"$(CARGO_TARGET_DIR)/release/pgpair-bench" $(B)

scale = cargo build --release --locked -p pgpair-e2e --bin pgpair-scale && "$(CARGO_TARGET_DIR)/release/pgpair-scale" \
	  --operator="$(CARGO_TARGET_DIR)/release/pgpair" --bin="$(CACHE)/bin"

## the operator with many simulated pairs, into target/bench and docs/scale.md; N="100 1000" chooses how many, IDLE=seconds of rest
bench-scale: setup
	cargo build --release --locked -p pgpair
	$(scale) --pairs="$(or $(N),100 1000 10000)" --idle=$(or $(IDLE),600) $(B)

## docs/scale.md and its pictures anew from the rows in docs/numbers/scale.json
scale-page:
	$(scale) --only-page

## 10,000 specs drawn at random against a real API server and the operator (up to MINUTES=120), into docs/numbers/fuzz-specs.json; N=specs SEED=n
fuzz-specs: setup
	cargo build --release --locked -p pgpair
	cargo build --release --locked -p pgpair-e2e --bin pgpair-specs
	"$(CARGO_TARGET_DIR)/release/pgpair-specs" --operator="$(CARGO_TARGET_DIR)/release/pgpair" --bin="$(CACHE)/bin" \
	  --specs=$(or $(N),10000) --seed=$(or $(SEED),1) --minutes=$(or $(MINUTES),120) $(B)

# The cluster first: images are loaded into a cluster that is up.
ready-cluster:
	$(if $(PGPAIR_CONTEXT),@echo "using context $(PGPAIR_CONTEXT)",$(MAKE) cluster image image-e2e)

# Helm installs CRDs once and never changes them, so they are applied. A tag that stays the same restarts nothing, so
# the pods are restarted.
## the operator by Helm, into the cluster in use
install:
	$(KUBECTL) $(ACCESS) apply --server-side --force-conflicts -f crds/
	$(HELM) upgrade --install pgreplicapair-operator $(CHART) $(HELM_ACCESS) -n $(SYSTEM) --create-namespace --skip-crds \
	  --set image.repository=$(shell echo $(PGPAIR_IMAGE) | sed 's/:[^:/]*$$//') --set image.tag=$(lastword $(subst :, ,$(PGPAIR_IMAGE))) \
	  --set-literal 'postgresImageTemplate=$(POSTGRES_IMAGES)' $(HELM_ARGS)
	$(KUBECTL) $(ACCESS) -n $(SYSTEM) rollout restart deployment -l app.kubernetes.io/name=pgreplicapair-operator
	$(KUBECTL) $(ACCESS) -n $(SYSTEM) rollout status deployment -l app.kubernetes.io/name=pgreplicapair-operator --timeout=180s

## the operator away; pairs go on running
uninstall:
	$(HELM) uninstall pgreplicapair-operator $(HELM_ACCESS) -n $(SYSTEM)

## crds/ (and the chart's copy) from the Rust types
generate:
	cargo run --quiet --locked -p pgpair -- crd > crds/pgreplicapair.yaml.new
	mv crds/pgreplicapair.yaml.new crds/pgreplicapair.yaml
	cargo run --quiet --locked -p pgpair -- crd --orders > crds/pgpairorder.yaml.new
	mv crds/pgpairorder.yaml.new crds/pgpairorder.yaml
	cp crds/pgreplicapair.yaml crds/pgpairorder.yaml $(CHART)/crds/

## the program of the image, and what it is made of (CycloneDX): image/pgpair and image/pgpair.cdx.json of the target folder
sbom:
	cargo build --profile=image --locked -p pgpair
	cargo run --quiet --locked -p pgpair-sbom -- "$(CARGO_TARGET_DIR)/image/pgpair" >"$(CARGO_TARGET_DIR)/image/pgpair.cdx.json"

## kubectl-pgpair into /usr/local/bin
plugin:
	cargo build --release --locked -p kubectl-pgpair
	install -m 0755 "$(CARGO_TARGET_DIR)/release/kubectl-pgpair" /usr/local/bin/kubectl-pgpair
