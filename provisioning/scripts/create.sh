#!/bin/sh
# The create document: makes one short-lived user, whose end is on this disk before its account is.
# Run twice it answers the same; with another end it moves the end.

# Refuses before anything is touched.
check_server() {
    [ "$(id -u)" = 0 ] || fail not_root
    [ "$(now)" -lt "$NOT_AFTER" ] || fail after_end
    check_disks
    make_state || cannot_write "${STATE%/*}"
    take_lock 60 || fail locked
    purge_tombstones
    purge_kept
    [ ! -e "$STATE/tombstones/$REQUEST_ID.$ATTEMPT" ] || fail tombstone
    [ "$(timekeeper)" != none ] || fail no_timer
    if ! find_sshd || ! sshd_runs; then fail no_sshd; fi
    objection=$(sshd_accepts) || fail sshd_config "$objection"
    [ "$SUDO" = none ] || command -v visudo >/dev/null || fail no_sudo
    [ "$METADATA" = open ] || [ -n "$(wall_tools)" ] || fail no_firewall
}

# Sees whether the places that create writes to take a file.
check_disks() {
    for folder in /etc /var/lib /home; do
        [ -w "$folder" ] || fail read_only "$folder"
        if ! dd if=/dev/zero of="$folder/.passport-probe" bs=1024 count=64 2>/dev/null; then
            rm -f "$folder/.passport-probe"
            fail disk_full "$folder"
        fi
        rm -f "$folder/.passport-probe"
    done
}

# Takes up this request's own earlier user, or makes sure that the name and the home are nobody's.
recognise_account() {
    EXISTING=no
    found=$(account_id "$ASKED_NAME")
    if [ -f "$STATE/requests/$REQUEST_ID" ]; then
        load_marker "$REQUEST_ID" || fail marker
        [ "$USER_NAME" = "$ASKED_NAME" ] || fail foreign_account "$USER_NAME"
        if [ -n "$found" ]; then
            if [ "$found" != "$USER_ID" ] || ! has_mark; then fail foreign_account "$USER_NAME"; fi
            EXISTING=yes
        fi
        return
    fi
    if [ -n "$found" ] || getent group "$ASKED_NAME" >/dev/null ||
        grep -lqsx "user=$ASKED_NAME" "$STATE"/requests/AR-*; then
        fail foreign_account "$ASKED_NAME"
    fi
    USER_NAME=$ASKED_NAME
    HOME_DIR=$(cd -P /home && pwd)/$USER_NAME
    if [ -e "$HOME_DIR" ] || [ -L "$HOME_DIR" ]; then fail home_exists "$HOME_DIR"; fi
    DEAD_ID=$UID_LAST
    reserve_id
}

# The comment field names the request; sudo's users could change it, their own users cannot.
has_mark() { [ "$(getent passwd "$USER_NAME" | cut -d: -f5)" = "Passport $REQUEST_ID" ]; }

# Takes the next id that never was Passport's, nor is anybody's or in a subordinate range.
# The counter is on disk before the id is used: a crash wastes an id and never repeats one.
reserve_id() {
    USER_ID=$(cat "$STATE/next_uid" 2>/dev/null)
    if ! is_number "$USER_ID" || [ "$USER_ID" -lt "$UID_FIRST" ]; then USER_ID=$UID_FIRST; fi
    while [ "$USER_ID" -lt "$UID_LAST" ] && id_taken "$USER_ID"; do
        USER_ID=$((USER_ID + 1))
        beyond=$(subordinate_end "$USER_ID")
        if [ -n "$beyond" ]; then USER_ID=$beyond; fi
    done
    [ "$USER_ID" -lt "$UID_LAST" ] || fail uid_exhausted
    printf '%s\n' "$((USER_ID + 1))" | write_file "$STATE/next_uid" 600 || cannot_write "$STATE"
    sync
}

