#!/bin/sh
# Sets up what is missing to build the kernel and run it in QEMU.
#
#   scripts/setup.sh CONFIG
#
# Finds a Rust 1.96 toolchain with the library's source and LLVM's tools: that
# of Debian's packages (rustc-web and its companions), or that of rustup, which
# `rust-toolchain.toml` pins. Installs what is missing, through the system's
# package manager when this is root, Rust otherwise through rustup, and writes
# the findings to CONFIG, which the Makefile includes. Doing it again changes
# nothing. Everything it has to say goes to stderr.
set -eu

config=${1:?usage: setup.sh CONFIG}
cd "$(dirname "$0")/.."

channel=$(sed -n 's/^channel = "\(.*\)"/\1/p' rust-toolchain.toml)
debian_rust="rustc-web cargo-web rust-web-src rust-web-llvm rustfmt-web rust-web-clippy lld-22 llvm-22"

say() { printf 'setup: %s\n' "$*" >&2; }
die() { printf 'setup: error: %s\n' "$*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }
is_root() { [ "$(id -u)" -eq 0 ]; }

[ "$(uname -s)-$(uname -m)" = Linux-x86_64 ] ||
    die "the programs that run on the kernel are Linux x86-64 programs, and so must be the machine that builds them"

# ---- packages ---------------------------------------------------------------

apt_updated=
apt_update() {
    [ -z "$apt_updated" ] || return 0
    say "updating the list of packages"
    apt-get update -qq >&2 || say "the list of packages could not be updated; going on with the old one"
    apt_updated=yes
}

apt_install() {
    apt_update
    say "installing $*"
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >&2 </dev/null
}

# Installs the packages of one purpose, named differently by each distribution.
install_packages() { # purpose, Debian, Fedora, Arch
    is_root || die "$1 is missing. As root, run \`make setup\` again, or install it: $(advice "$2" "$3" "$4")"
    if have apt-get; then
        # shellcheck disable=SC2086
        apt_install $2 || die "apt-get could not install $2"
    elif have dnf; then
        say "installing $3"
        # shellcheck disable=SC2086
        dnf install -y -q $3 >&2 || die "dnf could not install $3"
    elif have pacman; then
        say "installing $4"
        # shellcheck disable=SC2086
        pacman -S --noconfirm --needed $4 >&2 || die "pacman could not install $4"
    else
        die "$1 is missing, and no package manager known to this script is here; install it and run \`make setup\` again"
    fi
}

advice() {
    if have apt-get; then echo "sudo apt-get install $1"
    elif have dnf; then echo "sudo dnf install $2"
    elif have pacman; then echo "sudo pacman -S $3"
    else echo "with your system's package manager"; fi
}

find_ovmf() {
    for file in "${OVMF:-}" /usr/share/ovmf/OVMF.fd /usr/share/OVMF/OVMF.fd /usr/share/edk2/ovmf/OVMF.fd \
        /usr/share/edk2/x64/OVMF.4m.fd /usr/share/edk2-ovmf/x64/OVMF.fd /usr/share/qemu/ovmf-x86_64.bin; do
        if [ -n "$file" ] && [ -f "$file" ]; then echo "$file"; return; fi
    done
}

# ---- Rust ---------------------------------------------------------------------

# Whether the toolchain whose programs are in directory $1 has all that is needed.
complete() {
    [ -x "$1/cargo" ] && [ -x "$1/rustc" ] && [ -x "$1/rustfmt" ] && [ -x "$1/cargo-clippy" ] || return 1
    case $("$1/rustc" --version 2>/dev/null) in "rustc ${channel%.*}."*) ;; *) return 1 ;; esac
    sysroot=$("$1/rustc" --print sysroot)
    [ -f "$sysroot/lib/rustlib/src/rust/library/core/src/lib.rs" ] || return 1
    [ -n "$(find_lld "$1" "$sysroot")" ]
}

find_lld() {
    for lld in "$2/lib/rustlib/x86_64-unknown-linux-gnu/bin/rust-lld" "$1/rust-lld"; do
        if [ -x "$lld" ]; then echo "$lld"; return; fi
    done
}

# The directory with the programs of the pinned toolchain, if rustup has it.
rustup_bin() {
    have rustup || return 0
    rustc=$(RUSTUP_AUTO_INSTALL=0 rustup which --toolchain "$channel" rustc 2>/dev/null) && dirname "$rustc"
}

# Debian's own `rustup` package would have to go for `rustc-web`.
debian_install() {
    is_root && have apt-get && ! dpkg -s rustup >/dev/null 2>&1 || return 1
    apt_update
    apt-cache show rustc-web 2>/dev/null | grep -q "^Version: ${channel%.*}\." || return 1
    # shellcheck disable=SC2086
    apt_install $debian_rust
}

rustup_install() {
    have rustup || return 1
    say "installing Rust $channel with rustup"
    rustup toolchain install "$channel" --profile minimal --no-self-update \
        -c rust-src -c llvm-tools -c rustfmt -c clippy >&2
}

find_rust() {
    rust=
    if complete /usr/bin; then
        rust=/usr/bin
    else
        bin=$(rustup_bin) || true
        if [ -n "$bin" ] && complete "$bin"; then rust=$bin; fi
    fi
}

find_rust
if [ -z "$rust" ]; then
    say "no complete Rust $channel here"
    debian_install || rustup_install ||
        die "Rust $channel could not be installed; install rustup (https://rustup.rs), check the network, and run \`make setup\` again"
    find_rust
    [ -n "$rust" ] || die "Rust $channel is still incomplete after installing it"
fi
sysroot=$("$rust/rustc" --print sysroot)
tools=$sysroot/lib/rustlib/x86_64-unknown-linux-gnu/bin
say "Rust: $("$rust/rustc" --version) in $rust"

# The build script of `bootloader` looks for these two in the sysroot, where
# rustup has them and Debian does not.
for tool in llvm-objcopy llvm-objdump; do
    [ -x "$tools/$tool" ] && continue
    target=$(ls -v /usr/bin/$tool-[0-9]* 2>/dev/null | tail -n 1)
    [ -n "$target" ] || die "$tool is missing"
    say "linking $tools/$tool to $target"
    ln -sf "$target" "$tools/$tool" || die "cannot write to $tools: run \`make setup\` once as root"
done

# ---- the rest -----------------------------------------------------------------

have cc || install_packages "a C compiler" "gcc libc6-dev" "gcc glibc-devel" "gcc"
have musl-gcc || install_packages "musl's C compiler" "musl-tools" "musl-gcc musl-libc-static" "musl"
have busybox && ! ldd "$(command -v busybox)" >/dev/null 2>&1 ||
    install_packages "a static busybox" "busybox-static" "busybox" "busybox"
have xz || install_packages "xz" "xz-utils" "xz" "xz"
have qemu-system-x86_64 || install_packages "QEMU" "qemu-system-x86" "qemu-system-x86-core" "qemu-system-x86"
ovmf=$(find_ovmf)
if [ -z "$ovmf" ]; then
    install_packages "the UEFI firmware OVMF" "ovmf" "edk2-ovmf" "edk2-ovmf"
    ovmf=$(find_ovmf)
fi
say "QEMU: $(qemu-system-x86_64 --version | head -n 1); UEFI firmware: ${ovmf:-none}"

mkdir -p "$(dirname "$config")"
cat >"$config.new" <<END
# Written by scripts/setup.sh; \`make setup\` writes it anew.
export PATH := $rust:$PATH
export OVMF ?= $ovmf
OBJCOPY := $tools/llvm-objcopy
END
mv "$config.new" "$config"
