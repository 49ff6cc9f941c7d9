# Thin over Meson and Ninja. Each goal first installs what it lacks (Debian,
# as root or through sudo): scripts/setup.sh.
#
#   make build   an optimised program at build/vireo
#   make run     boot Debian's kernel and BusyBox to a shell on this terminal
#   make check   all tests
#   make soak    what takes hours: sanitizers, saved machines, random instructions
#   make bench   measure speed
#   make clean   remove what was built (fetched guests stay; distclean: all)

BUILD := build
SOAK_SECONDS ?= 7200
# Memory and processors of `make run`; RUN_OPTIONS go to vireo as they are.
MEMORY ?= 512M
CPUS ?= 1
RUN_OPTIONS ?=

.PHONY: all build run check soak bench clean distclean setup-% configure

all: build

setup-%:
	@scripts/setup.sh $*

configure:
	@test -e $(BUILD)/build.ninja || meson setup $(BUILD) -Dtests=auto

build: setup-build configure
	@ninja -C $(BUILD) vireo

run: setup-run configure
	@ninja -C $(BUILD) vireo
	@MEMORY=$(MEMORY) CPUS=$(CPUS) scripts/run.sh $(RUN_OPTIONS)

check: setup-check configure
	@scripts/check.sh

soak: setup-check configure
	@meson configure $(BUILD) -Dtests=enabled
	@ninja -C $(BUILD)
	@scripts/soak.sh $(SOAK_SECONDS)

bench: setup-bench configure
	@meson configure $(BUILD) -Dtests=enabled
	@ninja -C $(BUILD)
	@scripts/guest-kernels.sh cloud busybox
	@tests/bench/run

clean:
	@test ! -e $(BUILD)/build.ninja || ninja -C $(BUILD) clean

distclean:
	rm -rf $(BUILD)
