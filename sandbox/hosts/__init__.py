"""Real servers on one machine: namespaces with real sshd, real systemd or cron, real useradd and userdel."""

from sandbox.hosts.base import HostsError
from sandbox.hosts.fleet import HostFleet, HostWish
from sandbox.hosts.host import Host
from sandbox.hosts.relay import Doorway, join_sockets

__all__ = ["Doorway", "Host", "HostFleet", "HostWish", "HostsError", "join_sockets"]
