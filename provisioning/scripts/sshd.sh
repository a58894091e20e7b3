#!/bin/sh
# Passport's part of sshd's settings: one block for pp-*, put in with the first user, taken out with the last.
# The principals files are read at each login, so that a further user needs no reload.

SSH_DIR=/etc/ssh/passport
DROP_IN=/etc/ssh/sshd_config.d/00-passport.conf
FORWARDING_GROUP=passport-fwd
BLOCK_BEGIN='# passport: begin'
BLOCK_END='# passport: end'

# Prints the block. A Match block beats global settings, and the first Match block beats later ones.
# AllowUsers and AllowGroups stand in it because global ones would refuse the users otherwise.
sshd_block() {
    printf '%s\n' "$BLOCK_BEGIN
Match User pp-* Group $FORWARDING_GROUP
    DisableForwarding no
    AllowTcpForwarding yes
    AllowAgentForwarding yes
Match User pp-*
    TrustedUserCAKeys $SSH_DIR/ca.pub
    AuthorizedPrincipalsFile $SSH_DIR/principals/%u
    AuthorizedPrincipalsCommand none
    AuthorizedKeysFile none
    AuthorizedKeysCommand none
    AuthenticationMethods publickey
    PubkeyAuthentication yes
    PasswordAuthentication no
    KbdInteractiveAuthentication no
    AllowUsers pp-*
    AllowGroups pp-*
    PermitUserRC no
    DisableForwarding yes
    X11Forwarding no
    PermitTunnel no
    GatewayPorts no
Match all
$BLOCK_END"
}

# Finds sshd's program, its listening process and the settings file that this process reads.
find_sshd() {
    SSHD=$(command -v sshd) || return 1
    SSHD_CONFIG=/etc/ssh/sshd_config
    [ -f "$SSHD_CONFIG" ] || SSHD_CONFIG=/usr/etc/ssh/sshd_config
    SSHD_PID=$(sshd_listener) || SSHD_PID=
    if [ -n "$SSHD_PID" ]; then
        named=$(tr '\0' ' ' <"/proc/$SSHD_PID/cmdline" | sed -n 's/.* -f *\([^ ]*\).*/\1/p')
        SSHD_CONFIG=${named:-$SSHD_CONFIG}
    fi
    SSHD_CONFIG=$(readlink -f "$SSHD_CONFIG")
    # sshd -t wants it, and a server with socket activation has it only while somebody is logged in.
    [ -d /run/sshd ] || mkdir -m 755 /run/sshd 2>/dev/null
    [ -f "$SSHD_CONFIG" ]
}

# Prints the number of root's listening sshd, not of its sessions.
sshd_listener() {
    for folder in /proc/[0-9]*; do
        { read -r name <"$folder/comm"; } 2>/dev/null || continue
        [ "$name" = sshd ] || continue
        grep -q '^Uid:[[:space:]]*0[[:space:]]' "$folder/status" 2>/dev/null || continue
        case $(tr '\0' ' ' 2>/dev/null <"$folder/cmdline") in
            *' -R '*) ;;
            'sshd: '*'[listener]'*) printf '%s\n' "${folder#/proc/}" && return 0 ;;
            'sshd: '* | '') ;;
            *) printf '%s\n' "${folder#/proc/}" && return 0 ;;
        esac
    done
    return 1
}

# Whether somebody could log in at all: a listener, or a socket of systemd that starts one.
sshd_runs() {
    [ -n "$SSHD_PID" ] && return 0
    systemd_runs || return 1
    systemctl is-active --quiet ssh.socket || systemctl is-active --quiet sshd.socket
}

sshd_accepts() { "$SSHD" -t -f "$SSHD_CONFIG" 2>&1; }

# Prints the settings that would hold for one user who comes through the tunnel.
sshd_effective() {
    "$SSHD" -T -f "$SSHD_CONFIG" -C "user=$1,host=localhost,addr=127.0.0.1,laddr=127.0.0.1,lport=22" 2>/dev/null
}

# Whether the settings file includes the folder of drop-ins.
sshd_includes() {
    [ -d "${DROP_IN%/*}" ] &&
        grep -Eiq '^[[:space:]]*Include[[:space:]=].*(/etc/ssh/)?sshd_config\.d/\*' "$SSHD_CONFIG"
}

# Says why the block does not hold for a user; silent when it does.
sshd_objection() {
    effective=$(sshd_effective "$1")
    for line in "trustedusercakeys $SSH_DIR/ca.pub" "authorizedprincipalsfile $SSH_DIR/principals/%u" \
        'authorizedkeysfile none' 'authorizedkeyscommand none' 'authenticationmethods publickey' \
        "disableforwarding $2" 'permituserrc no' 'allowusers pp-*' 'allowgroups pp-*'; do
        printf '%s\n' "$effective" | grep -Fqx -e "$line" || printf '%s; ' "${line%% *}"
    done
}

