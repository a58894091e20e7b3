#!/bin/sh
# Removing one user whole, and proving it. Used by the remove document, by the sweeper on the server, and to
# take back a create that failed. It works on USER_NAME, USER_ID, HOME_DIR, DEAD_ID and KEEP_DAYS of the request's marker.

WARNED=$STATE/warned
KEEP_DAYS=0
KILLED=0
FILES=0
MOUNTS=0
JOBS=0
ENDED_AT=0
WALL_STATE=none
LEFT=

# Loads the marker of a request; false when there is none that can be believed.
load_marker() {
    MARKER=$STATE/requests/$1
    [ -f "$MARKER" ] || return 1
    USER_NAME=$(record_value "$MARKER" user)
    USER_ID=$(record_value "$MARKER" uid)
    HOME_DIR=$(record_value "$MARKER" home)
    DEAD_ID=$(record_value "$MARKER" dead_uid)
    KEEP_DAYS=$(record_value "$MARKER" keep_days)
    is_number "$KEEP_DAYS" || KEEP_DAYS=0
    case $USER_NAME in pp-*) ;; *) return 1 ;; esac
    case $HOME_DIR in '' | /*/"$USER_NAME") ;; *) return 1 ;; esac
    # A number below 10000 would kill the server's own processes.
    is_number "$USER_ID" && is_number "$DEAD_ID" && [ "$USER_ID" -ge 10000 ] && [ "$DEAD_ID" -ge 10000 ]
}

# Recalls a user who is gone, so that it can be verified again.
load_tombstone() {
    USER_ID=$(record_value "$1" uid)
    HOME_DIR=
}

# Ends access, sweeps the server, verifies. True when nothing is left; LEFT names what is.
end_user() {
    close_door
    kill_processes
    stop_sessions
    clear_jobs
    kill_processes
    ENDED_AT=$(now)
    unmount_all
    clear_jobs
    remove_shared_memory
    remove_home
    sweep_files
    remove_account
    kill_processes
    drop_login_note
    verify_gone && return 0
    case ,$LEFT, in *,files,*) sweep_stubborn_files ;; *) return 1 ;; esac
    verify_gone
}

# Takes the marker away and, with the last user, sshd's settings, the wall and, unless homes are kept, the timer.
# A wall that does not go keeps the timer, which tries again.
forget_user() {
    rm -f "$MARKER" "$WARNED/${MARKER##*/}.10" "$WARNED/${MARKER##*/}.2"
    if requests_left; then
        raise_wall
        WALL_STATE=stays
        return
    fi
    leave_server
}

# Takes away what only users need; an interrupted removal is completed by the next command or the sweeper.
leave_server() {
    rm -rf "$WARNED"
    remove_sshd_settings
    [ ! -f "$STATE/wall" ] || WALL_STATE=removed
    take_wall_down && { has_kept_homes || remove_timer; }
}

# No new login, no new sudo. Expiry is what sshd honours; a locked password alone is not.
close_door() {
    rm -f "$SSH_DIR/principals/$USER_NAME" "/etc/sudoers.d/passport-$USER_NAME"
    [ "$(account_id "$USER_NAME")" = "$USER_ID" ] || return 0
    chage -E 1 "$USER_NAME"
    usermod -L -s "$(nologin_shell)" "$USER_NAME" 2>/dev/null
}

# Prints the shell that lets nobody in: in /usr/sbin on Debian and SUSE, in /sbin on older Red Hats.
nologin_shell() {
    for shell in /usr/sbin/nologin /sbin/nologin /usr/bin/false /bin/false; do
        [ ! -x "$shell" ] || break
    done
    printf '%s\n' "$shell"
}

# Lets systemd forget its sessions and its user manager; asked before the kill, it could be too busy to answer.
stop_sessions() {
    systemd_runs || return 0
    bounded loginctl disable-linger "$USER_NAME"
    bounded loginctl terminate-user "$USER_NAME"
    bounded systemctl stop "user@$USER_ID.service"
    bounded systemctl reset-failed "user@$USER_ID.service"
} 2>/dev/null

# Kills all that runs as the user in one stroke of the kernel (kill(2), -1): what forks faster than anybody can look
# outruns a list of numbers. There may be more of them than the limit lets a further one become the user.
kill_at_once() {
    prlimit --pid "$$" --nproc=unlimited
    # shellcheck disable=SC2016 # the inner shell, which is the user by then, looks at itself
    setpriv --reuid "$USER_ID" --regid "$USER_ID" --clear-groups sh -c '
        while read -r key real effective _; do [ "$key" != Uid: ] || break; done </proc/self/status
        [ "$real $effective" != "$0 $0" ] || kill -9 -1' "$USER_ID"
    return 0
} 2>/dev/null

