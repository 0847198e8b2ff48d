# vcpeer: the words that people, README and CI use. `make help` lists them.
SHELL    := /bin/bash
CACHE    := $(CURDIR)/.cache
VERSION  := $(shell git describe --tags --always --dirty 2>/dev/null || echo unversioned)
LDFLAGS  := -s -w -X main.version=$(VERSION)
STATICCHECK := $(CACHE)/bin/staticcheck
STATICCHECK_VERSION := v0.8.2

.DEFAULT_GOAL := help

.PHONY: help
help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## build bin/vcpeer
	go build -trimpath -ldflags '$(LDFLAGS)' -o bin/vcpeer ./cli/vcpeer

.PHONY: demo
demo: build ## three sites on this machine, a real screening job over them, a ranked table
	deploy/demo/run.sh

.PHONY: demo-lab
demo-lab: build ## the whole story in a lab (root): four sites, one network, a screening job, MPI, a site that is cut off
	deploy/demo/lab.sh

.PHONY: demo-down
demo-down: ## end a demo that was left running
	deploy/demo/down.sh

.PHONY: lab
lab: build ## a whole multi-site network on this machine (root): LAB=a topology file, default three sites
	bin/vcpeer lab up $(or $(LAB),deploy/lab/topologies/three-sites.yaml)

.PHONY: test
test: ## install what the tests need, run all of them with the race detector
	deploy/test/packages.sh
	deploy/test/run.sh

.PHONY: test-kernel
test-kernel: ## the network's tests on Debian's kernel, in a virtual machine (some 20 minutes; deploy/test/kernel.sh tells more)
	deploy/test/kernel.sh

.PHONY: bench
bench: build ## measure what users wait for; BENCH_ONLY=overlay (root): the network against static GRE, tinc, babeld
	deploy/bench/run.sh

.PHONY: fuzz
fuzz: ## run every fuzz target for FUZZTIME each (default 30s)
	deploy/test/fuzz.sh

.PHONY: check
check: $(STATICCHECK) ## formatting, vet, staticcheck
	@out=$$(gofmt -l $$(git ls-files '*.go')); if [ -n "$$out" ]; then echo "not gofmt-ed:"; echo "$$out"; exit 1; fi
	go vet ./...
	$(STATICCHECK) ./...

$(STATICCHECK):
	GOBIN=$(CACHE)/bin go install honnef.co/go/tools/cmd/staticcheck@$(STATICCHECK_VERSION)

.PHONY: install
install: build ## install the binary, the Grid Engine names and the systemd unit (root)
	install -D -m 0755 bin/vcpeer $(DESTDIR)/usr/bin/vcpeer
	install -d $(DESTDIR)/usr/lib/vcpeer/bin
	for name in qsub qstat qdel; do ln -sf /usr/bin/vcpeer $(DESTDIR)/usr/lib/vcpeer/bin/$$name; done
	install -D -m 0644 deploy/systemd/vcpeer.service $(DESTDIR)/usr/lib/systemd/system/vcpeer.service

.PHONY: clean
clean: ## remove what was built
	rm -rf bin $(CACHE)
