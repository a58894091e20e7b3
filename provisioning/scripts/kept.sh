#!/bin/sh
# Homes that policy keeps for some days after the end: root's alone, without set-uid bits or mounts, then purged.

KEPT=$STATE/kept

# Moves the home to where only root comes, in one step or, from another disk, whole before the old one goes.
# There is one per request and attempt; what is left of a home that is kept already is a torso of an interrupted move.
keep_home() {
    place=$KEPT/${MARKER##*/}.$(record_value "$MARKER" attempt)
    [ -d "$place/home" ] || move_home || return 1
    disarm_home
    rm -rf "$HOME_DIR"
}

move_home() {
    rm -rf "$place"
    [ -d "$KEPT" ] || mkdir -m 700 "$KEPT" || return 1
    mkdir -m 700 "$place" || return 1
    printf '%s\n' "$(($(now) + KEEP_DAYS * 86400))" | write_file "$place/until" 600 || return 1
    if command -v chattr >/dev/null; then chattr -R -f -i -a "$HOME_DIR"; fi
    if [ "$(stat -c %d "$HOME_DIR")" = "$(stat -c %d "$place")" ]; then
        mv "$HOME_DIR" "$place/home"
        return
    fi
    if ! cp -a "$HOME_DIR" "$place/part"; then
        rm -rf "$place"
        return 1
    fi
    mv "$place/part" "$place/home"
}

# A file with a second name may stand elsewhere as well: it goes to the dead id, like everything found outside.
disarm_home() {
    find "$place/home" -xdev -type f -links +1 -uid "$USER_ID" -exec chown -h "$DEAD_ID:$DEAD_ID" {} +
    find "$place/home" -xdev \( -uid "$USER_ID" -o -gid "$USER_ID" \) -exec chown -h 0:0 {} +
    find "$place/home" -xdev ! -type l -perm /6000 -exec chmod u-s,g-s {} +
    chmod 700 "$place/home"
    relabel -R "$place"
}

# Prints until when the home of a request and attempt is kept, in seconds since 1970; nothing when it is not.
kept_until() {
    [ -d "$KEPT/$1/home" ] && cat "$KEPT/$1/until" 2>/dev/null
}

# Purges what was kept long enough. Without a readable end, it was.
purge_kept() {
    for place in "$KEPT"/AR-*; do
        [ -d "$place" ] || continue
        until=$(cat "$place/until" 2>/dev/null)
        if is_number "$until" && [ "$until" -gt "$(now)" ]; then continue; fi
        if command -v chattr >/dev/null; then chattr -R -f -i -a "$place"; fi
        rm -rf "$place"
    done
    rmdir "$KEPT" 2>/dev/null
}

# Whether any home is kept on this server.
has_kept_homes() {
    for place in "$KEPT"/AR-*; do
        [ -d "$place" ] && return 0
    done
    return 1
}
