# Packages of several Debian releases, fetched without touching the system's apt.
#
# Sourced by the scripts beside it. Everything lives below $DEBIAN (default
# build/debian): package lists, downloads, and what is unpacked from them.
# shellcheck shell=sh

DEBIAN=${DEBIAN:-build/debian}
mkdir -p "$DEBIAN/apt/lists/partial" "$DEBIAN/apt/cache/archives/partial" "$DEBIAN/packages"
DEBIAN=$(cd "$DEBIAN" && pwd)

KEYRING=
for candidate in /usr/share/keyrings/debian-archive-keyring.gpg /usr/share/keyrings/debian-archive-keyring.pgp; do
    [ -z "$KEYRING" ] && [ -e "$candidate" ] && KEYRING=$candidate
done
if [ -z "$KEYRING" ] || ! command -v apt-get >/dev/null; then
    echo "$0: this needs Debian's apt and debian-archive-keyring" >&2
    exit 1
fi

# mirror NAME: where this system's own sources get the archive of that name from.
mirror() {
    apt-get indextargets --format '$(REPO_URI)' | grep "/$1/*\$" | sort -u | head -n 1
}

MAIN=${DEBIAN_MIRROR:-$(mirror debian)}
SECURITY=${DEBIAN_SECURITY_MIRROR:-$(mirror debian-security)}
if [ -z "$MAIN" ]; then
    echo "$0: apt has no Debian mirror among its sources; set DEBIAN_MIRROR" >&2
    exit 1
fi
{
    for suite in bookworm trixie trixie-backports; do
        echo "deb [arch=amd64 signed-by=$KEYRING] $MAIN $suite main"
    done
    [ -z "$SECURITY" ] || echo "deb [arch=amd64 signed-by=$KEYRING] $SECURITY bookworm-security main"
} >"$DEBIAN/apt/sources.list"
: >"$DEBIAN/apt/status"

# apt COMMAND ARGS…: one of apt's commands with a configuration of its own.
apt() {
    apt_command=$1
    shift
    "$apt_command" -qq \
        -o Dir::Etc::SourceList="$DEBIAN/apt/sources.list" -o Dir::Etc::SourceParts=/dev/null \
        -o Dir::Etc::Preferences=/dev/null -o Dir::Etc::PreferencesParts="$DEBIAN/apt" \
        -o Dir::State="$DEBIAN/apt" -o Dir::State::Lists="$DEBIAN/apt/lists" \
        -o Dir::State::status="$DEBIAN/apt/status" -o Dir::Cache="$DEBIAN/apt/cache" \
        -o APT::Architecture=amd64 -o Acquire::Languages=none -o APT::Sandbox::User=root "$@"
}

# Reads the package lists, once a day at most.
update() {
    if [ -z "$(find "$DEBIAN/apt/lists" -name '*_Packages*' -mtime -1 2>/dev/null)" ]; then
        echo "Reading Debian's package lists …" >&2
        apt apt-get update >&2
    fi
}

# download PACKAGE: puts the newest version into $DEBIAN/packages and prints its path.
download() {
    (cd "$DEBIAN/packages" && apt apt-get download "$1" >&2)
    find "$DEBIAN/packages" -name "$1_*.deb" | sort -V | tail -n 1
}
