"""A Windows server, as much of it as accounts, their sessions and what they leave behind make visible."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from sandbox.hosts.base import HostsError

ADMINISTRATORS = "S-1-5-32-544"
REMOTE_DESKTOP_USERS = "S-1-5-32-555"
SYSTEM = "S-1-5-18"
PROFILE_LIST = r"software\microsoft\windows nt\currentversion\profilelist"
TERMINAL_SERVER = r"system\currentcontrolset\control\terminal server"


class MachineOffError(HostsError):
    """The power went in the middle of it."""


@dataclass(kw_only=True)
class Account:
    """A local user."""

    name: str
    sid: str
    password: str = field(repr=False)
    expires: float | None = None
    disabled: bool = False
    description: str = ""
    may_change_password: bool = True


@dataclass(kw_only=True)
class Task:
    """A scheduled task: what it runs, as whom, and when."""

    name: str
    path: str
    user: str
    command: str = ""
    words: str = ""
    starts: tuple[float, ...] = ()  # of its triggers with a time
    repeats_every: float | None = None
    at_startup: bool = False
    when_available: bool = False
    last_run: float | None = None


@dataclass(kw_only=True)
class Desktop:
    """A session: of somebody who is there, or has only closed the window."""

    id: int
    user: str
    sid: str
    active: bool = True
    hang_up: Callable[[], None] = lambda: None


@dataclass(kw_only=True)
class Process:
    """A process; ``owner`` is a security id."""

    id: int
    owner: str
    name: str
    session: int = 0


@dataclass(kw_only=True)
class Service:
    """A service; its state is Running or Stopped."""

    name: str
    account: str = "LocalSystem"
    state: str = "Running"


class Machine:
    """Everything of one server. Registry values are on disk only after Flush; the rest is written at once."""

    def __init__(self, name: str, *, now: Callable[[], float]) -> None:
        self.name = name
        self.lock = threading.RLock()
        self._now = now
        self._domain = "S-1-5-21-" + "-".join(str(secrets.randbelow(2**31)) for _ in range(3))
        self._next_rid = 1001
        self._next_id = 4000
        self.slept = 0.0  # what the program that runs now has waited
        self.accounts: dict[str, Account] = {}
        self.groups: dict[str, set[str]] = {ADMINISTRATORS: set(), REMOTE_DESKTOP_USERS: set(), "S-1-5-32-545": set()}
        self.group_names = {"administratoren", "remotedesktopbenutzer", "benutzer"}  # this one speaks German
        self.registry: dict[str, dict[str, object]] = {}
        self.registry_on_disk: dict[str, dict[str, object]] = {}
        self._written_as: dict[str, str] = {}  # paths as they were first written: the registry keeps capitals
        self.files: dict[str, str] = {r"c:\windows\system32\quser.exe": "", r"c:\windows\system32\logoff.exe": ""}
        self.folders: dict[str, str] = {r"c:\users": "", r"c:\program files": ""}  # with their security descriptor
        self.held: set[str] = set()  # files that a running program has open for itself alone
        self.tasks: dict[tuple[str, str], Task] = {}
        self.desktops: dict[int, Desktop] = {}
        self.processes: dict[int, Process] = {}
        self.profiles: dict[str, str] = {}
        self.services = {name: Service(name=name) for name in ("Schedule", "TermService")}
        self.domain_role = 3  # a member server
        self.product_type = 3
        self.busy_profiles: set[str] = set()  # that something holds open: they cannot be removed
        self.add_account("Administrator", "a password of its own", groups={ADMINISTRATORS})
        self.set_value(PROFILE_LIST, "ProfilesDirectory", r"C:\Users")
        self.set_value(TERMINAL_SERVER, "fDenyTSConnections", 0)
        self.set_value(TERMINAL_SERVER + r"\winstations\rdp-tcp", "PortNumber", 3389)
        for name_ in ("System", "lsass.exe", "amazon-ssm-agent.exe"):
            self.add_process(SYSTEM, name_)

    @property
    def now(self) -> float:
        """What time it is here, seconds since 1970."""
        return self._now() + self.slept

    # Accounts

    def add_account(
        self, name: str, password: str, *, groups: set[str] | None = None, description: str = ""
    ) -> Account:
        """A local user with the next security id; none is ever given twice."""
        account = Account(name=name, sid=f"{self._domain}-{self._next_rid}", password=password, description=description)
        self._next_rid += 1
        self.accounts[name.lower()] = account
        for group in groups or ():
            self.groups[group].add(account.sid)
        return account

    def by_sid(self, sid: str) -> Account | None:
        """The account with that security id."""
        return next((each for each in self.accounts.values() if each.sid == sid), None)

    def remove_account(self, account: Account) -> None:
        """The account and its memberships; what it owned keeps its security id."""
        del self.accounts[account.name.lower()]
        for members in self.groups.values():
            members.discard(account.sid)

    def refusal(self, user: str, password: str) -> str:
        """Why a login over Remote Desktop is refused; "" when it is not."""
        account = self.accounts.get(user.lower())
        if account is None or account.password != password:
            return "The user name or password is incorrect."
        if account.disabled:
            return "This account has been disabled."
        if account.expires is not None and account.expires <= self.now:
            return "This account has expired."
        if not any(account.sid in self.groups[group] for group in (ADMINISTRATORS, REMOTE_DESKTOP_USERS)):
            return "To sign in remotely, you need the right to sign in through Remote Desktop Services."
        return ""

    def log_in(self, user: str, hang_up: Callable[[], None]) -> Desktop:
        """Open a desktop, with a profile at the first time."""
        account = self.accounts[user.lower()]
        desktop = Desktop(id=self._number(), user=account.name, sid=account.sid, hang_up=hang_up)
        self.desktops[desktop.id] = desktop
        self.add_profile(account)
        for name in ("explorer.exe", "rdpclip.exe"):
            self.add_process(account.sid, name, session=desktop.id)
        return desktop

    def add_profile(self, account: Account) -> None:
        """The folder and the registry's line about it."""
        folder = rf"C:\Users\{account.name}"
        self.profiles.setdefault(account.sid, folder)
        self.folders.setdefault(folder.lower(), "")
        self.set_value(rf"{PROFILE_LIST}\{account.sid.lower()}", "ProfileImagePath", folder)

    def log_off(self, desktop_id: int) -> None:
        """End a desktop and the programs in it."""
        desktop = self.desktops.pop(desktop_id, None)
        if desktop is None:
            return
        for process in [each for each in self.processes.values() if each.session == desktop_id]:
            del self.processes[process.id]
        desktop.hang_up()

    def remove_profile(self, sid: str) -> bool:
        """Whether Windows could remove it: not while a program of its user runs."""
        if sid in self.busy_profiles or any(each.owner == sid for each in self.processes.values()):
            return False
        self.folders.pop(self.profiles.pop(sid).lower(), None)
        self.remove_key(rf"{PROFILE_LIST}\{sid}")
        return True

    def add_process(self, owner: str, name: str, *, session: int = 0) -> Process:
        """Start one."""
        process = Process(id=self._number(), owner=owner, name=name, session=session)
        self.processes[process.id] = process
        return process

    def _number(self) -> int:
        self._next_id += 4
        return self._next_id

    # Registry

    def set_value(self, key: str, name: str, value: object) -> None:
        """As an administrator who has waited for the disk."""
        self.make_key(key)[name] = value
        self.flush(key)

    def make_key(self, key: str) -> dict[str, object]:
        """A key's values; the key is made where it is missing."""
        self._written_as.setdefault(key.lower(), key)
        return self.registry.setdefault(key.lower(), {})

    def flush(self, key: str) -> None:
        """Write a key to the disk."""
        self.registry_on_disk[key.lower()] = dict(self.registry[key.lower()])

    def remove_key(self, key: str) -> None:
        """The key and all below it."""
        below = key.lower() + "\\"
        for store in (self.registry, self.registry_on_disk):
            for each in [each for each in store if each == key.lower() or each.startswith(below)]:
                del store[each]

    def keys_below(self, key: str) -> list[str] | None:
        """The names right below a key; None when there is no such key."""
        below = key.lower() + "\\"
        known = [self._written_as[each] for each in self.registry if each.startswith(below)]
        found = [each[len(below) :].partition("\\")[0] for each in known]
        return sorted(set(found)) if found or key.lower() in self.registry else None

    # Power

    def lose_power(self) -> None:
        """Desktops, programs, locks and what was not yet on disk are gone."""
        for desktop in list(self.desktops):
            self.log_off(desktop)
        self.processes = {number: each for number, each in self.processes.items() if each.owner == SYSTEM}
        self.held.clear()
        self.registry = {key: dict(values) for key, values in self.registry_on_disk.items()}
