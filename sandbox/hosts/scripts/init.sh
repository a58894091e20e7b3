#!/bin/sh
# Runs as a host's first process once it has its own root: network, host keys, then the real init.
#   init.sh systemd|cron ADDRESS
set -eu
cd /
umount -l /mnt
ip link set lo up
ip addr add "$2/24" dev eth0
ip link set eth0 up
for kind in ed25519 ecdsa; do
    key=/etc/ssh/ssh_host_${kind}_key
    [ -s "$key" ] || ssh-keygen -q -t "$kind" -N '' -C '' -f "$key"
done
if [ "$1" = systemd ]; then
    exec /lib/systemd/systemd --system --show-status=no --log-target=journal
fi
exec /bin/sh /sbin/sandbox-init-cron.sh
