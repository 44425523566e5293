# `make run` and `make test` set up what is missing, and build what they need.
#
#   make run      run a program on the kernel in QEMU; a guided tour without PROG
#   make test     run all tests; the last line has the totals
#   make fuzz     look for what no test has found yet, for SECONDS=600
#   make torture  memory operations on many threads at once, for SECONDS=600 on 2 CPUs, on 4, with swap, and on Linux
#   make model    search mm for races, by SCHEDULES=100000 of each kind with a fresh seed
#   make bench    compare the speed with that of Linux
#   make mutants  see that the tests notice when mm is broken
#   make lint     check formatting, clippy's and rustdoc's warnings
#   make doc      build the documentation
#   make setup    find or install the toolchain, QEMU and firmware
#   make kernel, make image, make guests   build parts
#   make clean    remove what was built
#
# Variables of `make run`:
#   PROG=path       a static Linux x86-64 executable, the first process
#   ARGS="a 'b c'"  its arguments, quoted as for a shell
#   ENV="A=1 B=2"   its environment, quoted likewise
#   FIRMWARE=bios   or uefi
#   SMP=1  MEM=1G   CPUs and memory
#   CPU=max         QEMU's CPU model
#   OPTIONS=swap    options of the kernel: norandom, swap, verify, watchdog=60
#   ICOUNT=1        guest time is the number of instructions executed
#   TIMEOUT=600     seconds after which the guest is stopped; 0 is never
# Of all that run the kernel:
#   CHECKED=1       one with debug assertions, which checks the order of locks

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

FIRMWARE ?= bios
SMP ?= 1
MEM ?= 1G
CPU ?= max
TIMEOUT ?= 600
# These come from the command line: environments have unrelated variables of
# such names.
ICOUNT :=
OPTIONS :=
CHECKED :=
SECONDS := 600
SCHEDULES := 100000
PROG :=
ARGS :=
ENV :=

# Cargo is told where to build by an option and not by its variable, which
# `bootloader`'s build script would hand down to the Cargo that it calls.
TARGET := $(or $(CARGO_TARGET_DIR),target)
unexport CARGO_TARGET_DIR
unexport RUSTFLAGS CARGO_BUILD_TARGET RUSTUP_TOOLCHAIN RUSTC_BOOTSTRAP

CONFIG := build/config.mk
IMAGES := build/images$(if $(filter-out 0,$(CHECKED)),-checked)
# Build scripts look at whether unstable features are allowed: in one directory with
# what is built without, each would make the other be built again.
BOOT_TARGET := $(TARGET)/boot
BOOT := $(BOOT_TARGET)/debug/boot
KERNEL_TARGET := $(TARGET)$(if $(filter-out 0,$(CHECKED)),/checked)
KERNEL := $(KERNEL_TARGET)/x86_64-target/release/kernel
GUESTS := $(TARGET)/x86_64-unknown-linux-gnu/release
TOUR := $(GUESTS)/tour

# Make builds this before anything else, by the rule below.
ifeq ($(filter clean help setup,$(or $(MAKECMDGOALS),help)),)
include $(CONFIG)
endif

# The kernel allocates fallibly, and `bootloader` builds a `core` of its own: both
# need unstable features. Nothing else may.
HOST_CRATES := -p mm -p tests
BOOT_CARGO := -p boot --target-dir $(BOOT_TARGET)
UNSTABLE := RUSTC_BOOTSTRAP=1
# Optimised as one whole, the kernel executes a sixth fewer instructions; for the
# guest programs that would be time spent on linking the standard library each time.
KERNEL_CARGO := --release -p kernel --target x86_64-target.json -Zjson-target-spec \
	-Zbuild-std=core,alloc,compiler_builtins -Zbuild-std-features=compiler-builtins-mem \
	--config profile.release.lto=true --config profile.release.codegen-units=1 \
	$(if $(filter-out 0,$(CHECKED)),--config profile.release.debug-assertions=true)
GUEST_CARGO := --release -p tests --target x86_64-unknown-linux-gnu
GUEST_FLAGS := -C target-feature=+crt-static
# The model checkers are to be quick, and still have assertions on.
MODEL_CARGO := --profile model -p mm --features shuttle --test model
# Each schedule has a machine of its own. Giving its memory back to the system takes as long as all else.
MODEL_ENV := MALLOC_MMAP_THRESHOLD_=1073741824 MALLOC_TRIM_THRESHOLD_=1073741824
LOOM_CARGO := --profile model -p mm --features loom --test loom
cargo = cargo $(1) --target-dir $(TARGET) $(2)
guest_cargo = CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS="$(1)" cargo build $(GUEST_CARGO)

RUNNER = $(GUESTS)/runner --boot $(BOOT) --images $(IMAGES) --guests $(GUESTS) --build build --scripts tests/scripts

.PHONY: help setup run test fuzz torture model mutants bench lint doc kernel boot image guests fixed-guests c-guests selftests clean
help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' Makefile

setup:
	@scripts/setup.sh $(CONFIG)

$(CONFIG): scripts/setup.sh rust-toolchain.toml
	@scripts/setup.sh $@

# ---- building -------------------------------------------------------------------

kernel:
	@$(UNSTABLE) cargo build $(KERNEL_CARGO) --target-dir $(KERNEL_TARGET)

# BOOT may name a tool that is built already.
boot:
ifeq ($(origin BOOT),file)
	@$(UNSTABLE) cargo build $(BOOT_CARGO)
endif

# BIOS reads the disk slowly: the kernel goes there without its debug information.
image: kernel boot
	@if [ ! $(IMAGES)/stamp -nt $(KERNEL) ] || [ ! $(IMAGES)/stamp -nt $(BOOT) ]; then \
		mkdir -p $(IMAGES); \
		$(OBJCOPY) --strip-all $(KERNEL) $(IMAGES)/kernel; \
		$(BOOT) image --kernel $(IMAGES)/kernel --out $(IMAGES); \
		touch $(IMAGES)/stamp; \
	fi