# Prints the DenyUsers or DenyGroups pattern that shuts this user out, if there is one.
sshd_denial() {
    sshd_effective "$1" | sed -n 's/^deny\(users\|groups\) //p' | tr ' ' '\n' | while read -r pattern; do
        # The pattern is meant as one: sshd's * and ? are the shell's.
        # shellcheck disable=SC2254
        case $1 in ${pattern%%@*}) printf '%s\n' "$pattern" && break ;; esac
    done
}

# Writes the block to the drop-in or, where nothing includes drop-ins, to the end of the settings file.
# The end is the safe place: a Match block there changes nothing above it. A cert-authority line in an
# AuthorizedKeysFile would do without, but it is in the person's home, and has none of the other settings.
write_sshd_block() {
    if [ "$1" = drop_in ]; then
        sshd_block | write_file "$DROP_IN" 600
    else
        { sshd_config_without_block && sshd_block; } | replace_sshd_config
    fi
}

# Prints the settings file without Passport's block.
sshd_config_without_block() {
    awk -v begin="$BLOCK_BEGIN" -v end="$BLOCK_END" '
        $0 == begin { inside = 1 } !inside { print } $0 == end { inside = 0 }
    ' "$SSHD_CONFIG"
}

# Replaces the settings file in one step, keeping its owner and mode.
replace_sshd_config() {
    cp -p "$SSHD_CONFIG" "$SSHD_CONFIG.passport-new" && cat >"$SSHD_CONFIG.passport-new" &&
        [ -s "$SSHD_CONFIG.passport-new" ] && mv -f "$SSHD_CONFIG.passport-new" "$SSHD_CONFIG" &&
        relabel "$SSHD_CONFIG" && return 0
    rm -f "$SSHD_CONFIG.passport-new"
    return 1
}

sshd_has_block() {
    case $1 in
        drop_in) [ "$(cat "$DROP_IN" 2>/dev/null)" = "$(sshd_block)" ] ;;
        block) [ "$(sed -n "/^$BLOCK_BEGIN\$/,/^$BLOCK_END\$/p" "$SSHD_CONFIG")" = "$(sshd_block)" ] ;;
    esac
}

# Takes the block out of both places; true if something changed.
erase_sshd_block() {
    changed=1
    if [ -f "$DROP_IN" ]; then rm -f "$DROP_IN" && changed=0; fi
    if grep -Fqx -e "$BLOCK_BEGIN" "$SSHD_CONFIG"; then
        sshd_config_without_block | replace_sshd_config && changed=0
    fi
    return "$changed"
}

# Makes a running sshd read its settings again, and waits until it listens. It is never started.
reload_sshd() {
    [ -n "$SSHD_PID" ] || return 0
    sshd_accepts >/dev/null || return 1
    sockets=$(sshd_sockets)
    reloaded=no
    if systemd_runs; then
        for unit in ssh.service sshd.service; do
            [ "$reloaded" = no ] && [ "$(systemctl show -p MainPID "$unit" 2>/dev/null)" = "MainPID=$SSHD_PID" ] &&
                bounded systemctl reload "$unit" && reloaded=yes
        done
    fi
    [ "$reloaded" = yes ] || kill -HUP "$SSHD_PID" || return 1
    for try in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25; do
        if [ "$try" -le 15 ]; then sleep 0.1 2>/dev/null || sleep 1; else sleep 1; fi
        anew=$(sshd_sockets)
        # It opens them anew, except those that systemd gave it.
        if [ -n "$anew" ] && { [ "$anew" != "$sockets" ] || [ "$try" -ge 10 ]; }; then return 0; fi
    done
    return 1
}

# Prints the inodes of the sockets that listen on sshd's ports.
sshd_sockets() {
    for port in $("$SSHD" -T -f "$SSHD_CONFIG" 2>/dev/null | sed -n 's/^port //p'); do
        awk -v port="$(printf '%04X' "$port")" \
            '{ n = split($2, address, ":") } address[n] == port && $4 == "0A" { print $10 }' \
            /proc/net/tcp /proc/net/tcp6 2>/dev/null
    done
}

# Takes everything of Passport out of sshd's settings, with the last user.
remove_sshd_settings() {
    if find_sshd; then
        if erase_sshd_block; then reload_sshd; fi
    else
        rm -f "$DROP_IN"
    fi
    rm -rf "$SSH_DIR"
    if getent group "$FORWARDING_GROUP" >/dev/null; then groupdel "$FORWARDING_GROUP"; fi
}
