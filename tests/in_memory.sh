#!/bin/sh
# Runs a command whose temporary files are in memory, where there is room for them, and gone afterwards:
# PostgreSQL copies a database there ten times as fast.
free() { awk -v name="$1:" '$1 == name { print int($2 / 1024) }' /proc/meminfo; }
room=$(df -m --output=avail /dev/shm 2>/dev/null | tail -n 1)
if [ "${room:-0}" -gt 4096 ] && [ "$(free MemAvailable)" -gt 8192 ]; then
    TMPDIR=$(mktemp -d /dev/shm/passport-tests.XXXXXX)
    export TMPDIR
    trap 'rm -rf "$TMPDIR"' EXIT
    trap 'exit 130' INT TERM
    chmod 1777 "$TMPDIR"
fi
"$@"
