#!/bin/sh
# The sweeper: run by the timer on the server every minute, it removes who is due, with no Passport needed.
# Within the last minute it waits for the second, so that access ends on time and not a minute late.

# Prints the seconds until a request is due, 0 or less when it is.
# A clock that was set back must not lengthen access: within one boot the uptime counts, too.
seconds_left() {
    not_after=$(record_value "$1" not_after)
    is_number "$not_after" || not_after=0
    left=$((not_after - $(now)))
    ends_uptime=$(record_value "$1" ends_uptime)
    if is_number "$ends_uptime" && [ "$(record_value "$1" boot)" = "$(boot_id)" ]; then
        by_uptime=$((ends_uptime - $(uptime_seconds)))
        [ "$by_uptime" -ge "$left" ] || left=$by_uptime
    fi
    printf '%s\n' "$left"
}

# Removes one user in a shell of its own, so that one failure stops nobody else's end.
sweep_request() (
    if ! take_lock 50 || ! load_marker "$1"; then exit 1; fi
    [ "$(seconds_left "$MARKER")" -le 0 ] || exit 0
    write_tombstone "$1.$(record_value "$MARKER" attempt)" "$USER_NAME" "$USER_ID"
    if end_user; then forget_user; fi
)

# Removes all who are due and warns the others; WAIT becomes yes when the next end is less than a minute away.
sweep_round() {
    WAIT=no
    for file in "$STATE"/requests/AR-*; do
        [ -f "$file" ] || continue
        left=$(seconds_left "$file")
        if [ "$left" -le 0 ]; then
            sweep_request "${file##*/}"
            continue
        fi
        warn_request "${file##*/}" "$left"
        [ "$left" -gt 65 ] || WAIT=yes
    done
}

# Puts the wall up again where a reboot or somebody's change of the firewall took it; a command at work does so itself.
restore_wall() (
    take_lock "$1" && raise_wall
)

# Lets nobody in, and starts nothing of theirs, whose end came while the server was off; the timer then does the rest.
shut_out() (
    if ! take_lock 50 || ! load_marker "$1" || [ "$(seconds_left "$MARKER")" -gt 0 ]; then exit 0; fi
    close_door
    clear_jobs
)

# At boot, before anybody is let in and before cron and at look for work.
sweep_main() {
    if [ "${1:-}" = boot ]; then
        for file in "$STATE"/requests/AR-*; do
            [ ! -f "$file" ] || shut_out "${file##*/}"
        done
        restore_wall 50
        return
    fi
    purge_tombstones
    sweep_round
    restore_wall 1
    while [ "$WAIT" = yes ]; do
        sleep 1
        sweep_round
    done
    wait
    purge_kept
    if ! requests_left && ! has_kept_homes && take_lock 50 && ! requests_left; then
        leave_server
    fi
}

sweep_main "$@"
