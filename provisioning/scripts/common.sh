#!/bin/sh
# What every Passport program on a server shares: the framed answer, the lock, and its records under STATE.
# It runs as root with an empty environment: nothing is taken from outside except checked parameters.

PATH=/usr/sbin:/usr/bin:/sbin:/bin
LC_ALL=C
export PATH LC_ALL
unset IFS CDPATH ENV BASH_ENV TMPDIR
umask 077
cd / || exit 1

STATE=/var/lib/passport
TOMBSTONE_DAYS=30

# Opens the answer; what tools print from here on cannot get into it.
begin_answer() {
    exec 3>&1 1>/dev/null
    printf 'passport:1:%s\n' "$1" >&3
}

# Adds one line to the answer; characters that the frame does not know become "?".
answer() {
    printf '%s=%s\n' "$1" "$(printf '%s' "$2" | tr -c '0-9A-Za-z +/=:,.@_*-' '?' | cut -c1-1100)" >&3
}

# Closes the answer well.
end_answer() {
    printf 'passport:end:ok\n' >&3
    exit 0
}

# Closes the answer with a code of the list in framing.py, and says what a tool said, if given.
fail() {
    [ -z "${2:-}" ] || answer detail "$(printf '%s' "$2" | tr '\n' ' ' | cut -c1-300)"
    printf 'passport:end:failed:%s\n' "$1" >&3
    exit 1
}

# Refuses a parameter that does not match its pattern as a whole; a newline never does.
check_parameter() {
    case $2 in *"
"*) fail parameters "$1" ;; esac
    printf '%s\n' "$2" | grep -Eq -e "$3" || fail parameters "$1"
}

now() { date +%s; }

uptime_seconds() { cut -d. -f1 /proc/uptime; }

boot_id() { cat /proc/sys/kernel/random/boot_id; }

is_number() {
    case $1 in '' | *[!0-9]*) return 1 ;; esac
}

systemd_runs() { [ -d /run/systemd/system ]; }

# Runs a command that might hang (D-Bus, a dead mount) for at most 20 seconds.
bounded() {
    if command -v timeout >/dev/null; then timeout 20 "$@"; else "$@"; fi
}

# Fails with the reason why nothing can be written in a folder.
cannot_write() {
    [ -w "$1" ] || fail read_only "$1"
    fail disk_full "$1"
}

# Gives files the SELinux context that belongs to their place, where there is SELinux.
relabel() {
    if command -v restorecon >/dev/null; then restorecon "$@" 2>/dev/null; fi
    return 0
}

# Puts standard input into a file in one step, so that no reader ever sees half of it.
write_file() {
    if cat >"$1.passport-new" && chmod "$2" "$1.passport-new" && mv -f "$1.passport-new" "$1"; then
        relabel "$1"
        return 0
    fi
    rm -f "$1.passport-new"
    return 1
}

# Makes the root-only folders of Passport's records.
make_state() {
    for folder in "$STATE" "$STATE/requests" "$STATE/tombstones"; do
        [ -d "$folder" ] || mkdir -m 700 "$folder" || return 1
    done
}

# Waits up to $1 seconds for the one lock of this server; it is given back when the program ends.
take_lock() {
    if command -v flock >/dev/null; then
        exec 9>>"$STATE/lock"
        # Korn shells keep their files to themselves unless they are told.
        flock -w "$1" 9 9>&9
        return
    fi
    waited=0
    until mkdir "$STATE/lock.d" 2>/dev/null; do
        drop_stale_lock
        waited=$((waited + 1))
        [ "$waited" -le "$1" ] || return 1
        sleep 1
    done
    trap 'rm -rf "$STATE/lock.d"' EXIT
    printf '%s\n' "$$" >"$STATE/lock.d/pid"
}

# Without flock: takes away the lock of a program that is dead, or that died before it wrote its number.
drop_stale_lock() {
    holder=$(cat "$STATE/lock.d/pid" 2>/dev/null)
    if is_number "$holder"; then
        kill -0 "$holder" 2>/dev/null || rm -rf "$STATE/lock.d"
    elif [ -n "$(find "$STATE/lock.d" -prune -mmin +1 2>/dev/null)" ]; then
        rm -rf "$STATE/lock.d"
    fi
}

# Prints one value of a record (a marker or a tombstone).
record_value() { sed -n "s/^$2=//p" "$1" 2>/dev/null | head -n 1; }

# Writes the tombstone: from here on a create of this attempt, however late, is refused.
write_tombstone() {
    printf 'user=%s\nuid=%s\nat=%s\n' "$2" "$3" "$(now)" | write_file "$STATE/tombstones/$1" 600
}

# Forgets tombstones that no command can be late for any more.
purge_tombstones() {
    find "$STATE/tombstones" -type f -mtime "+$TOMBSTONE_DAYS" -exec rm -f {} + 2>/dev/null
}

# Whether any Passport user is recorded on this server.
requests_left() {
    for file in "$STATE"/requests/AR-*; do
        [ -f "$file" ] && return 0
    done
    return 1
}

# Prints the numeric id of an account of /etc/passwd or of what the server asks for names.
account_id() { getent passwd "$1" | cut -d: -f3; }