# Programs for the guest, and what runs them: static and position independent.
guests:
	@$(call guest_cargo,$(GUEST_FLAGS)) --target-dir $(TARGET)

# Some of them once more, at a fixed address.
fixed-guests:
	@$(call guest_cargo,$(GUEST_FLAGS) -C relocation-model=static) --target-dir $(TARGET)/fixed \
		--bin cases --bin threads
	@mkdir -p build/exec
	@cp -u $(addprefix $(TARGET)/fixed/x86_64-unknown-linux-gnu/release/,cases threads) build/exec

# Programs in C, with both C libraries.
C_GUESTS := $(basename $(notdir $(wildcard tests/c/*.c)))
c-guests: $(foreach libc,glibc musl,$(addprefix build/c/$(libc)/,$(C_GUESTS)))

build/c/glibc/%: tests/c/%.c tests/c/checks.h
	@mkdir -p $(@D)
	@gcc -static -O2 -Wall -Wextra -pthread -o $@ $< -lm

build/c/musl/%: tests/c/%.c tests/c/checks.h
	@mkdir -p $(@D)
	@musl-gcc -static -O2 -Wall -Wextra -pthread -o $@ $< -lm

selftests:
	@DEBIAN=build/debian tests/scripts/fetch-selftests.sh >&2

# ---- using ----------------------------------------------------------------------

# `value` keeps make from expanding the dollar signs of what the user gave.
run: image $(if $(value PROG),,guests)
	@set --; for variable in $(value ENV); do set -- "$$@" --env "$$variable"; done; \
	for option in $(value OPTIONS); do set -- "$$@" --option "$$option"; done; \
	exec $(BOOT) run --images $(IMAGES) --firmware $(FIRMWARE) --smp $(SMP) --mem $(MEM) --cpu $(CPU) \
		--timeout $(TIMEOUT) $(if $(filter-out 0,$(ICOUNT)),--icount) "$$@" \
		-- $(if $(value PROG),$(value PROG),$(TOUR)) $(value ARGS)

test: image guests fixed-guests c-guests selftests
	@scripts/totals.sh \
		"$(call cargo,test,-q -p mm)" \
		"$(MODEL_ENV) $(call cargo,test,-q $(MODEL_CARGO))" \
		"$(call cargo,test,-q $(LOOM_CARGO))" \
		"$(UNSTABLE) cargo test -q $(BOOT_CARGO)" \
		"$(call cargo,test,-q -p tests --lib --bin runner --bin mutants)" \
		"$(RUNNER) test $(value ARGS)"

# Half of the time random arguments for all system calls, half of it random memory
# operations that are compared with Linux.
HALF := $(shell expr \( $(SECONDS) + 1 \) / 2)
fuzz: image guests
	@seed=$$(date +%s); echo "random arguments, seed $$seed"; \
	$(RUNNER) test "fuzz [" --fuzz $(HALF) --seed $$seed
	@$(RUNNER) replay --seconds $(HALF)

# On all of the machine, one after the other.
torture: image guests
	@seed=$$(date +%s); echo "seed $$seed"; \
	$(RUNNER) test torture --jobs 1 --torture $(SECONDS) --seed $$seed

# Races of threads in mm: random schedules and as many by the PCT algorithm, each.
model:
	@seed=$$(date +%s); echo "seed $$seed"; \
	$(MODEL_ENV) MODEL_SEED=$$seed MODEL_SCHEDULES=$(SCHEDULES) $(call cargo,test,$(MODEL_CARGO))

# Breaks mm in one place after the other. Takes some hours; ARGS=race picks those with this word in their names.
mutants:
	@$(MODEL_ENV) $(call cargo,run,-q -p tests --bin mutants) -- $(value ARGS)

bench: image guests
	@$(RUNNER) bench $(value ARGS)
	@$(RUNNER) scaling
	@echo; echo "mm alone, on the host:"; $(call cargo,bench,-q -p mm)

lint: boot
	cargo fmt --all --check
	$(call cargo,clippy,--no-deps $(HOST_CRATES) --all-targets) -- -D warnings
	$(UNSTABLE) cargo clippy --no-deps $(BOOT_CARGO) --all-targets -- -D warnings
	$(call cargo,clippy,--no-deps -p mm --features shuttle --all-targets) -- -D warnings
	$(call cargo,clippy,--no-deps -p mm --features loom --all-targets) -- -D warnings
	$(UNSTABLE) $(call cargo,clippy,--no-deps $(KERNEL_CARGO)) -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(call cargo,doc,--no-deps --document-private-items $(HOST_CRATES))
	RUSTDOCFLAGS="-D warnings" $(call cargo,doc,--no-deps --document-private-items -p mm --features shuttle)
	RUSTDOCFLAGS="-D warnings" $(call cargo,doc,--no-deps --document-private-items -p mm --features loom)
	RUSTDOCFLAGS="-D warnings" $(UNSTABLE) cargo doc --no-deps --document-private-items $(BOOT_CARGO)
	RUSTDOCFLAGS="-D warnings" $(UNSTABLE) $(call cargo,doc,--no-deps --document-private-items $(KERNEL_CARGO))

doc:
	@$(call cargo,doc,--no-deps $(HOST_CRATES))
	@$(UNSTABLE) $(call cargo,doc,--no-deps --document-private-items $(KERNEL_CARGO))
	@echo "$(TARGET)/doc/mm/index.html and $(TARGET)/x86_64-target/doc/kernel/index.html"

clean:
	rm -rf $(TARGET) build
