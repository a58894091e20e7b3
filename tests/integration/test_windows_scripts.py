"""The PowerShell documents on the Windows double: made, logged in, removed, and on every bad day."""

import pytest

from provisioning import powershell
from sandbox.windows import ADMINISTRATORS, REMOTE_DESKTOP_USERS, MachineOffError
from sandbox.windows.machine import Desktop, Process, Service, Task
from tests.windows_lab import HOUR, KEYS, PROBE, REQUEST, USER, WindowsLab, lab

__all__ = ["lab"]


def sid_of(lab: WindowsLab) -> str:
    return lab.host.machine.accounts[USER].sid


def test_the_password_that_comes_back_logs_in_and_nothing_else_does(lab: WindowsLab) -> None:
    made = lab.create()
    assert made["end"] == "ok" and made["existing"] == "no" and made["port"] == "3389"
    password = lab.password(made)
    assert lab.log_in("a guess") == "no The user name or password is incorrect."
    assert lab.log_in(password).startswith("yes ")
    account = lab.host.machine.accounts[USER]
    assert account.sid in lab.host.machine.groups[REMOTE_DESKTOP_USERS]
    assert account.sid not in lab.host.machine.groups[ADMINISTRATORS]
    assert (account.expires, account.may_change_password) == (lab.clock.now + HOUR, False)
    assert password not in repr(made)


def test_administrators_by_policy(lab: WindowsLab) -> None:
    made = lab.create(administrator="yes")
    assert sid_of(lab) in lab.host.machine.groups[ADMINISTRATORS]
    assert sid_of(lab) not in lab.host.machine.groups[REMOTE_DESKTOP_USERS]
    assert lab.log_in(lab.password(made)).startswith("yes ")
    assert lab.remove()["sudo"] == "all"  # so that nobody takes the server's word for proof


def test_a_create_that_comes_twice_answers_the_same_password(lab: WindowsLab) -> None:
    first, second = lab.create(), lab.create()
    assert second["existing"] == "yes"
    assert second["password"] == first["password"]
    assert lab.log_in(lab.password(first)).startswith("yes ")


def test_another_key_gets_another_password(lab: WindowsLab) -> None:
    old = lab.password(lab.create())
    lab.key = KEYS[1]
    new = lab.password(lab.create())
    assert new != old
    assert lab.log_in(old).startswith("no ")
    assert lab.log_in(new).startswith("yes ")


def test_another_end_moves_the_end(lab: WindowsLab) -> None:
    lab.create(seconds=HOUR)
    assert lab.create(seconds=2 * HOUR)["existing"] == "yes"
    assert lab.host.machine.accounts[USER].expires == lab.clock.now + 2 * HOUR
    lab.clock.now += HOUR + 1
    lab.host.run_tasks()
    assert USER in lab.host.machine.accounts
    lab.clock.now += HOUR
    lab.host.run_tasks()
    assert lab.left() == set()


@pytest.mark.parametrize(("role", "kind"), [(4, 2), (5, 2), (5, 3), (3, 2)])
def test_a_domain_controller_is_refused_and_untouched(lab: WindowsLab, role: int, kind: int) -> None:
    lab.host.machine.domain_role, lab.host.machine.product_type = role, kind
    assert lab.create()["end"] == "failed:domain_controller"
    assert lab.left() == set()
    assert lab.run(PROBE)["domain_controller"] == "yes"


def test_refusals_before_anything_is_touched(lab: WindowsLab) -> None:
    machine = lab.host.machine
    assert lab.create(seconds=-1)["end"] == "failed:after_end"
    machine.services["TermService"].state = "Stopped"
    assert lab.create()["end"] == "failed:no_rdp"
    machine.services["TermService"].state = "Running"
    machine.set_value(r"system\currentcontrolset\control\terminal server", "fDenyTSConnections", 1)
    assert lab.create()["end"] == "failed:no_rdp"
    assert lab.run(PROBE)["rdp"] == "no"
    machine.set_value(r"system\currentcontrolset\control\terminal server", "fDenyTSConnections", 0)
    machine.services["Schedule"].state = "Stopped"
    assert lab.create()["end"] == "failed:no_scheduler"
    assert lab.left() == set()


def test_a_foreign_account_is_never_taken_up_nor_removed(lab: WindowsLab) -> None:
    machine = lab.host.machine
    machine.add_account(USER, "somebody's own Password 1", groups={REMOTE_DESKTOP_USERS})
    assert lab.create()["end"] == "failed:foreign_account"
    assert lab.remove()["end"] == "failed:foreign_account"
    assert lab.log_in("somebody's own Password 1").startswith("yes ")
    # Passport's description alone does not make it Passport's.
    machine.accounts[USER].description = f"Passport {REQUEST}"
    assert lab.create(attempt=2)["end"] == "failed:foreign_account"


def test_an_account_that_took_the_name_later_stays(lab: WindowsLab) -> None:
    lab.create()
    machine = lab.host.machine
    machine.remove_account(machine.accounts[USER])
    machine.add_account(USER, "somebody's own Password 1", description=f"Passport {REQUEST}")
    assert lab.create()["end"] == "failed:foreign_account"
    assert lab.remove()["end"] == "failed:foreign_account"
    lab.clock.now += HOUR
    lab.host.run_tasks()
    assert machine.accounts[USER].password == "somebody's own Password 1"
    assert not machine.accounts[USER].disabled


