#!/bin/sh
# Keeps Passport's users from the instance metadata service: with the instance's credentials, which it hands out, a
# person could answer Run Command in the server's name. One wall for the whole range of ids, so that there is no rule
# per user; those whom policy lets through are excepted. A reboot forgets it: the sweeper puts it up again.

# "Use the instance metadata service", Amazon EC2 User Guide: its two addresses.
METADATA_4=169.254.169.254
METADATA_6=fd00:ec2::254
WALL=passport
# Of ip rule: before the routing tables, after the local one; the exceptions come one earlier.
WALL_PRIORITY=16925

# Prints what could make a wall here, best first; ip comes with every distribution, the others do not.
wall_tools() {
    if command -v nft >/dev/null; then printf 'nft\n'; fi
    if command -v iptables >/dev/null && command -v iptables-restore >/dev/null &&
        { ! has_ipv6 || command -v ip6tables-restore >/dev/null; }; then
        printf 'iptables\n'
    fi
    if command -v ip >/dev/null; then printf 'ip\n'; fi
}

has_ipv6() { [ -f /proc/net/if_inet6 ]; }

# Prints the range to wall in, as first-last, and then each id that is let through; nothing when all are.
wall_plan() {
    set -- "$STATE"/requests/AR-*
    [ -f "$1" ] || return 0
    awk -F= '
        FNR == 1 { n++ }
        $2 !~ /^([0-9]+|open)$/ { next }
        $1 == "uid" { uid[n] = $2; if (!first[n]) first[n] = $2 }
        $1 == "uid_first" { first[n] = $2 }
        $1 == "dead_uid" { last[n] = $2 }
        $1 == "metadata" { open[n] = 1 }
        END {
            for (i = 1; i <= n; i++) {
                if (!uid[i]) continue
                if (!low || first[i] + 0 < low) low = first[i] + 0
                if (last[i] + 0 > high) high = last[i] + 0
                if (!open[i]) closed = 1
            }
            if (!closed) exit
            printf "%d-%d\n", low, high
            for (i = 1; i <= n; i++) if (open[i] && uid[i]) print uid[i]
        }' "$@"
}

# Makes the wall as the records want it; false when nothing here can. WALL_TOOL says what it is made of.
raise_wall() {
    WALL_TOOL=
    plan=$(wall_plan)
    if [ -z "$plan" ]; then
        take_wall_down
        return
    fi
    range=$(printf '%s\n' "$plan" | head -n 1)
    excepted=$(printf '%s\n' "$plan" | sed 1d)
    for tool in $(wall_tools); do
        if "raise_$tool" 2>/dev/null && "stands_$tool" "$range"; then
            WALL_TOOL=$tool
            break
        fi
    done
    [ -n "$WALL_TOOL" ] || return 1
    earlier=$(wall_made_of)
    [ "$earlier" != "$WALL_TOOL" ] || return 0
    # What another tool made the last time goes once this one's stands.
    [ -z "$earlier" ] || "raze_$earlier" 2>/dev/null
    printf '%s\n' "$WALL_TOOL" | write_file "$STATE/wall" 600
}

# Prints which tool made the wall that is up; nothing when there is none.
wall_made_of() { sed -n '/^\(nft\|iptables\|ip\)$/p' "$STATE/wall" 2>/dev/null | head -n 1; }

# Takes the wall down and looks whether it is gone; what is not there needs nothing.
take_wall_down() {
    earlier=$(wall_made_of)
    if [ -n "$earlier" ]; then
        "raze_$earlier" 2>/dev/null
        if "found_$earlier" 2>/dev/null; then return 1; fi
    fi
    rm -f "$STATE/wall"
}

# One transaction: there is no moment without a wall.
raise_nft() {
    {
        printf 'table inet %s\ndelete table inet %s\ntable inet %s {\n' "$WALL" "$WALL" "$WALL"
        printf 'chain output {\ntype filter hook output priority -10;\n'
        for id in $excepted; do printf 'meta skuid %s accept\n' "$id"; done
        printf 'meta skuid %s ip daddr %s reject\n' "$range" "$METADATA_4"
        printf 'meta skuid %s ip6 daddr %s reject\n}\n}\n' "$range" "$METADATA_6"
    } | nft -f -
}

