# make alone prints the targets. ARGS are passed on: make up ARGS="--images packages", make down ARGS=-y

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
BINDIR  ?= $(shell test -w /usr/local/bin && echo /usr/local/bin || echo "$$HOME/.local/bin")
ARGS    ?=

# One set of flags for all that is compiled, tests and what the linters read too: Go keeps apart what was compiled with others,
# and Kubernetes' and Helm's libraries are worth compiling once. platformctl compiles the images' programs with the same.
export CGO_ENABLED := 0
export GOFLAGS := $(shell go env GOFLAGS 2>/dev/null) -buildvcs=false -trimpath -gcflags=all=-dwarf=false

# A newer Go is the cure of what an older one is known for: where Go is older than the toolchain of go.mod, it fetches that one, also
# where the surroundings forbid it, as images of Go do.
export GOTOOLCHAIN := auto

.NOTPARALLEL:
.DEFAULT_GOAL := help
.PHONY: help go build kubectl curl chromium install up down check vulnerable vulns fuzz test lint format unit integration chaos checker kill page resume e2e bench-loop bench-core bench-guard clean

help: ## print this
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# Go's own words on an old version or a missing program come late and say little.
go:
	@want=$$(awk '$$1 == "go" { print $$2 }' go.mod); \
	if ! command -v go >/dev/null; then \
		echo "Error: there is no Go in PATH; this project is compiled by Go $$want or newer" >&2; \
		echo "Try:   install it from Go's download page and add its bin folder to PATH" >&2; exit 3; \
	fi; \
	have=$$(go env GOVERSION 2>/dev/null | sed 's/^go//; s/ .*//'); \
	test -n "$$have" || have=$$(GOTOOLCHAIN=local go version | sed 's/^go version go//; s/ .*//'); \
	case $$have in [0-9]*) ;; *) exit 0 ;; esac; \
	if [ "$$(printf '%s\n' "$$want" "$$have" | sort -V | head -n 1)" != "$$want" ]; then \
		echo "Error: Go $$have is too old; this project is compiled by Go $$want or newer" >&2; \
		echo "Try:   install it from Go's download page and put its bin folder first in PATH" >&2; \
		echo "       or, with Go 1.21 or newer, let it fetch that version by itself: go env -w GOTOOLCHAIN=auto" >&2; exit 3; \
	fi

build: go ## compile bin/platformctl
	@go build -ldflags "-s -w -X main.version=$(VERSION)" -o bin/platformctl ./cmd/platformctl

# Where there is no kubectl, bin/kubectl is made: Kubernetes' own, of the node's version, from the node's module.
kubectl: go
	@if ! command -v kubectl >/dev/null && ! test -x bin/kubectl; then \
		echo "there is no kubectl in PATH: compiling bin/kubectl" >&2; \
		cd pkg/recipe/kubenode && v=$$(go list -m -f '{{.Version}}' k8s.io/kubernetes) && \
		go build -ldflags "-s -w -X k8s.io/component-base/version.gitVersion=$$v" -o ../../../bin/kubectl k8s.io/kubernetes/cmd/kubectl; \
	fi

install: build kubectl ## copy platformctl, and kubectl where there is none, to BINDIR (/usr/local/bin or ~/.local/bin)
	@mkdir -p "$(DESTDIR)$(BINDIR)"
	@for program in bin/platformctl bin/kubectl; do \
		if test -x $$program; then install -m 755 $$program "$(DESTDIR)$(BINDIR)/" && echo "$(DESTDIR)$(BINDIR)/$${program#bin/}"; fi; \
	done

# kubectl comes last: on a machine that builds its images the build of the node has compiled its parts by then, and nobody waits
# for it before the first order.
up: build ## bring the platform up, and first mend what this machine lacks
	@bin/platformctl up --fix $(ARGS)
	@if ! command -v kubectl >/dev/null && ! test -x bin/kubectl; then \
		if $(MAKE) --no-print-directory kubectl; then echo "bin/kubectl is there: PATH=\$$PWD/bin:\$$PATH"; \
		else echo "bin/kubectl could not be compiled; the platform is up without it" >&2; fi; \
		echo "Next: bin/platformctl order --show 1 --qty 2"; \
	fi

down: build ## delete the cluster; asks where data would be lost (ARGS=-y does not)
	@bin/platformctl down $(ARGS)

check: lint vulnerable unit ## what is quick: format, vet, staticcheck, known vulnerabilities, tests that need no servers

test: lint unit integration bench-guard checker kill page resume e2e ## everything, the fast before the slow

lint: format
	go vet ./...
	go vet -tags e2e ./e2e/...
	go tool staticcheck ./...

# Go's database of vulnerabilities is a module too, so a module proxy is all that this needs. What is checked with each change is held
# against one day's, so that the same commit is always as good; make vulns asks for today's.
vulndb = v0.0.0-20261105234957-e22db6528018
vulnerable: go
	@set -e; db=$$(mktemp -d); trap 'rm -rf "$$db"' EXIT; \
	known=$$(cd "$$db" && go mod download -json golang.org/x/vulndb@$(vulndb) | sed -n 's/.*"Dir": "\(.*\)".*/\1/p'); \
	if [ -z "$$known" ]; then echo "Error: no module proxy has golang.org/x/vulndb, where Go's known vulnerabilities are kept" >&2; exit 3; fi; \
	go run golang.org/x/vulndb/cmd/indexdb@$(vulndb) -vulns "$$known/data/osv" -out "$$db"; \
	go run golang.org/x/vuln/cmd/govulncheck@v1.9.0 -db "file://$$db" ./...