def test_a_profile_or_group_of_that_name_is_nobodys_to_take(lab: WindowsLab) -> None:
    lab.host.machine.folders[rf"c:\users\{USER}"] = ""
    assert lab.create()["end"] == "failed:home_exists"
    del lab.host.machine.folders[rf"c:\users\{USER}"]
    lab.host.machine.group_names.add(USER)
    assert lab.create()["end"] == "failed:foreign_account"


def test_removal_leaves_nothing_of_the_user_and_everything_else(lab: WindowsLab) -> None:
    machine = lab.host.machine
    assert lab.log_in(lab.password(lab.create())).startswith("yes ")
    sid = sid_of(lab)
    machine.desktops[77] = Desktop(id=77, user="Administrator", sid=machine.accounts["administrator"].sid)
    other = machine.add_process(machine.accounts["administrator"].sid, "explorer.exe", session=77)
    machine.add_process(sid, "hidden.exe", session=77)  # by runas, in somebody else's session
    machine.tasks["\\", "mine"] = Task(name="mine", path="\\", user=rf"WIN-1\{USER}")
    machine.tasks["\\", "by id"] = Task(name="by id", path="\\", user=sid)
    machine.tasks["\\", "theirs"] = Task(name="theirs", path="\\", user="Administrator")
    machine.services["evil"] = Service(name="evil", account=rf".\{USER}")
    gone = lab.remove()
    assert gone["end"] == "ok", gone["left"]
    assert (gone["result"], gone["verified"]) == ("removed", "yes")
    assert (gone["uid"], gone["sessions"], gone["files"], gone["jobs"]) == (sid.rpartition("-")[2], "1", "1", "3")
    assert int(gone["processes"]) >= 1
    assert lab.left() == set()
    assert set(machine.desktops) == {77} and other.id in machine.processes
    assert ("\\", "theirs") in machine.tasks and "Schedule" in machine.services
    assert machine.files.keys() & {r"c:\program files\passport\sweep.ps1"} == set()


def test_a_disconnected_session_ends_too(lab: WindowsLab) -> None:
    lab.log_in(lab.password(lab.create()))
    for desktop in lab.host.machine.desktops.values():
        desktop.active = False
    assert lab.remove()["sessions"] == "1"
    assert lab.left() == set()


def test_a_profile_that_is_held_open_is_told_and_goes_later(lab: WindowsLab) -> None:
    lab.log_in(lab.password(lab.create()))
    lab.host.machine.busy_profiles.add(sid_of(lab))
    late = lab.remove()
    assert (late["end"], late["left"]) == ("failed:left_behind", "profile,files")
    assert "session" not in lab.left() and "account" not in lab.left()
    lab.host.machine.busy_profiles.clear()
    assert lab.remove()["end"] == "ok"
    assert lab.left() == set()


def test_remove_twice_and_late_create(lab: WindowsLab) -> None:
    made = lab.create()
    assert lab.remove()["result"] == "removed"
    again = lab.remove()
    assert (again["result"], again["verified"], again["uid"]) == ("absent", "yes", made["uid"])
    assert lab.create()["end"] == "failed:tombstone"
    assert lab.create(attempt=2)["end"] == "ok"
    assert lab.remove(attempt=1)["result"] == "superseded"
    assert USER in lab.host.machine.accounts
    assert lab.remove(attempt=2)["result"] == "removed"


def test_a_remove_before_its_create_wins(lab: WindowsLab) -> None:
    assert lab.remove()["result"] == "absent"
    assert lab.create()["end"] == "failed:tombstone"
    assert lab.left() == set()


def test_tombstones_are_forgotten_after_a_month(lab: WindowsLab) -> None:
    lab.remove()
    lab.clock.now += 31 * 24 * HOUR
    assert lab.create()["end"] == "ok"


def test_the_servers_own_task_ends_access_with_passport_dead(lab: WindowsLab) -> None:
    password = lab.password(lab.create())
    assert lab.log_in(password).startswith("yes ")
    lab.clock.now += HOUR - 1
    assert lab.host.run_tasks() == 0
    lab.clock.now += 1
    assert lab.log_in(password) == "no This account has expired."  # already before the task has run
    assert lab.host.run_tasks() == 1
    assert lab.left() == set()
    assert lab.remove()["result"] == "absent"


def test_a_server_that_was_off_at_the_end_cleans_up_at_its_start(lab: WindowsLab) -> None:
    lab.log_in(lab.password(lab.create()))
    lab.host.power_off()
    lab.clock.now += 5 * HOUR
    with pytest.raises(MachineOffError):
        lab.remove()
    lab.host.power_on()
    assert lab.left() == set()


