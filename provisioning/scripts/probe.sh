#!/bin/sh
# The probe document: looks, changes nothing, and says whether this server could take a Passport user.

report_system() {
    answer os "$(sed -n 's/^\(ID\|VERSION_ID\)=//p' /etc/os-release | tr -d '"' | tr '\n' ' ' | cut -c1-80)"
    answer now "$(now)"
    answer timer "$(timekeeper)"
    for folder in /etc /var/lib /home; do
        [ -w "$folder" ] || answer read_only "$folder"
        answer free_kb "$folder $(df -Pk "$folder" | awk 'NR == 2 { print $4 }')"
    done
    for tool in useradd userdel chage flock visudo; do
        command -v "$tool" >/dev/null || answer missing "$tool"
    done
    answer shell "$(readlink -f /bin/sh | cut -c1-60)"
    answer firewalls "$(wall_tools | tr '\n' ' ')"
    if command -v getenforce >/dev/null; then answer selinux "$(getenforce | tr '[:upper:]' '[:lower:]' | cut -c1-20)"; fi
    if command -v sudo >/dev/null; then answer sudo_version "$(sudo -V 2>/dev/null | sed -n '1s/.* //p' | cut -c1-20)"; fi
    for file in /etc/nologin /run/nologin; do
        [ ! -e "$file" ] || answer no_logins "$file"
    done
}

report_sshd() {
    if ! find_sshd; then
        answer sshd absent
        return
    fi
    answer sshd_version "$("$SSHD" -V 2>&1 | grep -o 'OpenSSH_[0-9A-Za-z.]*' | head -n 1)"
    if ! sshd_runs; then
        answer sshd stopped
    elif sshd_accepts >/dev/null; then
        answer sshd running
    else
        answer sshd broken
    fi
    if sshd_includes; then answer include yes; else answer include no; fi
    effective=$(sshd_effective pp-0000)
    answer use_pam "$(printf '%s\n' "$effective" | sed -n 's/^usepam //p')"
    for setting in allowusers allowgroups denyusers denygroups; do
        count=$(printf '%s\n' "$effective" | grep -c "^$setting ")
        [ "$count" = 0 ] || answer "$setting" "$count"
    done
    denial=$(sshd_denial pp-0000)
    [ -z "$denial" ] || answer denies "$(printf '%s' "$denial" | cut -c1-100)"
}

report_kept() {
    count=0
    for place in "$STATE/kept"/AR-*; do
        [ ! -d "$place" ] || count=$((count + 1))
    done
    answer homes_kept "$count"
}

# Up to twenty users with request, id and end; then how many more there are.
report_users() {
    shown=0
    for file in "$STATE"/requests/AR-*; do
        [ -f "$file" ] || continue
        shown=$((shown + 1))
        [ "$shown" -le 20 ] || continue
        answer account "${file##*/} $(record_value "$file" user) $(record_value "$file" uid) $(record_value "$file" not_after)"
    done
    answer accounts "$shown"
}

probe_main() {
    begin_answer probe
    check_parameters
    [ "$(id -u)" = 0 ] || fail not_root
    report_system
    report_sshd
    report_kept
    report_users
    end_answer
}

probe_main
