#!/bin/sh
# Installs the Debian packages that the demo and the tests need, if any is missing: as root, or through sudo.
# Servers of the sandbox get theirs in an overlay of their own; nothing of those is installed on this machine.
set -eu

python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || {
    echo "Passport needs Python 3.11 or later as python3. Install it, then run this again." >&2
    exit 1
}

missing=
want() { # want PROGRAM-OR-FILE PACKAGE
    command -v "$1" >/dev/null 2>&1 || [ -e "$1" ] || missing="$missing $2"
}
python3 -c 'import ensurepip, venv' 2>/dev/null || missing="$missing python3-venv"
want ssh openssh-client
want ssh-keygen openssh-client
want ip iproute2
want unshare util-linux
want pgrep procps
want git git
# The shells that /bin/sh may be on a server, and those that people have; each runs what Passport gives it.
for shell in busybox mksh yash zsh fish tcsh; do want "$shell" "$shell"; done
want curl curl
want rsync rsync
ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || missing="$missing postgresql"

[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null 2>&1; then
    echo "These programs are missing and there is no apt-get here:$missing. Install them, then run this again." >&2
    exit 1
fi
sudo=
if [ "$(id -u)" -ne 0 ]; then
    sudo="sudo"
    if ! command -v sudo >/dev/null 2>&1; then
        echo "Please run as root: apt-get install --no-install-recommends$missing" >&2
        exit 1
    fi
fi
echo "Installing Debian packages:$missing"
# shellcheck disable=SC2086  # words on purpose
{
    $sudo apt-get update -qq
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing
} >/dev/null