def test_the_task_comes_again_each_minute_until_all_is_gone(lab: WindowsLab) -> None:
    lab.log_in(lab.password(lab.create()))
    lab.host.machine.busy_profiles.add(sid_of(lab))
    lab.clock.now += HOUR
    lab.host.run_tasks()
    assert lab.left() >= {"profile", "task", "record"}
    assert lab.left() & {"account", "session", "process"} == set()
    lab.host.machine.busy_profiles.clear()
    lab.clock.now += 30
    assert lab.host.run_tasks() == 0
    lab.clock.now += 30
    assert lab.host.run_tasks() == 1
    assert lab.left() == set()


def test_one_stuck_user_does_not_keep_the_others(lab: WindowsLab) -> None:
    lab.log_in(lab.password(lab.create()))
    lab.host.machine.busy_profiles.add(sid_of(lab))
    lab.create(RequestId="AR-ZZZZ", UserName="pp-zzzz")
    lab.clock.now += HOUR
    lab.host.run_tasks()
    assert "pp-zzzz" not in lab.host.machine.accounts


def test_a_request_keeps_the_sweeper_of_another(lab: WindowsLab) -> None:
    lab.create()
    lab.create(RequestId="AR-ZZZZ", UserName="pp-zzzz", NotAfter=str(int(lab.clock.now) + 2 * HOUR))
    lab.remove()
    lab.clock.now += 2 * HOUR
    lab.host.run_tasks()
    assert set(lab.host.machine.accounts) == {"administrator"}


def test_the_lock_is_waited_for_and_nobody_but_system_can_hold_it(lab: WindowsLab) -> None:
    machine = lab.host.machine
    lab.create(RequestId="AR-ZZZZ", UserName="pp-zzzz")
    folder = r"c:\program files\passport"
    assert machine.folders[folder] == "O:BAG:SYD:P(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)"
    machine.held.add(rf"{folder}\lock")
    assert lab.create()["end"] == "failed:locked"
    assert lab.left() == set()
    machine.held.add(rf"{folder}\lock")
    assert lab.remove()["end"] == "failed:locked"
    assert lab.create()["end"] == "failed:tombstone"  # which remove left before it waited


def steps_of_a_create(lab: WindowsLab) -> int:
    count = 0

    def step() -> None:
        nonlocal count
        count += 1

    lab.host._step = step  # type: ignore[method-assign]
    lab.create(RequestId="AR-AAAA", UserName="pp-aaaa")
    lab.remove(RequestId="AR-AAAA", UserName="pp-aaaa")
    del lab.host._step  # type: ignore[method-assign]
    return count


def test_a_server_that_dies_anywhere_in_a_create_leaves_nothing_for_ever(lab: WindowsLab) -> None:
    """Wherever it dies: a repeated create works, a remove works, and the server's own task works."""
    total = steps_of_a_create(lab)
    for number, at in enumerate(range(1, total, max(1, total // 60))):
        lab.host.fail_after(at)
        attempt = number + 1
        try:
            lab.create(attempt=attempt)
        except MachineOffError:
            lab.host.power_on()
        else:
            lab.host._steps_left = None
        if number % 3 == 0:
            made = lab.create(attempt=attempt)
            assert lab.log_in(lab.password(made)).startswith("yes "), at
        if number % 3 == 1:
            lab.clock.now += HOUR
            lab.host.run_tasks()
            assert "account" not in lab.left(), at
        gone = lab.remove(attempt=attempt)
        assert gone["end"] == "ok", (at, gone)
        assert lab.left() == set(), at


def test_a_server_that_dies_anywhere_in_a_remove_is_removed_at_the_next(lab: WindowsLab) -> None:
    for attempt, at in enumerate(range(20, 1500, 60), 1):
        assert lab.create(attempt=attempt)["end"] == "ok"
        lab.log_in(lab.password(lab.create(attempt=attempt)))
        lab.host.fail_after(at)
        try:
            lab.remove(attempt=attempt)
        except MachineOffError:
            lab.host.power_on()
        lab.host._steps_left = None
        assert lab.remove(attempt=attempt)["end"] == "ok"
        assert lab.left() == set(), at


def test_the_probe_says_what_there_is(lab: WindowsLab) -> None:
    lab.create()
    found = lab.run(PROBE)
    assert found["end"] == "ok"
    assert (found["timer"], found["rdp"], found["domain_controller"], found["accounts"]) == ("task", "yes", "no", "1")
    assert found["account"].split()[:2] == [REQUEST, USER]


def test_the_double_refuses_what_it_does_not_know() -> None:
    from sandbox.windows import WindowsHost

    for line in ("Get-Date", "Get-LocalUser -Everything 'x'", "$x.Count", "[Net.WebClient]::new()", "net.exe user"):
        host = WindowsHost("win-1", ticks=False)
        code, _, errors = host.powershell(powershell.program((), ("common",)) + line, {})
        assert (code, len(host.unknown)) == (1, 1), line
        assert "does not know" in errors


def test_processes_of_others_are_left_alone(lab: WindowsLab) -> None:
    lab.create()
    before = set(lab.host.machine.processes)
    lab.host.machine.processes[9] = Process(id=9, owner=sid_of(lab), name="left.exe")
    lab.remove()
    assert set(lab.host.machine.processes) == before
