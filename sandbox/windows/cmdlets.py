"""The commands that scripts may use, with the parameters that are known and no others."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from sandbox.windows import dotnet
from sandbox.windows.dotnet import Instant, SecureString
from sandbox.windows.language import Cmdlet
from sandbox.windows.machine import Account, Machine, Task
from sandbox.windows.values import Net, PowerShellError, Row, UnknownError, number, text

SPACE = "Microsoft.PowerShell.Commands."
MOST_NAME = 20  # "New-LocalUser": a user name has up to 20 characters, a description up to 48
MOST_DESCRIPTION = 48


class Cmdlets:
    """All of them, for one machine."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def table(self) -> Mapping[str, Cmdlet]:
        """By lower-case name."""
        return {
            "add-localgroupmember": _takes("sid", "member", run=self._add_member),
            "remove-localgroupmember": _takes("sid", "member", run=self._remove_member),
            "disable-localuser": _takes("sid", run=lambda given: self._enable(given, disabled=True)),
            "enable-localuser": _takes("sid", run=lambda given: self._enable(given, disabled=False)),
            "get-localuser": _takes("name", run=self._get_user),
            "get-localgroup": _takes("name", run=self._get_group),
            "new-localuser": _takes(
                *("name", "password", "accountexpires", "description", "usermaynotchangepassword", "disabled"),
                run=self._new_user,
            ),
            "set-localuser": _takes("name", "password", "accountexpires", run=self._set_user),
            "remove-localuser": _takes("sid", run=self._remove_user),
            "get-ciminstance": _takes("classname", run=self._get_cim),
            "invoke-cimmethod": _takes("inputobject", "methodname", run=self._call_cim),
            "remove-ciminstance": _takes("inputobject", run=self._remove_cim),
            "get-service": _takes("name", run=self._get_service),
            "stop-process": _takes("id", "force", run=self._stop_process),
            "new-object": _takes("typename", "argumentlist", run=_new_object),
            "new-timespan": _takes("minutes", run=lambda given: [Row(TotalSeconds=number(given["minutes"]) * 60)]),
            "start-sleep": _takes("seconds", run=self._sleep),
            "new-scheduledtaskaction": _takes("execute", "argument", run=lambda given: [Row(**given)]),
            "new-scheduledtasktrigger": _takes("once", "at", "repetitioninterval", "atstartup", run=_trigger),
            "new-scheduledtaskprincipal": _takes("userid", "logontype", "runlevel", run=lambda given: [Row(**given)]),
            "new-scheduledtasksettingsset": _takes(
                *("startwhenavailable", "allowstartifonbatteries", "dontstopifgoingonbatteries"),
                *("multipleinstances", "executiontimelimit"),
                run=lambda given: [Row(**({"startwhenavailable": False} | given))],
            ),
            "register-scheduledtask": _takes(
                *("taskname", "taskpath", "action", "trigger", "principal", "settings", "force"), run=self._register
            ),
            "get-scheduledtask": _takes("taskname", "taskpath", run=self._get_tasks),
            "unregister-scheduledtask": _takes("taskname", "taskpath", "confirm", run=self._unregister),
        }

    def programs(self) -> Mapping[str, Callable[[list[str]], list[str]]]:
        """Programs by their path; what they print."""
        return {
            r"c:\windows\system32\quser.exe": self._quser,
            r"c:\windows\system32\logoff.exe": self._logoff,
        }

    # Accounts

    def _by_sid(self, sid: Any) -> Account:
        account = self._machine.by_sid(text(sid))
        if account is None:
            raise PowerShellError(f"User {text(sid)} was not found.", SPACE + "UserNotFoundException")
        return account

    def _by_name(self, name: Any) -> Account:
        account = self._machine.accounts.get(text(name).lower())
        if account is None:
            raise PowerShellError(f"User {text(name)} was not found.", SPACE + "UserNotFoundException")
        return account

    def _group(self, sid: Any) -> set[str]:
        if text(sid) not in self._machine.groups:
            raise PowerShellError(f"Group {text(sid)} was not found.", SPACE + "GroupNotFoundException")
        return self._machine.groups[text(sid)]

    def _add_member(self, given: dict[str, Any]) -> list[Any]:
        members, account = self._group(given["sid"]), self._by_sid(given["member"])
        if account.sid in members:
            raise PowerShellError(f"{account.name} is already a member.", SPACE + "MemberExistsException")
        members.add(account.sid)
        return []

    def _remove_member(self, given: dict[str, Any]) -> list[Any]:
        members = self._group(given["sid"])
        if text(given["member"]) not in members:
            raise PowerShellError("The member was not found in the group.", SPACE + "MemberNotFoundException")
        members.discard(text(given["member"]))
        return []

    def _enable(self, given: dict[str, Any], *, disabled: bool) -> list[Any]:
        self._by_sid(given["sid"]).disabled = disabled
        return []

    def _get_user(self, given: dict[str, Any]) -> list[Any]:
        account = self._by_name(given["name"])
        sid = Row(Value=account.sid)
        return [Row(Name=account.name, SID=sid, Description=account.description, Enabled=not account.disabled)]

    def _get_group(self, given: dict[str, Any]) -> list[Any]:
        if text(given["name"]).lower() not in self._machine.group_names:
            raise PowerShellError("The group was not found.", SPACE + "GroupNotFoundException")
        return [Row(Name=text(given["name"]))]

    def _new_user(self, given: dict[str, Any]) -> list[Any]:
        name, password = text(given["name"]), _password(given["password"])
        if len(name) > MOST_NAME or len(text(given["description"])) > MOST_DESCRIPTION:
            raise PowerShellError("The name or the description is too long.", "ArgumentException")
        if name.lower() in self._machine.accounts or name.lower() in self._machine.group_names:
            raise PowerShellError(f"User {name} already exists.", SPACE + "UserExistsException")
        account = self._machine.add_account(name, password, description=text(given["description"]))
        account.expires = _instant(given["accountexpires"])
        account.disabled = given.get("disabled", False)
        account.may_change_password = not given.get("usermaynotchangepassword", False)
        return [Row(Name=name)]

    def _set_user(self, given: dict[str, Any]) -> list[Any]:
        account = self._by_name(given["name"])
        if "password" in given:
            account.password = _password(given["password"])
        if "accountexpires" in given:
            account.expires = _instant(given["accountexpires"])
        return []

    def _remove_user(self, given: dict[str, Any]) -> list[Any]:
        self._machine.remove_account(self._by_sid(given["sid"]))
        return []

    # What WMI knows

    def _get_cim(self, given: dict[str, Any]) -> list[Any]:
        machine, kind = self._machine, text(given["classname"]).lower()
        match kind:
            case "win32_computersystem":
                return [Row(DomainRole=machine.domain_role)]
            case "win32_operatingsystem":
                return [Row(ProductType=machine.product_type, Version="10.0.20348")]
            case "win32_process":
                return [Row(ProcessId=each.id, Name=each.name) for each in list(machine.processes.values())]
            case "win32_userprofile":
                return [Row(SID=sid, LocalPath=path) for sid, path in list(machine.profiles.items())]
            case "win32_service":
                return [Row(Name=each.name, StartName=each.account) for each in list(machine.services.values())]
        raise UnknownError(f"the class {kind}")

    def _call_cim(self, given: dict[str, Any]) -> list[Any]:
        target, method = given["inputobject"].properties, text(given["methodname"]).lower()
        if method == "getownersid" and "processid" in target:
            process = self._machine.processes.get(target["processid"])
            if process is None:
                raise PowerShellError("Not found", "Microsoft.Management.Infrastructure.CimException")
            return [Row(ReturnValue=0, Sid=process.owner)]
        if method in {"stopservice", "delete"} and "startname" in target:
            if method == "delete":
                self._machine.services.pop(target["name"], None)
            else:
                self._machine.services[target["name"]].state = "Stopped"
            return [Row(ReturnValue=0)]
        raise UnknownError(f"the method {method}")

    def _remove_cim(self, given: dict[str, Any]) -> list[Any]:
        target = given["inputobject"].properties
        if "localpath" not in target:
            raise UnknownError("Remove-CimInstance of something else than a profile")
        if not self._machine.remove_profile(target["sid"]):
            raise PowerShellError(
                "The process cannot access the file.", "Microsoft.Management.Infrastructure.CimException"
            )
        return []

    def _get_service(self, given: dict[str, Any]) -> list[Any]:
        service = self._machine.services.get(text(given["name"]))
        if service is None:
            raise PowerShellError(f"Cannot find any service {text(given['name'])}.", SPACE + "ServiceCommandException")
        return [Row(Name=service.name, Status=service.state)]

    def _stop_process(self, given: dict[str, Any]) -> list[Any]:
        if self._machine.processes.pop(number(given["id"]), None) is None:
            raise PowerShellError("Cannot find a process.", SPACE + "ProcessCommandException")
        return []

    def _sleep(self, given: dict[str, Any]) -> list[Any]:
        self._machine.slept += number(given["seconds"])
        return []

    # Scheduled tasks

    def _register(self, given: dict[str, Any]) -> list[Any]:
        action, triggers, settings = given["action"], given["trigger"], given["settings"]
        if not given.get("force"):
            raise UnknownError("Register-ScheduledTask without -Force")
        once = [each for each in triggers if each.starts is not None]
        key = (text(given["taskpath"]), text(given["taskname"]))
        known = self._machine.tasks.get(key)
        self._machine.tasks[key] = Task(
            name=key[1],
            path=key[0],
            user=text(given["principal"].get("userid")),
            command=text(action.get("execute")),
            words=text(action.get("argument")),
            starts=tuple(each.starts for each in once),
            repeats_every=min((each.every for each in once if each.every), default=None),
            at_startup=any(each.at_startup for each in triggers),
            when_available=settings.get("startwhenavailable"),
            last_run=known.last_run if known else None,
        )
        return [Row(TaskName=key[1])]

    def _get_tasks(self, given: dict[str, Any]) -> list[Any]:
        tasks = list(self._machine.tasks.values())
        if "taskname" in given:
            wanted = (text(given["taskpath"]).lower(), text(given["taskname"]).lower())
            tasks = [each for each in tasks if (each.path.lower(), each.name.lower()) == wanted]
            if not tasks:
                raise PowerShellError("No MSFT_ScheduledTask objects found.", "Microsoft.PowerShell.Cmdletization.Cim")
        return [
            Row(TaskName=each.name, TaskPath=each.path, Principal=Row(UserId=_shown(self._machine, each.user)))
            for each in tasks
        ]

    def _unregister(self, given: dict[str, Any]) -> list[Any]:
        if given.get("confirm") is not False:
            raise UnknownError("Unregister-ScheduledTask that asks")
        if self._machine.tasks.pop((text(given["taskpath"]), text(given["taskname"])), None) is None:
            raise PowerShellError("No MSFT_ScheduledTask objects found.", "Microsoft.PowerShell.Cmdletization.Cim")
        return []

    # Programs

    def _quser(self, words: list[str]) -> list[str]:
        """What a German server prints; nothing (and a complaint on standard error) for nobody."""
        found = [each for each in self._machine.desktops.values() if [each.user.lower()] == [w.lower() for w in words]]
        if not found:
            return []
        lines = [" BENUTZERNAME          SITZUNGSNAME       ID  STATUS  LEERLAUF   ANMELDEZEIT"]
        for each in found:
            name, state = (f"rdp-tcp#{each.id % 90}", "Aktiv") if each.active else ("", "Getr.")
            lines.append(f" {each.user.lower():<22}{name:<16}{each.id:>5}  {state:<8}       .  25.11.2026 03:04")
        return lines

    def _logoff(self, words: list[str]) -> list[str]:
        self._machine.log_off(number(words[0]))
        return []


