#!/bin/sh
# Builds memory-management selftests of Linux, unmodified and statically: those of 6.1 and
# those of the newest Linux whose source Debian packages.
#
# Only what these tests consist of is unpacked, to build/debian/selftests/VERSION/source; the
# programs are in VERSION/bin, and `newest` is a link to that version. What is there already
# is neither fetched nor built again.
set -eu
. "$(dirname "$0")/debian.sh"

# The newest is what it was when it was first asked for.
newest_version() {
    if [ -L "$DEBIAN/selftests/newest" ]; then
        readlink "$DEBIAN/selftests/newest"
    else
        update
        apt apt-cache search --names-only '^linux-source-[0-9]+\.[0-9]+$' |
            sed -E 's/^linux-source-([0-9.]+) .*/\1/' | sort -V | tail -n 1
    fi
}

# unpack VERSION PATTERN…: what of Linux's source matches, unless the very same has been unpacked.
unpack() {
    dir=$DEBIAN/selftests/$1
    package=linux-source-$1
    shift
    [ "$(cat "$dir/.unpacked" 2>/dev/null)" != "$*" ] || return 0
    update
    deb=$(download "$package")
    echo "Unpacking the selftests of $(basename "$deb" .deb) …" >&2
    mkdir -p "$dir/source"
    dpkg --fsys-tarfile "$deb" | tar -xO --wildcards './usr/src/linux-source-*.tar.xz' |
        tar -xJ -C "$dir/source" --strip-components=1 --wildcards "$@"
    rm -f "$deb"
    echo "$*" >"$dir/.unpacked"
}

# build VERSION TEST OPTION…: one program, with the compiler's options.
build() {
    dir=$DEBIAN/selftests/$1
    program=$dir/bin/$2
    shift 2
    [ ! -e "$program" ] || return 0
    mkdir -p "$dir/bin"
    gcc -static -O2 -w -U_FORTIFY_SOURCE -o "$program" "$@" -lrt -lpthread -lm
}

# libcap for static programs, unless the system has it.
libcap() {
    dir=$DEBIAN/selftests/libcap
    if [ ! -e /usr/include/sys/capability.h ] && [ ! -e "$dir/usr/include/sys/capability.h" ]; then
        update
        deb=$(download libcap-dev)
        mkdir -p "$dir"
        dpkg --fsys-tarfile "$deb" | tar -x -C "$dir" --wildcards './usr/include/*' './usr/lib/*.a'
        rm -f "$deb"
    fi
}

unpack 6.1 '*/tools/testing/selftests/vm/*.[ch]' '*/tools/testing/selftests/*.h'
selftests=$DEBIAN/selftests/6.1/source/tools/testing/selftests
for test in mremap_test mremap_dontunmap map_fixed_noreplace map_populate; do
    build 6.1 $test -I"$selftests" "$selftests/vm/$test.c"
done

version=$(newest_version)
unpack "$version" '*/tools/testing/selftests/mm/*.[ch]' '*/tools/testing/selftests/*.h' '*/tools/include/*' '*/tools/arch/x86/include/*' \
    '*/mm/gup_test.h'
libcap
tools=$DEBIAN/selftests/$version/source/tools
mm=$tools/testing/selftests/mm
common=
for file in vm_util.c hugepage_settings.c; do
    [ ! -e "$mm/$file" ] || common="$common $mm/$file"
done
# Where Linux's build notes what it finds: cow takes liburing then.
: >"$mm/local_config.h_gen"
for test in mremap_test mremap_dontunmap map_fixed_noreplace map_populate cow \
    mlock2-tests mlock-random-test madv_populate ksm_functional_tests soft-dirty mkdirty merge; do
    # shellcheck disable=SC2086 # several files
    # The C library may be older than that call.
    build "$version" $test -D_GNU_SOURCE= -D__NR_mseal=462 -I"$mm" -I"$mm/.." -I"$tools/include" -isystem "$tools/include/uapi" \
        -I"$DEBIAN/selftests/libcap/usr/include" "$mm/$test.c" $common \
        -L"$DEBIAN/selftests/libcap/usr/lib/x86_64-linux-gnu" $([ $test != mlock-random-test ] || echo -lcap)
done
ln -sfn "$version" "$DEBIAN/selftests/newest"