stands_nft() {
    [ "$(nft -n list table inet "$WALL" 2>/dev/null | grep -c "skuid $1 ip.* reject")" = 2 ]
}

found_nft() { nft list table inet "$WALL"; }

raze_nft() { nft delete table inet "$WALL"; }

raise_iptables() {
    restore_iptables iptables "$METADATA_4" || return 1
    ! has_ipv6 || restore_iptables ip6tables "$METADATA_6"
}

# The chain changes in one transaction; the jump to it is before everybody else's rules.
restore_iptables() {
    {
        printf '*filter\n:%s - [0:0]\n' "$WALL"
        for id in $excepted; do printf -- '-A %s -m owner --uid-owner %s -j RETURN\n' "$WALL" "$id"; done
        printf -- '-A %s -m owner --uid-owner %s -j REJECT\nCOMMIT\n' "$WALL" "$range"
    } | "$1-restore" --noflush || return 1
    "$1" -C OUTPUT -d "$2" -j "$WALL" || "$1" -I OUTPUT 1 -d "$2" -j "$WALL"
}

stands_iptables() {
    iptables -S "$WALL" 2>/dev/null | grep -q -e "--uid-owner $1 -j REJECT" || return 1
    ! has_ipv6 || ip6tables -S "$WALL" 2>/dev/null | grep -q -e "--uid-owner $1 -j REJECT"
}

found_iptables() {
    iptables -S "$WALL" || { has_ipv6 && ip6tables -S "$WALL"; }
}

raze_iptables() {
    for each in "iptables $METADATA_4" "ip6tables $METADATA_6"; do
        command -v "${each% *}" >/dev/null || continue
        while "${each% *}" -D OUTPUT -d "${each#* }" -j "$WALL"; do :; done
        "${each% *}" -F "$WALL"
        "${each% *}" -X "$WALL"
    done
}

# A route for a range of users, which the kernel knows since 4.10: where no firewall is installed.
raise_ip() {
    raise_ip_rules -4 "$METADATA_4" || return 1
    ! has_ipv6 || raise_ip_rules -6 "$METADATA_6"
}

raise_ip_rules() {
    if ! ip_rules "$1" "$WALL_PRIORITY" | grep -q "uidrange $range "; then
        add_ip_rule "$1" pref "$WALL_PRIORITY" to "$2" uidrange "$range" prohibit || return 1
    fi
    drop_ip_rules "$1" "$((WALL_PRIORITY - 1))"
    for id in $excepted; do
        add_ip_rule "$1" pref "$((WALL_PRIORITY - 1))" to "$2" uidrange "$id-$id" lookup main || return 1
    done
}

# The kernel's own protocol is what systemd-networkd leaves alone when it clears foreign rules; old ip knows none.
add_ip_rule() {
    family=$1
    shift
    ip "$family" rule add "$@" protocol kernel || ip "$family" rule add "$@"
}

ip_rules() { ip "$1" rule show 2>/dev/null | grep "^$2:" | sed 's/$/ /'; }

drop_ip_rules() {
    for _ in $(ip_rules "$1" "$2" | sed 's/:.*//'); do
        ip "$1" rule del pref "$2"
    done
}

stands_ip() {
    ip_rules -4 "$WALL_PRIORITY" | grep -q "to $METADATA_4 uidrange $1 .*prohibit" || return 1
    ! has_ipv6 || ip_rules -6 "$WALL_PRIORITY" | grep -q "to $METADATA_6 uidrange $1 .*prohibit"
}

found_ip() {
    for each in -4 -6; do
        [ -z "$(ip_rules "$each" "$WALL_PRIORITY")" ] || return 0
    done
    return 1
}

raze_ip() {
    for each in -4 -6; do
        drop_ip_rules "$each" "$WALL_PRIORITY"
        drop_ip_rules "$each" "$((WALL_PRIORITY - 1))"
    done
}
