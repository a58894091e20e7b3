#!/bin/sh
# The timer on the server's own disk: every minute it runs the sweeper, which removes who is due.
# One for all users, so that there is nothing to lose: it needs no Passport, survives a reboot,
# tries again until the removal is verified, and goes last.

SWEEPER=$STATE/sweep.sh
UNIT=/etc/systemd/system/passport-sweep
BOOT_UNIT=/etc/systemd/system/passport-boot.service
CRON_FILE=/etc/cron.d/passport

cron_runs() {
    for folder in /proc/[0-9]*; do
        { read -r name <"$folder/comm"; } 2>/dev/null || continue
        case $name in cron | crond) [ -d /etc/cron.d ] && return 0 ;; esac
    done
    return 1
}

# Prints what keeps time here: systemd, cron or none.
timekeeper() {
    if systemd_runs; then
        printf 'systemd\n'
    elif cron_runs; then
        printf 'cron\n'
    else
        printf 'none\n'
    fi
}

# Puts the sweeper and its timer on disk and starts the timer.
install_timer() {
    sweeper_program | write_file "$SWEEPER" 700 || return 1
    case $(timekeeper) in
        systemd) install_units ;;
        cron) cron_line | write_file "$CRON_FILE" 644 ;;
        *) return 1 ;;
    esac
}

# Cron's own PATH lacks /usr/sbin; the sweeper sets its own as well.
cron_line() {
    printf '%s\n' 'SHELL=/bin/sh' 'PATH=/usr/sbin:/usr/bin:/sbin:/bin' 'MAILTO=""' \
        "@reboot root /bin/sh $SWEEPER boot >/dev/null 2>&1" "* * * * * root /bin/sh $SWEEPER >/dev/null 2>&1"
}

install_units() {
    if [ "$(cat "$UNIT.timer" "$BOOT_UNIT" 2>/dev/null)" != "$(timer_unit; boot_unit)" ] || [ ! -f "$UNIT.service" ]; then
        service_unit | write_file "$UNIT.service" 644 || return 1
        timer_unit | write_file "$UNIT.timer" 644 || return 1
        boot_unit | write_file "$BOOT_UNIT" 644 || return 1
        bounded systemctl daemon-reload || return 1
    fi
    bounded systemctl enable passport-sweep.timer passport-boot.service 2>/dev/null
    bounded systemctl start passport-sweep.timer && systemctl is-active --quiet passport-sweep.timer &&
        systemctl is-enabled --quiet passport-sweep.timer
}

service_unit() {
    printf '%s\n' '[Unit]' "Description=Removes Passport's users when their time is over" '[Service]' \
        'Type=oneshot' "ExecStart=/bin/sh $SWEEPER"
}

# Before anybody can log in and before cron and at start what waits, and after what else sets the firewall.
boot_unit() {
    printf '%s\n' '[Unit]' "Description=Shuts out Passport's users whose time is over, and keeps the others from metadata" \
        'After=local-fs.target nftables.service iptables.service ip6tables.service firewalld.service ufw.service' \
        'After=systemd-networkd.service' 'Before=ssh.service sshd.service cron.service crond.service atd.service' \
        'Before=systemd-user-sessions.service' '[Service]' 'Type=oneshot' \
        "ExecStart=/bin/sh $SWEEPER boot" '[Install]' 'WantedBy=multi-user.target'
}

# Each minute by the clock; by the monotonic clock as well, because after a step back
# systemd waits until the clock has caught up with its last run.
timer_unit() {
    printf '%s\n' '[Unit]' "Description=Removes Passport's users when their time is over" '[Timer]' \
        'OnBootSec=1' 'OnCalendar=*-*-* *:*:00' 'OnUnitInactiveSec=90' 'AccuracySec=1s' 'Persistent=true' \
        '[Install]' 'WantedBy=timers.target'
}

# Runs the sweeper at once for an end that comes before the timer's next minute.
start_sweeper() {
    if systemd_runs; then
        bounded systemctl start --no-block passport-sweep.service
    else
        setsid /bin/sh "$SWEEPER" </dev/null >/dev/null 2>&1 3>&- 9>&- &
    fi
}

# Takes the timer away; the last thing that happens for the last user.
remove_timer() {
    if [ -f "$UNIT.timer" ]; then
        bounded systemctl disable --now passport-sweep.timer passport-boot.service 2>/dev/null
        rm -f "$UNIT.timer" "$UNIT.service" "$BOOT_UNIT" \
            /etc/systemd/system/timers.target.wants/passport-sweep.timer \
            /etc/systemd/system/multi-user.target.wants/passport-boot.service \
            /var/lib/systemd/timers/stamp-passport-sweep.timer
        if systemd_runs; then bounded systemctl daemon-reload; fi
    fi
    rm -f "$CRON_FILE" "$SWEEPER"
}
