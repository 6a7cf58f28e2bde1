#!/usr/bin/env bash
# Compares Causeway with PgBouncer on this machine; see `benches/compare.sh --help`.
# Needs python3 (nothing beyond its standard library), PostgreSQL's server binaries, pgbench and
# pgbouncer, and perf or strace to count system calls.
set -euo pipefail
exec python3 -B "$(dirname "$0")/compare" "$@"
