# The targets that the README names. `make help` lists them.
.DEFAULT_GOAL := help
.PHONY: help demo test simulate upstream bench connect fanout propagation review cluster build crds check fuzz clean-namespaces

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-18s %s\n", $$1, $$2}'

build: ## build the controller, the command line and the static node applier
	cargo build --release -p rulecast-controller -p kubectl-rulecast
	RUSTFLAGS='-C target-feature=+crt-static' cargo build --profile applier --target x86_64-unknown-linux-gnu -p rulecast-node

demo: ## manifests to kernel to real connections, on this machine, in ten seconds
	cargo build --release -p rulecast-controller -p rulecast-node -p kubectl-rulecast
	"$${CARGO_TARGET_DIR:-target}/release/kubectl-rulecast" demo

test: ## all tests; needs root, and fetches what it lacks
	tests/prepare.sh
	$(MAKE) check
	tests/all.sh

simulate: ## random histories of the publication path with faults, on a virtual clock; HISTORIES=100000
	cargo run --release -p rulecast-simulation -- run --histories $${HISTORIES:-100000} --first-seed $${FIRST_SEED:-0}

check: ## formatting, lints, licences of dependencies
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --all-features -- -D warnings

upstream: ## Kubernetes' own end-to-end tests with rulecast in kube-proxy's place; needs root, builds Kubernetes (ten minutes, once)
	tests/upstream/run.sh $(if $(FOCUS),'$(FOCUS)')

bench: ## compile, wire and apply at 1k, 10k and 40k Services; needs root
	cargo build --release -p rulecast-bench
	RUSTFLAGS='-C target-feature=+crt-static' cargo build --profile applier --target x86_64-unknown-linux-gnu -p rulecast-node
	"$${CARGO_TARGET_DIR:-target}/release/rulecast-bench" all --node-binary "$${CARGO_TARGET_DIR:-target}/x86_64-unknown-linux-gnu/applier/rulecast-node" $(ARGS)

connect: ## time and rules that the first packet of a connection takes, beside kube-proxy's; needs root
	tests/prepare.sh
	cargo build --release -p rulecast-bench
	"$${CARGO_TARGET_DIR:-target}/release/rulecast-bench" connect $(ARGS)

fanout: ## what many nodes cost a real API server while endpoints change, beside kube-proxies; needs root
	tests/prepare.sh
	cargo build --release -p rulecast-bench
	"$${CARGO_TARGET_DIR:-target}/release/rulecast-bench" fanout $(ARGS)

propagation: ## time from the write of an EndpointSlice to the kernel, beside kube-proxy's; needs root
	tests/prepare.sh
	cargo build --release -p rulecast-bench -p rulecast-controller -p rulecast-node
	"$${CARGO_TARGET_DIR:-target}/release/rulecast-bench" propagation $(ARGS)

review: ## time of a diff, and from an undo to the kernel, on a real API server; needs root
	tests/prepare.sh
	cargo build --release -p rulecast-bench -p rulecast-controller -p rulecast-node -p kubectl-rulecast
	"$${CARGO_TARGET_DIR:-target}/release/rulecast-bench" review $(ARGS)

cluster: ## the same against a real kube-apiserver, with a controller and two nodes; needs root
	tests/prepare.sh
	tests/cluster/cluster.sh $(if $(CHECK),--check)

crds: ## generate crds/yaml from the types
	cargo run -p rulecast-api --features crdgen --bin crdgen -- crds/yaml

fuzz: ## fuzz the decoders of the bundle format for a minute; needs cargo-fuzz and a nightly toolchain
	cd crds/bundle && cargo +nightly fuzz run decode -- -max_total_time=$${SECONDS_EACH:-60}

clean-namespaces: ## remove network namespaces that a killed test left behind
	ip netns list | awk '/^(rc-test|rcd|rc-git|rc-move)-/ {print $$1}' | xargs -r -n1 ip netns delete