id_taken() {
    getent passwd "$1" >/dev/null || getent group "$1" >/dev/null || [ -n "$(subordinate_end "$1")" ] ||
        grep -lqsx "uid=$1" "$STATE"/requests/* "$STATE"/tombstones/*
}

# Prints the first id after the subordinate range that an id lies in.
subordinate_end() {
    cat /etc/subuid /etc/subgid 2>/dev/null |
        awk -F: -v id="$1" '$2 <= id && id < $2 + $3 && $2 + $3 > end { end = $2 + $3 } END { if (end) print end }'
}

# The marker says what is Passport's and when it ends; it is there before anything it speaks of.
write_marker() {
    MARKER=$STATE/requests/$REQUEST_ID
    case $SUDO,$(record_value "$MARKER" had_sudo) in
        all,* | *,all) had_sudo=all ;;
        none,named | /*) had_sudo=named ;;
        *) had_sudo=none ;;
    esac
    printf '%s\n' "user=$USER_NAME" "uid=$USER_ID" "attempt=$ATTEMPT" "home=$HOME_DIR" "uid_first=$UID_FIRST" \
        "dead_uid=$DEAD_ID" "had_sudo=$had_sudo" "metadata=$METADATA" "keep_days=$KEEP_HOME" \
        "not_after=$NOT_AFTER" "boot=$(boot_id)" \
        "ends_uptime=$((NOT_AFTER - $(now) + $(uptime_seconds)))" |
        write_file "$MARKER" 600 || cannot_write "$STATE"
}

# Fails, and takes back what a first create has made so far; an account that stood before stays.
# What cannot be taken back keeps its marker, and the timer goes on trying from the end of the request.
give_up() {
    if [ "$EXISTING" = no ]; then
        # shellcheck disable=SC2034 # removal.sh reads it: nobody has been in this home yet
        KEEP_DAYS=0
        if end_user; then forget_user; fi
    fi
    fail "$@"
}

make_account() {
    getent group "$USER_NAME" >/dev/null || retry groupadd -g "$USER_ID" "$USER_NAME" || give_up account "$SAID"
    if [ "$EXISTING" = no ]; then
        shell=/bin/bash
        [ -x "$shell" ] || shell=/bin/sh
        retry useradd -M -u "$USER_ID" -g "$USER_ID" -d "$HOME_DIR" -s "$shell" -c "Passport $REQUEST_ID" \
            "$USER_NAME" || give_up account "$SAID"
    fi
    strip_subordinate_ids "$USER_NAME"
    make_home || give_up account "$HOME_DIR"
    # No password fits "*", and unlike "!" it does not lock the account where sshd runs without PAM.
    retry usermod -p '*' "$USER_NAME" || give_up account "$SAID"
    # Counted in days: the next one, so that it never ends access early. The timer knows the second.
    retry chage -E "$((NOT_AFTER / 86400 + 1))" "$USER_NAME" || give_up account "$SAID"
    set_forwarding || give_up account "$SAID"
}

# Tries a change of the account files again while somebody else holds their lock; SAID is the last complaint.
retry() {
    for _ in 1 2 3 4 5; do
        SAID=$("$@" 2>&1) && return 0
        sleep 1
    done
    return 1
}

# Makes the home afresh; one that is there by now is this request's own, for its marker came first.
make_home() {
    [ ! -L "$HOME_DIR" ] || return 1
    [ -d "$HOME_DIR" ] || mkdir -m 700 "$HOME_DIR" || return 1
    [ "$(stat -c %u "$HOME_DIR")" != "$USER_ID" ] || return 0
    if [ -d /etc/skel ]; then cp -R /etc/skel/. "$HOME_DIR/"; fi
    if ! chmod 700 "$HOME_DIR" || ! chown -R -h "$USER_ID:$USER_ID" "$HOME_DIR"; then return 1; fi
    relabel -R "$HOME_DIR"
}

# Forwarding is a group that sshd's block knows, so that it needs no reload.
set_forwarding() {
    if [ "$FORWARDING" = yes ]; then
        getent group "$FORWARDING_GROUP" >/dev/null || retry groupadd -r "$FORWARDING_GROUP" || return 1
        retry usermod -a -G "$FORWARDING_GROUP" "$USER_NAME"
    elif id -nG "$USER_NAME" | tr ' ' '\n' | grep -qx "$FORWARDING_GROUP"; then
        retry gpasswd -d "$USER_NAME" "$FORWARDING_GROUP"
    fi
}

# Puts the block in where it is missing, checks it, and takes it back if sshd or another setting objects.
configure_sshd() {
    mkdir -p "$SSH_DIR/principals" || give_up read_only "$SSH_DIR"
    chmod 755 "$SSH_DIR" "$SSH_DIR/principals"
    relabel "$SSH_DIR" "$SSH_DIR/principals"
    trust_authority || give_up disk_full "$SSH_DIR"
    PLACE=block
    if sshd_includes; then PLACE=drop_in; fi
    if ! sshd_has_block "$PLACE"; then add_sshd_block; fi
    denial=$(sshd_denial "$USER_NAME")
    [ -z "$denial" ] || give_up deny_users "$denial"
    disabled=yes
    [ "$FORWARDING" = no ] || disabled=no
    objection=$(sshd_objection "$USER_NAME" "$disabled")
    [ -z "$objection" ] || give_up sshd_override "$objection"
}

# Writes the authority's keys, which sshd reads at each login and which all of Passport's users here share.
# A command that was late must not bring back keys that have been replaced meanwhile.
trust_authority() {
    known=$(sed -n 's/^# passport: generation //p' "$SSH_DIR/ca.pub" 2>/dev/null | head -n 1)
    if is_number "$known" && [ "$known" -gt "$CA_GENERATION" ]; then return 0; fi
    { printf '# passport: generation %s\n' "$CA_GENERATION" && printf '%s\n' "$CA_PUBLIC_KEY" | tr ',' '\n'; } |
        write_file "$SSH_DIR/ca.pub" 644
}

# Prints the fingerprints of the authority's keys that this server trusts.
trusted_authorities() { ssh-keygen -l -E sha256 -f "$SSH_DIR/ca.pub" | cut -d ' ' -f 2; }

add_sshd_block() {
    if ! write_sshd_block "$PLACE"; then
        [ -w "$SSHD_CONFIG" ] || give_up read_only "$SSHD_CONFIG"
        give_up disk_full "$SSHD_CONFIG"
    fi
    if ! objection=$(sshd_accepts); then
        erase_sshd_block
        give_up sshd_rejected "$objection"
    fi
    reload_sshd || give_up sshd_reload
}

# Allows sudo by a drop-in that visudo has checked, and sees that sudo reads it.
allow_sudo() {
    sudoers=/etc/sudoers.d/passport-$USER_NAME
    if [ "$SUDO" = none ]; then
        rm -f "$sudoers"
        return
    fi
    objection=$(command_objection)
    [ -z "$objection" ] || give_up sudo_command "$objection"
    sudo_rules >"$STATE/sudoers.new" || give_up disk_full "$STATE"
    objection=$(visudo -cf "$STATE/sudoers.new" 2>&1) || give_up sudoers "$objection"
    rm -f "$STATE/sudoers.new"
    sudo_rules | write_file "$sudoers" 440 || give_up read_only "$sudoers"
    objection=$(sudo_objection)
    [ -z "$objection" ] || give_up sudoers "$objection"
}

# Prints sudo's rules. A command without arguments means just that: sudo would take it for any arguments.
sudo_rules() {
    if [ "$SUDO" = all ]; then
        printf '%s ALL=(ALL:ALL) NOPASSWD: ALL\n' "$USER_NAME"
        return
    fi
    sudo_commands | while read -r path arguments; do
        printf '%s ALL=(root) NOPASSWD: %s %s\n' "$USER_NAME" "$path" \
            "$(printf '%s' "${arguments:-\"\"}" | sed 's/[:=]/\\&/g')"
    done
}

# Prints the named commands, a line each; none of them for all.
sudo_commands() {
    [ "$SUDO" = all ] || printf '%s\n' "$SUDO" | tr ',' '\n'
}

# Says which named command cannot be given: one that is missing, a shell behind another name, or one that somebody
# else than root could replace.
command_objection() {
    sudo_commands | while read -r path _; do
        target=$(readlink -f "$path")
        if [ ! -f "$target" ] || [ ! -x "$target" ]; then
            printf '%s is not there' "$path" && break
        fi
        case ${target##*/} in
            sh | bash | dash | ash | rbash | [cmz]sh | [cmz]sh-* | ksh* | mksh* | tcsh | fish | yash | busybox* | toybox* | \
                vi | vi[mew]* | nvim* | nano | emacs* | ed | less | more | env | sudo | su | awk | [gm]awk | python* | \
                perl* | ruby* | lua* | node | php*)
                printf '%s is %s' "$path" "$target" && break
                ;;
        esac
        for part in "$path" "$target"; do
            until [ "$part" = / ] || ! root_only "$part"; do part=$(dirname "$part"); done
            [ "$part" = / ] || { printf '%s is not only of root to change' "$part" && break 2; }
        done
    done
}

