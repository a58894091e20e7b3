#!/bin/sh
# The first process of a host: enters its root, mounts what a kernel would have mounted, becomes its init.
#   boot-host.sh ROOT NAME systemd|cron ADDRESS
set -eu
root=$1 name=$2 init=$3 address=$4

hostname "$name"
cd "$root"
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
# The kernel's switches are the outer machine's.
for switches in proc/sys proc/sysrq-trigger; do
    [ ! -e "$switches" ] || { mount --bind "$switches" "$switches"; mount -o remount,ro,bind "$switches"; }
done
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
mount -t tmpfs -o mode=755 tmpfs dev
mkdir dev/pts dev/shm dev/mqueue run/lock
chmod 1777 run/lock
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts dev/pts
mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs dev/shm
mount -t mqueue mqueue dev/mqueue
mknod -m 666 dev/null c 1 3
mknod -m 666 dev/zero c 1 5
mknod -m 666 dev/full c 1 7
mknod -m 666 dev/random c 1 8
mknod -m 666 dev/urandom c 1 9
mknod -m 666 dev/tty c 5 0
mknod -m 666 dev/fuse c 10 229
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
ln -s /proc/self/fd/0 dev/stdin
ln -s /proc/self/fd/1 dev/stdout
ln -s /proc/self/fd/2 dev/stderr

pivot_root . mnt
exec chroot . /bin/sh /sbin/sandbox-init.sh "$init" "$address"
