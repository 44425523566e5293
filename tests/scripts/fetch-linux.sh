#!/bin/sh
# Fetches a Linux kernel of Debian's for comparison.
#
# usage: fetch-linux.sh [VERSION]     e.g. 6.18 or 7.2; default: the newest there is
#
# Unpacks it to build/debian/linux/VERSION/vmlinuz, unless it is there already, and prints
# that path on the last line.
set -eu
. "$(dirname "$0")/debian.sh"

wanted=${1:-newest}
case $wanted in
newest) pattern='[0-9.]+' ;;
*) pattern="$(printf '%s' "$wanted" | sed 's/\./\\./g')(\\.[0-9]+)*" ;;
esac

# The cache answers without the network; "newest" is asked once a day.
known=$DEBIAN/linux/$wanted
if [ -n "$(find "$known" -maxdepth 0 \( -name newest -mtime -1 -o ! -name newest \) 2>/dev/null)" ] &&
    [ -e "$known/vmlinuz" ]; then
    echo "$known/vmlinuz"
    exit 0
fi

update
# Up to 7.0 the kernel is in linux-image-*, later in linux-binary-*; take the newest of either
# that really has one.
package=$(apt apt-cache search --names-only "^linux-(image|binary)-${pattern}(\\+[a-z0-9]+)?-cloud-amd64\$" |
    cut -d' ' -f1 | sed -E 's/^(linux-(image|binary)-(.*))$/\3 \1/' | sort -V | cut -d' ' -f2)
for candidate in $(printf '%s\n' "$package" | tac); do
    deb=$(download "$candidate")
    path=$(dpkg -c "$deb" | awk '$1 ~ /^-/ && $6 ~ /vmlinuz/ { path = $6 } END { print path }')
    if [ -n "$path" ]; then
        version=${candidate#linux-image-}
        version=${version#linux-binary-}
        version=${version%%+*}
        version=${version%%-*}
        rm -rf "$DEBIAN/linux/$version"
        mkdir -p "$DEBIAN/linux/$version"
        dpkg --fsys-tarfile "$deb" | tar -x -C "$DEBIAN/linux/$version" "$path"
        mv "$DEBIAN/linux/$version/$path" "$DEBIAN/linux/$version/vmlinuz"
        find "$DEBIAN/linux/$version" -type d -empty -delete
        [ "$version" = "$wanted" ] || ln -sfn "$version" "$known"
        rm -f "$deb"
        echo "$DEBIAN/linux/$version/vmlinuz"
        exit 0
    fi
    rm -f "$deb"
done
echo "$0: Debian has no kernel that matches '$wanted'" >&2
exit 1