# Whether only root can change a file or folder, wherever a link leads.
root_only() { [ -n "$(find -L "$1" -prune -uid 0 ! -perm /022 2>/dev/null)" ]; }

# Says what sudo does not let the user do after all.
sudo_objection() {
    if [ "$SUDO" = all ]; then
        bounded sudo -n -l -U "$USER_NAME" 2>/dev/null | grep -q 'NOPASSWD: ALL' || printf '%s' "$sudoers"
        return
    fi
    sudo_commands | while read -r command; do
        # Its words are split on purpose; none of them is a pattern.
        # shellcheck disable=SC2086
        bounded sudo -n -l -U "$USER_NAME" $command >/dev/null 2>&1 </dev/null || { printf '%s' "$command" && break; }
    done
}

# The door opens last: sshd reads this file at each login.
open_door() {
    printf '%s\n' "$USER_NAME" | write_file "$SSH_DIR/principals/$USER_NAME" 644 || give_up disk_full "$SSH_DIR"
}

report_created() {
    answer uid "$USER_ID"
    answer existing "$EXISTING"
    answer not_after "$NOT_AFTER"
    answer now "$(now)"
    answer timer "$(timekeeper)"
    answer firewall "${WALL_TOOL:-none}"
    answer sshd "$PLACE"
    answer port "$("$SSHD" -T -f "$SSHD_CONFIG" 2>/dev/null | sed -n 's/^port //p' | head -n 1)"
    host_keys | while read -r key; do answer host_key "$key"; done
    trusted_authorities | while read -r key; do answer authority "$key"; done
    end_answer
}

# Prints type and base64 of up to four host keys, made from the private keys that sshd uses; the short ones first, as
# many as the answer has room for.
host_keys() {
    sshd_effective "$USER_NAME" | sed -n 's/^hostkey //p' | while read -r file; do
        ssh-keygen -y -P '' -f "$file" 2>/dev/null || cat "$file.pub" 2>/dev/null
    done | awk '/^(ssh-ed25519|ecdsa-sha2-nistp(256|384|521)|ssh-rsa) / && length($2) < 1000 { print length($2), $1, $2 }' |
        sort -nu | awk '(room += $1) < 1600 { print $2, $3 }' | head -n 4
}

create_main() {
    begin_answer create
    check_parameters
    answer request "$REQUEST_ID"
    answer user "$ASKED_NAME"
    check_server
    recognise_account
    write_marker
    install_timer || give_up no_timer
    raise_wall || give_up no_firewall
    make_account
    configure_sshd
    allow_sudo
    open_door
    if [ "$((NOT_AFTER - $(now)))" -le 65 ]; then start_sweeper; fi
    report_created
}

create_main
