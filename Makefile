# Everything here needs Go. The tests also need a C compiler, for the race detector, and what scripts/kafka-local needs
# for real Kafka brokers: a Java development kit of version 17 or later, Maven and openssl.
SHELL       := bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS   += --no-print-directory
.DEFAULT_GOAL := help

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
FUZZTIME ?= 10s
FUZZ ?= ./...
SOAK ?= 240
TOOL := go tool -modfile=tools/go.mod
LINT := $(TOOL) golangci-lint

.PHONY: help demo test test-race run kafka-up kafka-down fuzz bench chaos soak lint format build reproducible sbom vuln coverage docs

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' Makefile

demo: ## See it work: a broker, a bridge and one webhook of every kind, all in one process
	go run ./cmd/bridge demo

# One package at a time: two that run Kafka brokers at once are too much for a small machine.
test: ## Run the test suite on real brokers, with the race detector and coverage
	@scripts/kafka-local tool topics --version
	@rm -f kafka.out
	go test -race -timeout 60m -p 1 -coverprofile=coverage.out ./...
	@sort kafka.out

test-race: ## Run the suite three times in random order, to hunt for races
	go test -race -timeout 90m -p 1 -count=3 -shuffle=on ./...

run: build ## Run the bridge on this machine, with a secret of its own in ./data
	@mkdir -p data
	@[ -s data/dev-secret ] || (umask 077; echo "whsec_$$(head -c 32 /dev/urandom | base64)" > data/dev-secret)
	@echo "Webhooks   http://127.0.0.1:8080/webhooks/gemini, signed with the secret in data/dev-secret"
	@echo "Events     nats://127.0.0.1:4222, and: bin/bridge tail"
	@echo "Readiness  http://127.0.0.1:9090/readyz"
	@echo "Try it     bin/bridge send --secret-file data/dev-secret"
	@echo
	@exec env BRIDGE_ADDR=127.0.0.1:8080 BRIDGE_SIGNING_SECRETS_FILE=data/dev-secret bin/bridge serve

kafka-up: ## Start Apache Kafka on 127.0.0.1:9092, without Docker; for more see scripts/kafka-local help
	@scripts/kafka-local start

kafka-down: ## Stop it and delete its data
	@scripts/kafka-local clean

fuzz: ## Fuzz every target of FUZZ (./...), each for FUZZTIME (10s)
	@scripts/fuzz $(FUZZTIME) $(FUZZ)

bench: ## Measure the bridge against bare net/http, JetStream, its disk and other Kafka clients, as ratios (needs strace, taskset and Kafka)
	go run ./internal/bench

chaos: ## Break a loaded bridge and its brokers 300 times, and compare them with a ledger (needs root, strace and Kafka)
	go run ./internal/chaos -faults 320 $(CHAOS)

soak: ## The same for SOAK minutes (240), with a new seed each time
	go run ./internal/chaos -faults 320 -minutes $(SOAK)

lint: ## Check style, mistakes and the direction of imports
	$(LINT) run ./...

format: ## Format the code as lint wants it
	$(LINT) fmt

# The same source, VERSION and release of Go give the same bytes, in a clone and in the image.
build: ## Build the static binary bin/bridge
	CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '-s -w -X main.version=$(VERSION)' -o bin/bridge ./cmd/bridge

reproducible: build ## Build it again, elsewhere and from nothing, and see that the bytes are the same
	@scripts/reproducible $(VERSION)

sbom: build ## Write bin/bridge.cdx.json, the list of what is in bin/bridge (CycloneDX)
	@$(TOOL) cyclonedx-gomod bin -json -std -noserial -notimestamp -version $(VERSION) -output bin/bridge.cdx.json bin/bridge
	@echo bin/bridge.cdx.json

vuln: ## Look for known vulnerabilities in what the bridge calls (needs https://vuln.go.dev)
	$(TOOL) govulncheck ./...

coverage: ## Show what the last make test covered, function by function
	@[ -f coverage.out ] || $(MAKE) test
	@go tool cover -func=coverage.out

docs: ## Write what is generated into docs/ and README.md
	go test ./cmd/bridge -run '^(TestConfigurationDoc|TestReadmeTable)$$' -count=1 -update
	go test ./docs -run '^(TestAsyncAPI|TestLicences)$$' -count=1 -update
