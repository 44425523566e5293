#!/bin/sh
# Builds the memory-management selftests of Linux 6.1, unmodified and statically.
#
# The sources come from the Debian package linux-source-6.1; only what these tests consist of
# is unpacked, to build/debian/selftests. Finished binaries are not built again.
set -eu
. "$(dirname "$0")/debian.sh"

tests="mremap_test mremap_dontunmap map_fixed_noreplace map_populate"
dir=$DEBIAN/selftests
mkdir -p "$dir"

if [ ! -e "$dir/.unpacked" ]; then
    update
    deb=$(download linux-source-6.1)
    echo "Unpacking the selftests of $(basename "$deb" .deb) …" >&2
    dpkg --fsys-tarfile "$deb" | tar -xO ./usr/src/linux-source-6.1.tar.xz |
        tar -xJ -C "$dir" --strip-components=4 --wildcards \
            '*/tools/testing/selftests/vm/*.[ch]' '*/tools/testing/selftests/kselftest.h'
    rm -f "$deb"
    touch "$dir/.unpacked"
fi

mkdir -p "$dir/bin"
for test in $tests; do
    if [ ! -e "$dir/bin/$test" ]; then
        gcc -static -O1 -w -I"$dir" -o "$dir/bin/$test" "$dir/vm/$test.c" -lpthread
    fi
done
