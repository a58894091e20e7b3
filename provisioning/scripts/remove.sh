#!/bin/sh
# The remove document: leaves a tombstone, ends access, sweeps the server, verifies, and reports the proof.

# Leaves the tombstone, without which a create that comes late would be obeyed.
leave_tombstone() {
    [ -f "$TOMBSTONE" ] || write_tombstone "$REQUEST_ID.$ATTEMPT" "$USER_NAME" "$(record_value "$MARKER" uid)"
}

# Without a marker there is nothing of Passport's to touch: what a tombstone remembers is verified.
report_absent() {
    if [ -n "$(account_id "$USER_NAME")" ]; then fail foreign_account "$USER_NAME"; fi
    leave_tombstone || cannot_write "$STATE"
    load_tombstone "$TOMBSTONE"
    verify_gone || fail_left
    requests_left || leave_server || fail_wall
    answer result absent
    report_proof
}

report_proof() {
    report_counts
    until=$(kept_until "$REQUEST_ID.$ATTEMPT")
    [ -z "$until" ] || answer kept_until "$until"
    answer swept_at "$(now)"
    answer verified yes
    end_answer
}

fail_left() {
    report_counts
    answer left "$LEFT"
    [ -w /etc ] || fail read_only /etc
    fail left_behind
}

fail_wall() {
    note_left firewall
    fail_left
}

# The marker's user, if it is this attempt's: a repeated remove of an earlier attempt must not end a later one.
remove_recorded() {
    [ "$USER_NAME" = "$ASKED_NAME" ] || fail foreign_account "$USER_NAME"
    found=$(account_id "$USER_NAME")
    if [ -n "$found" ] && [ "$found" != "$USER_ID" ]; then fail foreign_account "$USER_NAME"; fi
    had_sudo=$(record_value "$MARKER" had_sudo)
    end_user || fail_left
    leave_tombstone || cannot_write "$STATE"
    forget_user || fail_wall
    answer result removed
    answer sudo "$had_sudo"
    report_proof
}

remove_main() {
    begin_answer remove
    check_parameters
    [ "$(id -u)" = 0 ] || fail not_root
    USER_NAME=$ASKED_NAME
    MARKER=$STATE/requests/$REQUEST_ID
    TOMBSTONE=$STATE/tombstones/$REQUEST_ID.$ATTEMPT
    answer request "$REQUEST_ID"
    answer user "$USER_NAME"
    # On a disk that takes no writes, what can be ended is ended all the same.
    if make_state && [ -w "$STATE" ]; then
        leave_tombstone
        take_lock 120 || fail locked
        purge_tombstones
        purge_kept
    fi
    [ -f "$MARKER" ] || report_absent
    load_marker "$REQUEST_ID" || fail marker
    if [ "$(record_value "$MARKER" attempt)" != "$ATTEMPT" ]; then
        answer result superseded
        end_answer
    fi
    remove_recorded
}

remove_main