# Kills until nothing is found: stopped first, so that nothing forks away meanwhile.
kill_processes() {
    seen=' '
    round=0
    while pids=$(user_processes) && kill_at_once && [ -n "$pids" ]; do
        for pid in $pids; do
            kill -STOP "$pid" 2>/dev/null
        done
        for pid in $pids; do
            kill -KILL "$pid" 2>/dev/null
            case $seen in *" $pid "*) ;; *) seen="$seen$pid " KILLED=$((KILLED + 1)) ;; esac
        done
        round=$((round + 1))
        [ "$round" -le 30 ] || return 1
        [ "$round" -le 3 ] || sleep 1
    done
}

# Prints every process of the user: by any of its user ids, by login id (what sudo started keeps it),
# by cgroup, and by sudo's mark in the environment where logins have no login id (UsePAM no).
user_processes() {
    own=" 1 $(own_processes) "
    {
        for folder in /proc/[0-9]*; do
            if process_matches "${folder#/proc/}"; then printf '%s\n' "${folder#/proc/}"; fi
        done
        grep -lsz "^SUDO_UID=$USER_ID\$" /proc/[0-9]*/environ | cut -d/ -f3
    } | while read -r pid; do
        case $own in *" $pid "*) continue ;; esac
        is_servers_own "$pid" || printf '%s\n' "$pid"
    done
}

# Whether it is cron or sshd itself, which somebody has restarted through sudo: without them nobody's access would end,
# and nobody could come in. Their children, each login among them, are not.
is_servers_own() {
    case $(readlink "/proc/$1/exe") in /usr/sbin/cron | /usr/sbin/crond | /usr/sbin/sshd) ;; *) return 1 ;; esac
    grep -q '^PPid:[[:space:]]*1$' "/proc/$1/status" && grep -q '^Uid:[[:space:]]*0[[:space:]]*0[[:space:]]' "/proc/$1/status"
} 2>/dev/null

# Prints this program and those that started it: the agent must live to tell the end.
own_processes() {
    pid=$$
    while is_number "$pid" && [ "$pid" -gt 1 ]; do
        printf '%s ' "$pid"
        pid=$(sed -n 's/^PPid:[[:space:]]*//p' "/proc/$pid/status" 2>/dev/null)
    done
}

process_matches() {
    process_lives "$1" || return 1
    { read -r login <"/proc/$1/loginuid"; } 2>/dev/null && [ "$login" = "$USER_ID" ] && return 0
    while read -r key real effective saved file; do
        [ "$key" = Uid: ] || continue
        case " $real $effective $saved $file " in *" $USER_ID "*) return 0 ;; esac
        break
    done 2>/dev/null <"/proc/$1/status"
    while read -r line; do
        case $line in
            */"user-runtime-dir@$USER_ID.service") ;; # systemd's own, which clears /run/user and then ends
            */"user-$USER_ID.slice"*) return 0 ;;
        esac
    done 2>/dev/null <"/proc/$1/cgroup"
    return 1
}

