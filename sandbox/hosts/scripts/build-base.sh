#!/bin/sh
# Installs what a server has and a developer's machine may lack into an overlay over this machine, and keeps
# only the difference, as a tar file. Run in a private mount namespace: nothing is installed on the machine.
#   build-base.sh TARFILE PACKAGE...
set -eu
tar_file=$1
shift
scratch=/mnt
mount -t tmpfs -o size=3g,mode=755 passport-base "$scratch"
mkdir "$scratch/upper" "$scratch/work" "$scratch/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$scratch/upper,workdir=$scratch/work" "$scratch/root"
root=$scratch/root

mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/run"
mount -t tmpfs tmpfs "$root/tmp"
# In a container these are bind mounts, which an overlay over / does not show.
cat /etc/resolv.conf > "$scratch/resolv.conf"
mount --bind "$scratch/resolv.conf" "$root/etc/resolv.conf"
printf '#!/bin/sh\nexit 101\n' > "$root/usr/sbin/policy-rc.d"
chmod 755 "$root/usr/sbin/policy-rc.d"

apt() {
    DEBIAN_FRONTEND=noninteractive chroot "$root" apt-get -qq -o Dpkg::Use-Pty=0 -o APT::Sandbox::User=root "$@"
}
add() {
    apt install -y --no-install-recommends "$@" >> "$scratch/log" 2>&1
}
# A machine whose package lists are missing or old needs them fetched first; a stricter tie may need an upgrade.
add --no-upgrade "$@" || {
    apt update >> "$scratch/log" 2>&1 || true
    add --no-upgrade "$@" || add "$@" || { tail -n 20 "$scratch/log" >&2; exit 1; }
}

umount "$root/etc/resolv.conf" "$root/tmp" "$root/run" "$root/proc"
rm -f "$root/usr/sbin/policy-rc.d" "$root"/etc/ssh/ssh_host_*
rm -rf "$root/var/cache/apt" "$root/var/lib/apt/lists" "$root/usr/share/doc" "$root/usr/share/man" "$root/usr/share/locale"
umount -l "$root/dev"
umount "$root"
tar --xattrs --xattrs-include='trusted.overlay.*' -C "$scratch/upper" -cf "$tar_file.part" .
mv "$tar_file.part" "$tar_file"