vulns: vulndb = latest
vulns: vulnerable ## vulnerabilities known today in what is compiled; asks a module proxy. Those in Go itself are cured by a newer Go

# The inputs that were once of interest are tests, in testdata/fuzz; this looks for more. Each that is new is made smaller first,
# for a minute unless told otherwise, in which nothing else is tried.
fuzz: go ## look for bytes that break a decoder, half a minute for each (ARGS="-fuzztime 5m")
	@grep -roE '^func Fuzz[A-Za-z]+' --include='*_test.go' pkg | sed 's|/[^/]*:func | |' | while read -r dir name; do \
		go test "./$$dir" -run '^$$' -fuzz "^$$name$$" -fuzzminimizetime 10x $(or $(ARGS),-fuzztime 30s) || exit 1; \
	done

format: go
	@unformatted=$$(gofmt -l cmd e2e pkg); \
	if [ -n "$$unformatted" ]; then echo "not as gofmt writes it:" >&2; echo "$$unformatted" >&2; exit 1; fi

# A package whose tests take a schema or a vhost needs the servers; all others do not.
needs-servers = $(shell go list -f '{{.ImportPath}} {{join .Imports " "}} {{join .TestImports " "}} {{join .XTestImports " "}}' ./... | awk '/(postgres|rabbit)test/ { print $$1 }')

# gotestsum runs go test and shows what it prints as it comes, and once more at the end what failed, which is hours up otherwise.
verbosely = go run gotest.tools/gotestsum@v1.13.0 --format standard-verbose -- -tags e2e -count=1

unit: go ## tests that need no servers
	@set -e; servers="$(needs-servers)"; \
	go list ./... | grep -vx 'platformctl/e2e' | { test -n "$$servers" && grep -vxF "$$(printf '%s\n' $$servers)" || cat; } | xargs go test

# One package at a time: where a connection to PostgreSQL is dear, two of them leave each other's requests without one.
integration: build ## tests on PostgreSQL and RabbitMQ from the product's own images
	@bin/platformctl servers -- go test -count=1 -p 1 $(needs-servers)

kill: build ## services and servers are killed under load, and a disk is full: nothing may be lost, doubled, oversold or stuck
	@bin/platformctl servers -- $(verbosely) -timeout 15m -run "TestKilled|TestReleases" ./e2e/kill

chaos: build ## a minute of faults on a running platform, of a fixed seed and of a fresh one; ARGS="--cluster NAME"
	bin/platformctl chaos --seed 7 --duration 1m $(ARGS)
	bin/platformctl chaos --duration 1m $(ARGS)

checker: build ## one protection of the platform after another is taken away: verify must find it
	@bin/platformctl servers -- $(verbosely) -timeout 15m -run TestTheCheckerIsChecked ./e2e/checker

# The seed is one that once found a fault; RESUME_SEED= draws a new one.
resume: export RESUME_SEED ?= 3
resume: build kubectl curl ## platformctl and the node are killed anywhere: up again converges, with the data
	$(verbosely) -timeout 60m -run TestKilledAnywhereItIsResumed ./e2e/resume

# The scenarios type the lines that users rely on as they stand, curl among them.
curl:
	@command -v curl >/dev/null || { echo "\$$ apt-get install -y curl" >&2; apt-get update -qq && apt-get install -y -qq --no-install-recommends curl; }

# Where there is no browser, Debian's is installed; elsewhere the test says what is missing.
chromium:
	@for p in chromium chromium-browser google-chrome google-chrome-stable; do command -v $$p >/dev/null && exit 0; done; \
	command -v apt-get >/dev/null || exit 0; \
	echo "\$$ apt-get install -y chromium" >&2; apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium

page: build chromium ## the page of order-api in Chromium: orders move, an outage shows; screenshots in e2e/page/shots
	@bin/platformctl servers -- $(verbosely) -timeout 15m ./e2e/page

e2e: build kubectl curl ## scenarios on a real cluster of their own
	$(verbosely) -timeout 60m ./e2e

bench-loop: build ## how long up, start, deploy, restore and down take, beside kind's own cluster; ARGS="-cold all" builds from nothing first
	@go run ./e2e/benchloop -write docs/loop.md $(ARGS)

bench-core: build ## how fast the ordering core is, beside pgbench; ARGS="-cluster platform" measures a running platform too
	@bin/platformctl servers -- go run ./e2e/benchcore -write docs/performance.md $(ARGS)

bench-guard: build ## the short form: fails where an order costs several times the CPU that it should
	@bin/platformctl servers -- go run ./e2e/benchcore -short

clean: ## delete bin/; images and clusters are platformctl's: down, and images ls
	rm -rf bin
