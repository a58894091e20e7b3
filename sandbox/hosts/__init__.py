"""Real servers on one machine: namespaces with real sshd, real systemd or cron, real useradd and userdel."""

from sandbox.hosts.base import HostsError
from sandbox.hosts.doorway import Doorway
from sandbox.hosts.fleet import HostFleet, HostWish
from sandbox.hosts.host import Host

__all__ = ["Doorway", "Host", "HostFleet", "HostWish", "HostsError"]
