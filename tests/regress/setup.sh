#!/usr/bin/env bash
# Fetches PostgreSQL's regression suite in the version of the installed server and builds its library,
# below target/regress. Debian and Ubuntu; a directory with the sources' src/test/regress can be named
# instead.
#
#   tests/regress/setup.sh [SRC_TEST_REGRESS]
set -euo pipefail

work=$(cd "$(dirname "$0")/../.." && pwd)/target/regress

main() {
    mkdir -p "$work"
    local version
    version=$(pg_config --version | awk '{ print $2 }')
    if [ $# -gt 0 ]; then
        ln -sfn "$(cd "$1" && pwd)" "$work/suite"
    elif [ "$(cat "$work/version" 2>/dev/null)" != "$version" ]; then
        fetch "$version"
    fi
    # The sources' own build would configure the whole of PostgreSQL for this one library.
    cc -O2 -fPIC -shared -w -I"$(pg_config --includedir-server)" -I"$work/suite" \
        -o "$work/regress.so" "$work/suite/regress.c"
}

fetch() {
    local version=$1 lists=$work/apt package=postgresql-${1%%.*} installed
    installed=$(dpkg-query --show --showformat '${source:Version}' "$package")
    # Only binary packages are set up on most machines; the same places have the sources. They are listed
    # here, for this one command, and not on the machine.
    mkdir -p "$lists/lists/partial"
    deb_src >"$lists/sources.list"
    local options=(-o Dir::Etc::SourceList="$lists/sources.list" -o Dir::Etc::SourceParts=/dev/null
        -o Dir::State::Lists="$lists/lists")
    (
        cd "$work"
        apt-get "${options[@]}" -qq update
        apt-get "${options[@]}" -qq --download-only source "$package=$installed" ||
            die "the source of $package $installed is not to be had; name a directory with it"
        tar xf "${package}_$version.orig.tar.bz2" "postgresql-$version/src/test/regress"
    )
    ln -sfn "postgresql-$version/src/test/regress" "$work/suite"
    echo "$version" >"$work/version"
}

# The machine's package sources, of either format, as deb-src lines.
deb_src() {
    { cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null || true; } |
        sed -n 's/^deb /deb-src /p'
    awk 'BEGIN { RS = ""; FS = "\n" }
         {
             delete field
             for (i = 1; i <= NF; i++) {
                 at = index($i, ":")
                 if (at && $i !~ /^[ \t#]/) field[substr($i, 1, at - 1)] = substr($i, at + 2)
             }
             options = field["Signed-By"] ? "[signed-by=" field["Signed-By"] "] " : ""
             count = split(field["Suites"], suites, " ")
             for (s = 1; s <= count; s++)
                 print "deb-src " options field["URIs"] " " suites[s] " " field["Components"]
         }' /etc/apt/sources.list.d/*.sources 2>/dev/null || true
}

die() {
    echo "regress: $*" >&2
    exit 2
}

main "$@"
