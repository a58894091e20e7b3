#!/bin/sh
# Tells a person's terminals that the end is near: 10 and 2 minutes before, once each. For the sweeper.

MOST_TERMINALS=64

# Warns of one request's end, which is so many seconds away, if it is time and has not been done. To the nearest minute:
# the sweeper comes once in each. The note is written first: what is said once is not said again, even if nobody heard.
warn_request() {
    [ "$2" -lt 630 ] && [ "$2" -gt 0 ] || return 0
    mark=10
    [ "$2" -ge 150 ] || mark=2
    note=$WARNED/$1.$mark
    not_after=$(record_value "$STATE/requests/$1" not_after)
    is_number "$not_after" || return 0
    [ "$(cat "$note" 2>/dev/null)" != "$not_after" ] || return 0
    [ -d "$WARNED" ] || mkdir -m 700 "$WARNED" || return 0
    printf '%s\n' "$not_after" | write_file "$note" 600 || return 0
    words=$(warning_words "$not_after" "$((($2 + 30) / 60))")
    # Aside, so that nobody's terminal holds up somebody else's end.
    { load_marker "$1" && say_to_terminals "$words"; } &
}

# The clock is the server's; with its zone, for the person's may be another.
warning_words() {
    case $2 in 0) soon='less than a minute' ;; 1) soon='1 minute' ;; *) soon="$2 minutes" ;; esac
    printf 'Access ends %s, in %s. Your processes will be stopped. Longer: ask again with /passport request in Slack.' \
        "$(date -d "@$1" '+%H:%M %Z')" "$soon"
}

# Prints the terminals of the user's processes, and of what they started through sudo: the controlling one, by the
# kernel's number, because what a process has opened may have any name.
user_terminals() {
    seen=' '
    for pid in $(user_processes); do
        number=$(terminal_number "$pid")
        case $seen in *" $number "*) continue ;; esac
        [ "$((number / 256 % 4096))" -eq 136 ] || continue
        # The kernel puts a minor's low byte last and the rest above the major.
        # shellcheck disable=SC2017
        terminal=/dev/pts/$((number % 256 + number / 1048576 * 256))
        is_theirs "$terminal" "$pid" || continue
        seen="$seen$number "
        printf '%s\n' "$terminal"
    done | head -n "$MOST_TERMINALS"
}

# Prints the device number of a process's controlling terminal, 0 for none.
terminal_number() {
    fields=$(tr '\n' ' ' <"/proc/$1/stat") 2>/dev/null
    # Split on purpose: state, parent, group, session, terminal.
    # shellcheck disable=SC2086
    set -- ${fields##*) }
    is_number "${5:-}" || set -- 0 0 0 0 0
    printf '%s\n' "$5"
}

# A terminal of theirs; or root's, for sudo makes those, unless the process has terminals of its own making, in a mount
# namespace of its own, where the same number is another one.
is_theirs() {
    [ -c "$1" ] && [ ! -L "$1" ] || return 1
    case $(stat -c %u "$1" 2>/dev/null) in
        "$USER_ID") return 0 ;;
        0) [ "$(readlink "/proc/$2/ns/mnt")" = "$(readlink "/proc/$$/ns/mnt")" ] ;;
        *) return 1 ;;
    esac
}

# Writes to all terminals side by side: one that is blocked, by ^S or on purpose, delays nobody and is given up.
say_to_terminals() {
    writers=
    for terminal in $(user_terminals); do
        { printf '\r\n\007%s\r\n' "$1" >"$terminal"; } 2>/dev/null &
        writers="$writers $!"
    done
    for _ in 1 2; do
        [ -n "$(living)" ] || return 0
        sleep 1
    done
    for pid in $(living); do
        kill -KILL "$pid" 2>/dev/null
    done
}

# Prints which writers still write.
living() {
    for pid in $writers; do
        if process_lives "$pid"; then printf '%s\n' "$pid"; fi
    done
}
