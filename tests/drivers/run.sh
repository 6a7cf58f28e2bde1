#!/usr/bin/env bash
# Runs the driver tests against DATABASE_URL: any PostgreSQL, or a proxy in front of one.
#
#   tests/drivers/run.sh DATABASE_URL [DRIVER...]
#
# DRIVER is psycopg, asyncpg, node-postgres or postgres.js; without one, all of them run. The drivers
# are installed below target/drivers in the versions that are pinned here and in requirements.txt.
# The role needs the right to create tables and types. Ends with 1 if a case failed, 2 if it could
# not run at all.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
work=$(cd "$here/../.." && pwd)/target/drivers
node_packages=(pg@8.23.1 pg-cursor@2.22.0 pg-copy-streams@7.0.0 postgres@3.4.9)

main() {
    [ $# -ge 1 ] || die "usage: tests/drivers/run.sh DATABASE_URL [DRIVER...]"
    local url=$1
    shift
    [ $# -gt 0 ] || set -- psycopg asyncpg node-postgres postgres.js
    mkdir -p "$work"
    local results=$work/results status=0 driver
    : >"$results"
    for driver in "$@"; do
        prepare "$driver"
        echo "running $driver" >&2
        run "$driver" "$url" >>"$results" || {
            status=1
            # A driver that ends before its last case has not reported it.
            grep -q "^$driver"$'\t.*\tFAIL\t' "$results" ||
                printf '%s\t(all)\tFAIL\tended early; see the messages above\n' "$driver" >>"$results"
        }
    done
    awk -F '\t' '{ printf "%-14s %-40s %-4s  %s\n", $1, $2, $3, $4; if ($3 == "pass") passed++ }
                 END { printf "\n%d of %d cases passed\n", passed, NR }' "$results"
    return $status
}

prepare() {
    case $1 in
    psycopg | asyncpg) prepare_python ;;
    node-postgres | postgres.js) prepare_node ;;
    *) die "no driver is called $1" ;;
    esac
}

run() {
    case $1 in
    psycopg) "$work/venv/bin/python" -B "$here/psycopg3.py" "$2" ;;
    asyncpg) "$work/venv/bin/python" -B "$here/asyncpg_driver.py" "$2" ;;
    # Node looks for packages beside the script, so the scripts are copied to where the packages are.
    node-postgres) cp "$here"/*.mjs "$work/node/" && node "$work/node/node_postgres.mjs" "$2" ;;
    postgres.js) cp "$here"/*.mjs "$work/node/" && node "$work/node/postgres_js.mjs" "$2" ;;
    esac
}

prepare_python() {
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || die "python 3.11 or newer is needed"
    cmp -s "$here/requirements.txt" "$work/venv/installed" && return
    python3 -m venv "$work/venv" || die "python3 cannot make a virtual environment (Debian package python3-venv)"
    "$work/venv/bin/pip" install --quiet --disable-pip-version-check --requirement "$here/requirements.txt"
    cp "$here/requirements.txt" "$work/venv/installed"
}

prepare_node() {
    command -v npm >/dev/null || die "npm is needed for the Node.js drivers"
    [ "$(cat "$work/node/installed" 2>/dev/null)" = "${node_packages[*]}" ] && return
    mkdir -p "$work/node"
    echo '{ "private": true }' >"$work/node/package.json"
    npm install --prefix "$work/node" --no-save --no-audit --no-fund --loglevel error "${node_packages[@]}" >&2
    echo "${node_packages[*]}" >"$work/node/installed"
}

die() {
    echo "drivers: $*" >&2
    exit 2
}

main "$@"