class _Trigger(Net):
    starts: float | None = None
    every: float | None = None
    at_startup = False

    def set_startboundary(self, value: Any) -> None:
        if re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", text(value)) is None:
            raise UnknownError(f"the start boundary {text(value)}")
        self.starts = datetime.strptime(text(value), "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()


def _trigger(given: dict[str, Any]) -> list[Any]:
    trigger = _Trigger()
    if given.get("atstartup"):
        trigger.at_startup = True
    elif given.get("once"):
        trigger.starts = _instant(given["at"])
        trigger.every = given["repetitioninterval"].get("totalseconds") if "repetitioninterval" in given else None
    else:
        raise UnknownError("a trigger that is neither -Once nor -AtStartup")
    return [trigger]


def _takes(*names: str, run: Callable[[dict[str, Any]], list[Any]]) -> Cmdlet:
    def cmdlet(named: dict[str, Any], rest: list[Any]) -> list[Any]:
        unknown = named.keys() - set(names)
        if unknown or rest:
            raise UnknownError(f"the parameter {min(unknown) if unknown else rest}")
        return run(named)

    return cmdlet


def _new_object(given: dict[str, Any]) -> list[Any]:
    name = text(given["typename"]).lower().removeprefix("system.")
    made = dotnet.made(name, given.get("argumentlist"))
    return [_Whole(made)] if isinstance(made, bytearray) else [made]


class _Whole(bytearray):
    """Bytes that stay together on their way out of a command, as an array in an object does."""


def _password(value: Any) -> str:
    if not isinstance(value, SecureString):
        raise UnknownError("a password that is no SecureString")
    kinds = [str.islower, str.isupper, str.isdigit, lambda character: not character.isalnum()]
    if len(value.content) < 14 or sum(any(map(kind, value.content)) for kind in kinds) < 3:
        raise PowerShellError("The password does not meet the requirements.", SPACE + "InvalidPasswordException")
    return value.content


def _instant(value: Any) -> float:
    if not isinstance(value, Instant):
        raise UnknownError("a time that is no DateTime")
    return value.seconds


def _shown(machine: Machine, user: str) -> str:
    """Windows shows a principal by name where it knows one."""
    account = machine.by_sid(user)
    return account.name if account else "SYSTEM" if user == "S-1-5-18" else user
