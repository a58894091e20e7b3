#!/bin/sh
# The init of a host without systemd: sshd, cron and atd, and every orphan is reaped.
mkdir -p /run/sshd
touch /run/utmp
/usr/sbin/cron -f &
/usr/sbin/atd -f &
/usr/sbin/sshd -D -E /var/log/sshd.log &
while :; do
    wait
    sleep 1
done
