"""Why a server did not do what it was asked: the scripts' codes, and what people are told."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class RefusalCode(StrEnum):
    """Why a script did not do what it was asked: the codes that the scripts use."""

    ACCOUNT = "account"
    AFTER_END = "after_end"
    DENY_USERS = "deny_users"
    DISK_FULL = "disk_full"
    DOMAIN_CONTROLLER = "domain_controller"
    FOREIGN_ACCOUNT = "foreign_account"
    HOME_EXISTS = "home_exists"
    LEFT_BEHIND = "left_behind"
    LOCKED = "locked"
    MARKER = "marker"
    NO_FIREWALL = "no_firewall"
    NO_RDP = "no_rdp"
    NO_SCHEDULER = "no_scheduler"
    NO_SSHD = "no_sshd"
    NO_SUDO = "no_sudo"
    NO_TIMER = "no_timer"
    NOT_ROOT = "not_root"
    NOT_SYSTEM = "not_system"
    PARAMETERS = "parameters"
    READ_ONLY = "read_only"
    SSHD_CONFIG = "sshd_config"
    SSHD_OVERRIDE = "sshd_override"
    SSHD_REJECTED = "sshd_rejected"
    SSHD_RELOAD = "sshd_reload"
    SUDO_COMMAND = "sudo_command"
    SUDOERS = "sudoers"
    TOMBSTONE = "tombstone"
    UID_EXHAUSTED = "uid_exhausted"
    UNEXPECTED = "unexpected"


SENTENCES: Mapping[RefusalCode, str] = {
    RefusalCode.ACCOUNT: "The server could not make the user. Its own message is in Passport's log.",
    RefusalCode.AFTER_END: "The command reached the server after the end of the request. Nothing was made. "
    "If the request is not over, the server's clock is wrong.",
    RefusalCode.DENY_USERS: "The server's sshd denies this user by DenyUsers or DenyGroups. "
    "Its owner has to except pp-*.",
    RefusalCode.DISK_FULL: "The server's disk is full. Free some space, then try again.",
    RefusalCode.DOMAIN_CONTROLLER: "The server is a domain controller: a user made on it would be a user of the whole "
    "domain. I make none there. Ask for another server.",
    RefusalCode.FOREIGN_ACCOUNT: "The server has an account of this name that I did not make. I left it as it is.",
    RefusalCode.HOME_EXISTS: "The server has a home folder of this name that I did not make. I left it as it is.",
    RefusalCode.LEFT_BEHIND: "Access is ended, but something of the user is still on the server. I go on trying.",
    RefusalCode.LOCKED: "Another of my commands is still at work on the server. I try again.",
    RefusalCode.MARKER: "My record of this request on the server is damaged. Somebody with root there has to look.",
    RefusalCode.NO_FIREWALL: "The server has neither nft, iptables nor ip rules for users, so nothing would keep the "
    "user from the instance's AWS credentials. Install nftables there, or let the rule say metadata = true.",
    RefusalCode.NO_RDP: "The server does not let anybody in by Remote Desktop. Its owner has to switch that on.",
    RefusalCode.NO_SCHEDULER: "The server's Task Scheduler does not run, so it could not end the access by itself.",
    RefusalCode.NO_SSHD: "The server runs no sshd, so there is nothing to log in to. I do not start one.",
    RefusalCode.NO_SUDO: "The request asks for sudo, and the server has none with visudo.",
    RefusalCode.NO_TIMER: "The server has neither systemd nor cron running, so it could not end the access by itself.",
    RefusalCode.NOT_ROOT: "The server's agent does not run as root, so it cannot make or remove users.",
    RefusalCode.NOT_SYSTEM: "The server's agent does not run as SYSTEM, so it cannot make or remove users.",
    RefusalCode.PARAMETERS: "The server refused the command's parameters. Nothing was done.",
    RefusalCode.READ_ONLY: "The server's disk can only be read, so no user can be made or removed on it.",
    RefusalCode.SSHD_CONFIG: "The server's sshd settings have a mistake already. Its owner has to mend them first.",
    RefusalCode.SSHD_OVERRIDE: "Other settings of the server's sshd come before mine, so the login would not be safe. "
    "I took mine back.",
    RefusalCode.SSHD_REJECTED: "The server's sshd does not accept my settings. I took them back.",
    RefusalCode.SSHD_RELOAD: "The server's sshd did not take up its settings again. I took mine back.",
    RefusalCode.SUDO_COMMAND: "A command that the rule's sudo names is missing on the server, is a shell there, or "
    "could be changed by others than root. Passport's log says which. Mend it there, or change the rule.",
    RefusalCode.SUDOERS: "The server's sudo does not accept or does not read my rule. I took it back.",
    RefusalCode.TOMBSTONE: "The command reached the server after its removal. Nothing was made.",
    RefusalCode.UID_EXHAUSTED: "The server has used up the user ids that are set aside for me.",
    RefusalCode.UNEXPECTED: "Windows did something that I did not expect. Its own message is in Passport's log.",
}

# What may be otherwise a minute later, without anybody mending the server.
_RETRYABLE = frozenset(
    {
        RefusalCode.DISK_FULL,
        RefusalCode.LEFT_BEHIND,
        RefusalCode.LOCKED,
        RefusalCode.ACCOUNT,
        RefusalCode.READ_ONLY,
        RefusalCode.UNEXPECTED,
    }
)

_IN_THE_TIMERS_WAY = frozenset({RefusalCode.DISK_FULL, RefusalCode.LEFT_BEHIND, RefusalCode.READ_ONLY})


@dataclass(frozen=True, kw_only=True, slots=True)
class Refused:
    """The script did not do it, and says why."""

    code: RefusalCode
    detail: str = ""  # what a tool on the server said; not for the person
    left: tuple[str, ...] = ()  # of a removal: what was still found

    @property
    def sentence(self) -> str:
        """Why, and what to do, for a person."""
        if not self.left:
            return SENTENCES[self.code]
        ended = "" if "processes" in self.left else " Its processes are ended."
        return f"{SENTENCES[self.code]}{ended} Left: {', '.join(self.left)}."

    @property
    def retryable(self) -> bool:
        """Whether trying again later may help without anybody's doing."""
        return self.code in _RETRYABLE

    @property
    def server_cannot(self) -> bool:
        """Of a removal: whether the server's own timer meets the same."""
        return bool(self.left) or self.code in _IN_THE_TIMERS_WAY
