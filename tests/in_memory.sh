#!/bin/sh
# Runs a command whose temporary files are in memory, where there is room for them, and gone afterwards:
# PostgreSQL copies a database there ten times as fast.
room=$(df -m --output=avail /dev/shm 2>/dev/null | tail -n 1)
memory=$(awk '$1 == "MemAvailable:" { print int($2 / 1024) }' /proc/meminfo)
if [ "${room:-0}" -gt 4096 ] && [ "${memory:-0}" -gt 8192 ]; then
    TMPDIR=$(mktemp -d /dev/shm/passport-tests.XXXXXX)
    export TMPDIR
    trap 'rm -rf "$TMPDIR"' EXIT
    trap 'exit 130' INT TERM
    chmod 1777 "$TMPDIR"
fi
"$@"