# A zombie waits for its parent only, unless just its first thread is dead.
process_lives() {
    while read -r key letter _; do
        [ "$key" = State: ] || continue
        [ "$letter" = Z ] || return 0
        set -- "/proc/$1/task"/*
        [ "$#" -gt 1 ]
        return
    done 2>/dev/null <"/proc/$1/status"
    return 1
}

# Prints the mount points of the user, as mountinfo writes them: FUSE mounts, and all under the home.
user_mounts() {
    awk -v uid="$USER_ID" -v home="$HOME_DIR" '
        function under(point, top) { return top != "" && (point == top || index(point, top "/") == 1) }
        index("," $NF ",", ",user_id=" uid ",") || under($5, home) || under($5, "/run/user/" uid) { print $5 }
    ' /proc/self/mountinfo | sort -r
}

# Puts the name that mountinfo writes with octal escapes into NAME, with the newlines that it may end in.
unescape() {
    # The name is the format on purpose: only printf's format knows \040.
    # shellcheck disable=SC2059
    NAME=$(printf "$(printf '%s' "$1" | sed 's/%/%%/g')x")
    NAME=${NAME%x}
}

# Names are the user's to choose: none of them is a pattern here, and none is looked up on the way to umount(2).
unmount_all() {
    set -f
    for _ in 1 2 3 4 5; do
        points=$(user_mounts)
        [ -n "$points" ] || break
        for point in $points; do
            unescape "$point"
            bounded umount -c -l -- "$NAME" && MOUNTS=$((MOUNTS + 1))
        done
    done
    set +f
    drop_login_note
    if [ -d "/run/user/$USER_ID" ] && [ -z "$(user_mounts)" ]; then rm -rf "/run/user/$USER_ID"; fi
}

# logind's note of the user, which it would keep for another ten seconds, and writes anew for each session that ends.
drop_login_note() { rm -f "/run/systemd/users/$USER_ID"; }

# Prints the files that would start something for the user later: crontabs, at jobs, lingering.
job_files() {
    for file in "/var/spool/cron/crontabs/$USER_NAME" "/var/spool/cron/tabs/$USER_NAME" \
        "/var/spool/cron/$USER_NAME" "/var/lib/systemd/linger/$USER_NAME"; do
        [ -f "$file" ] && printf '%s\n' "$file"
    done
    for spool in /var/spool/cron/atjobs /var/spool/cron/atspool /var/spool/at /var/spool/atjobs; do
        [ -d "$spool" ] && find "$spool" -type f -uid "$USER_ID"
    done
}

clear_jobs() {
    for file in $(job_files); do
        rm -f "$file" && JOBS=$((JOBS + 1))
    done
    rm -f "/var/mail/$USER_NAME" "/var/spool/mail/$USER_NAME" "/run/sudo/ts/$USER_NAME" \
        "/run/sudo/ts/$USER_ID" "/var/lib/sudo/lectured/$USER_NAME" "/var/lib/sudo/lectured/$USER_ID"
}

# System V memory, semaphores and queues belong to nobody's process and would stay.
remove_shared_memory() {
    command -v ipcrm >/dev/null || return 0
    shared_memory | while read -r kind id; do
        case $kind in shm) ipcrm -m "$id" ;; sem) ipcrm -s "$id" ;; msg) ipcrm -q "$id" ;; esac
    done
} 2>/dev/null

# Prints kind and number of what belongs to the user or was made by them: an owner may name another one (IPC_SET).
shared_memory() {
    for kind in shm sem msg; do
        awk -v uid="$USER_ID" -v kind="$kind" '
            NR == 1 { for (i = 1; i <= NF; i++) column[$i] = i }
            NR > 1 && ($column["uid"] == uid || $column["cuid"] == uid) { print kind, $2 }
        ' "/proc/sysvipc/$kind"
    done
} 2>/dev/null

# Removes or keeps the home that create made; never through a link, never while something is mounted in it.
remove_home() {
    [ -n "$HOME_DIR" ] || return 0
    if [ -L "$HOME_DIR" ] || [ ! -d "$HOME_DIR" ]; then
        rm -f "$HOME_DIR"
        return
    fi
    [ -z "$(user_mounts)" ] || return 1
    if [ "$KEEP_DAYS" -gt 0 ]; then
        keep_home
        return
    fi
    rm -rf "$HOME_DIR" 2>/dev/null && return 0
    chattr -R -f -i -a "$HOME_DIR"
    rm -rf "$HOME_DIR"
}

# Prints where a user could have left a file: every local mount that can be written.
# An overlay other than / is skipped: its layers are found where they are stored.
local_mounts() {
    awk '
        { for (i = 7; $i != "-"; i++); type = $(i + 1); split($NF, super, ",") }
        super[1] == "ro" || (type == "overlay" && $5 != "/") { next }
        type !~ /^(ext[234]|xfs|btrfs|f2fs|zfs|jfs|reiserfs|bcachefs|tmpfs|ramfs|devtmpfs|overlay|hugetlbfs|mqueue)$/ { next }
        { point[NR] = $5; device[NR] = $3; root[NR] = $4; if ($4 == "/") whole[$3] = 1 }
        END { for (n = 1; n <= NR; n++) if (n in point && (root[n] == "/" || !(device[n] in whole))) print point[n] }
    ' /proc/self/mountinfo
}

# Runs find on every local mount; the tests and actions are the arguments.
find_everywhere() {
    set -f
    for mounted in $(local_mounts); do
        unescape "$mounted"
        find "$NAME" -xdev ! -type b ! -type c "$@" 2>/dev/null
    done
    set +f
}

files_left() { find_everywhere \( -uid "$USER_ID" -o -gid "$USER_ID" \) -print | head -n 50; }

# Deletes in the shared temporary folders and gives the rest to an id that nobody ever gets.
# Changing the owner also takes set-uid bits and capabilities away; a hard link is its file.
sweep_files() {
    FILES=$(find_everywhere \( -uid "$USER_ID" -o -gid "$USER_ID" \) -print | wc -l)
    FILES=$((FILES + 0))
    [ "$FILES" -gt 0 ] || return 0
    for folder in /tmp /var/tmp /dev/shm /dev/mqueue /run/lock /run/screen; do
        [ -d "$folder" ] && find "$folder/." -xdev -depth -uid "$USER_ID" -delete 2>/dev/null
    done
    give_away_files
}

# Files that were made unchangeable, which takes root.
sweep_stubborn_files() {
    find_everywhere \( -uid "$USER_ID" -o -gid "$USER_ID" \) -execdir chattr -f -i -a {} +
    give_away_files
}

# From inside each folder: whoever owns one could put a link in its place meanwhile.
# The group of those who may forward has members to come, too.
give_away_files() {
    shared=$(getent group "$FORWARDING_GROUP" | cut -d: -f3)
    find_everywhere \
        \( ! \( -gid "$USER_ID" -o -uid "$USER_ID" -gid "${shared:-$USER_ID}" \) -o -execdir chgrp -h "$DEAD_ID" {} + \) \
        -uid "$USER_ID" -execdir chown -h "$DEAD_ID" {} +
}

# Removes account and group. 6 means there is none; 8 that something of it still runs.
remove_account() {
    for try in 1 2 3 4 5 6; do
        [ "$(account_id "$USER_NAME")" = "$USER_ID" ] || break
        if [ "$try" = 6 ]; then userdel -f "$USER_NAME"; else userdel "$USER_NAME"; fi
        case $? in
            0 | 6) break ;;
            8) kill_processes ;;
            *) sleep 1 ;;
        esac
    done
    if [ "$(getent group "$USER_NAME" | cut -d: -f3)" = "$USER_ID" ]; then groupdel "$USER_NAME"; fi
    strip_subordinate_ids "$USER_NAME"
}

# Takes the ranges away that useradd may give: a process under one would outlive the user unseen.
strip_subordinate_ids() {
    for table in /etc/subuid /etc/subgid; do
        if grep -qs "^$1:" "$table"; then
            grep -v "^$1:" "$table" | write_file "$table" 644
        fi
    done
}

# Looks for every trace again; LEFT names the kinds found. What was found once is not believed gone.
verify_gone() {
    LEFT=
    for table in /etc/passwd /etc/group /etc/shadow /etc/gshadow /etc/subuid /etc/subgid; do
        if grep -qs "^$USER_NAME:" "$table"; then note_left account; fi
    done
    if getent passwd "$USER_NAME" >/dev/null; then note_left account; fi
    [ ! -e "$SSH_DIR/principals/$USER_NAME" ] || note_left principals
    [ ! -e "/etc/sudoers.d/passport-$USER_NAME" ] || note_left sudoers
    if is_number "$USER_ID"; then verify_id_gone; fi
    [ -z "$LEFT" ]
}

verify_id_gone() {
    if getent passwd "$USER_ID" >/dev/null || getent group "$USER_ID" >/dev/null; then note_left account; fi
    # Who cannot see says so: an empty list of a kernel's that is not there proves nothing.
    [ -e "/proc/$$/status" ] || note_left processes
    [ -e /proc/self/mountinfo ] || note_left mounts
    [ -z "$(shared_memory)" ] || note_left memory
    [ -z "$(job_files)" ] || note_left jobs
    [ -z "$(user_mounts)" ] || note_left mounts
    if [ -n "$HOME_DIR" ] && { [ -e "$HOME_DIR" ] || [ -L "$HOME_DIR" ]; }; then note_left home; fi
    [ -z "$(files_left)" ] || note_left files
    [ -z "$(user_processes)" ] || note_left processes
}

report_counts() {
    answer firewall "$WALL_STATE"
    answer uid "$USER_ID"
    answer ended_at "$ENDED_AT"
    answer processes "$KILLED"
    answer files "$FILES"
    answer mounts "$MOUNTS"
    answer jobs "$JOBS"
}

note_left() {
    case ",$LEFT," in *",$1,"*) ;; *) LEFT=${LEFT:+$LEFT,}$1 ;; esac
}
