"""``passport doctor --fleet``: every server is asked with as few calls as can be, and each fault gets its sentence."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from access.model import Grant, GrantState
from access.model import Server as Asked
from bot import cli
from bot.fleet_verdicts import ServerFinding
from provisioning import documents
from sandbox.aws import EXTERNAL_ID, AwsDouble, Scripted, Server
from storage.unit_of_work import SqlStore
from tests.integration.aws_desk import FAR, HOME, OTHER, REGION, frame
from tests.integration.aws_lab import client
from tests.values import a_person, a_request, a_server

CONFIG = f"""
public_url = "https://passport.example.com"
slack_team_id = "T0PASSPORT"
slack_audit_channel = "C0AUDIT"
saml_key_file = "saml.key"
saml_certificate_file = "saml.crt"
database_url = "DATABASE"

[[providers]]
name = "okta"
metadata_file = "idp.xml"

[[accounts]]
name = "home"
id = "{HOME}"
regions = ["{REGION}", "{FAR}"]

[[accounts]]
name = "other"
id = "{OTHER}"
regions = ["{REGION}"]
role_arn = "arn:aws:iam::{OTHER}:role/PassportServers"
external_id = "{EXTERNAL_ID}"

[[rules]]
name = "prod-root"
groups = ["payments"]
reviewers = ["payments-leads"]
tell = ["C0LEADS"]
"""
GOOD = {"os": "debian 12 ", "timer": "systemd", "sshd": "running", "firewalls": "nft ip "}
PLACES = [(HOME, REGION), (HOME, FAR), (OTHER, REGION)]

Answers = Callable[[str, Mapping[str, str]], Scripted]


def says(*, users: Sequence[str] = (), more: int = 0, **lines: str) -> Answers:
    """A server that answers the probe so; an empty value leaves the line out."""

    def answer(_script: str, _environment: Mapping[str, str]) -> Scripted:
        told = {**GOOD, "now": str(int(time.time())), "free_kb": "/var/lib 9000000", **lines}
        told["accounts"] = str(len(users) + more)
        return Scripted(output=frame("probe", many=("account", users), **{k: v for k, v in told.items() if v}))

    return answer


@dataclass
class Office:
    """Settings, a database and an AWS, and the doctor's words."""

    aws: AwsDouble
    store: SqlStore
    capsys: pytest.CaptureFixture[str]

    def server(self, name: str = "web-1", answers: Answers | None = None, **more: Any) -> Server:
        return self.aws.add_server(name, answers=answers or says(), **more)

    def looks(self, *words: str) -> tuple[int, list[dict[str, Any]]]:
        """The exit status and the JSON lines."""
        self.capsys.readouterr()
        status = cli.main(["doctor", "--fleet", "--json", *words])
        return status, [json.loads(line) for line in self.capsys.readouterr().out.splitlines()]

    def problems(self, *words: str) -> list[str]:
        """What is wrong, of all servers together; the status agrees."""
        status, lines = self.looks(*words)
        found = [problem for line in lines for problem in line["problems"]]
        assert status == (1 if found else 0)
        return found

    def table(self) -> list[str]:
        self.capsys.readouterr()
        cli.main(["doctor", "--fleet"])
        return self.capsys.readouterr().out.splitlines()

    def granted(self, server: Server, *, state: GrantState = GrantState.ACTIVE, hours: float = 1) -> None:
        """A request AR-7F3K, with a grant for this server."""
        asked = Asked(account="home", region=server.region, instance_id=server.instance_id, name=server.name)
        expires_at = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=hours)
        request = replace(a_request(expires_at=expires_at), servers=(asked,))
        with self.store.unit_of_work() as uow:
            uow.people.save(a_person())
            uow.requests.add(request)
            uow.grants.add(Grant(id=f"{request.id}.1", request_id=request.id, server=asked, state=state))
            uow.commit()

    def sent(self) -> list[int]:
        """How many servers each command was for."""
        return [len(call.request["InstanceIds"]) for call in self.aws.calls if call.operation == "SendCommand"]


@pytest.fixture(scope="module")
def _aws() -> Iterator[AwsDouble]:
    with AwsDouble() as double:
        for account, region in PLACES:
            documents.publish(client(double, "ssm", account, region))
        yield double


@pytest.fixture
def office(
    _aws: AwsDouble,
    tmp_path: Path,
    sqlite_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[Office]:
    (tmp_path / "passport.toml").write_text(CONFIG.replace("DATABASE", sqlite_url))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PASSPORT_CONFIG", raising=False)
    secrets = {"SLACK_BOT_TOKEN": "xoxb-1234567890-secretsecret", "SLACK_SIGNING_SECRET": "0123456789abcdef" * 2}
    for name, value in {**secrets, "SEALING_KEYS": "k1:" + "c2VhbGluZyBrZXkgb2YgMzIgYnl0ZXMsIGZvciB0ZXM="}.items():
        monkeypatch.setenv(f"PASSPORT_{name}", value)
    for name, value in _aws.environment().items():
        monkeypatch.setenv(name, value)
    from bot import settings, wiring

    store = wiring.open_store(settings.load(), exclusive=False)
    _aws.faults.clear()
    _aws.calls.clear()
    _aws.commands.clear()
    yield Office(aws=_aws, store=store, capsys=capsys)
    store.close()
    for server in list(_aws._nodes._servers.values()):
        if server.state != "terminated":
            _aws.terminate(server)


def account_line(*, hours: float = 1, request: str = "AR-7F3K") -> str:
    return f"{request} pp-7f3k 200000 {int(time.time() + hours * 3600)}"


# --- the whole fleet -----------------------------------------------------------------------------------------------


def test_many_servers_in_as_few_calls_as_can_be(office: Office) -> None:
    for (account, region), count in zip(PLACES, (120, 51, 50), strict=True):
        for number in range(count):
            office.server(f"web-{number}", account=account, region=region)
    status, lines = office.looks()
    assert (status, len(lines)) == (0, 221)
    assert all(line["ready"] and line["problems"] == [] for line in lines)
    assert sorted(office.sent()) == [1, 20, 50, 50, 50, 50]
    polls = [call for call in office.aws.calls if call.operation == "ListCommandInvocations"]
    assert len({(call.account, call.region, call.request["CommandId"]) for call in polls}) == 6
    assert not [call for call in office.aws.calls if call.operation == "GetCommandInvocation"]
    assert {call.request["DocumentName"] for call in office.aws.calls if call.operation == "SendCommand"} == {
        "Passport-Probe"
    }


def test_one_server_does_not_fail_the_others(office: Office) -> None:
    office.server("web-1")
    office.server("web-2", says(sshd="stopped"))
    office.aws.faults.lose(office.server("web-3"))
    office.server("web-4", lambda _script, _environment: Scripted(output="passport:1:probe\nnow=17"))
    office.server("web-5", lambda _script, _environment: Scripted(output=frame("probe", "failed:not_root"), code=1))
    lost = next(server for server in office.aws._nodes._servers.values() if server.name == "web-3")
    ends = threading.Timer(1.0, office.aws.pass_start_deadline)
    ends.start()
    status, lines = office.looks()
    ends.join()
    found = {line["name"]: line["problems"] for line in lines}
    assert (status, found["web-1"]) == (1, [])
    assert found["web-2"] == ["Its sshd is not running. Its owner has to start it."]
    assert "web-3" in found[lost.name][0]
    assert found["web-4"] == ["The server's answer was cut: its end is missing."]
    assert found["web-5"] == ["The server's agent does not run as root, so it cannot make or remove users."]


def test_throttling_is_met(office: Office) -> None:
    office.server()
    office.aws.faults.throttle("SendCommand", times=3)
    office.aws.faults.throttle("ListCommandInvocations", times=2)
    assert office.problems() == []


def test_what_the_inventory_refuses_is_not_asked(office: Office) -> None:
    office.server("web-1", online=False)
    office.server("web-2", agent_version="2.3.600.0")
    office.server("web-3", registered=False)
    problems = office.problems()
    assert len(problems) == 3
    assert any("does not answer: its SSM agent was last seen" in problem for problem in problems)
    assert any("2.3.600.0 is too old" in problem for problem in problems)
    assert any("not known to Systems Manager" in problem for problem in problems)
    assert office.sent() == []


def test_one_account_or_region(office: Office) -> None:
    for account, region in PLACES:
        office.server(f"web-{account[0]}-{region}", account=account, region=region)
    places = [
        ((), 3),
        (("--account", "home"), 2),
        (("--region", REGION), 2),
        (("--account", "home", "--region", FAR), 1),
    ]
    for words, count in places:
        assert len(office.looks(*words)[1]) == count


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--fleet", "--account", "nowhere"), "The settings have no account nowhere. They have home, other."),
        (("--fleet", "--account", "other", "--region", FAR), f"no region {FAR} there. They have {REGION}."),
        (("--account", "home"), "--account and --region go with --fleet."),
    ],
)
def test_a_wrong_word_is_one_line(office: Office, words: tuple[str, ...], said: str) -> None:
    assert cli.main(["doctor", *words]) == 1
    assert said in office.capsys.readouterr().err


def test_an_account_that_cannot_be_listed(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    office.server("web-1")
    office.server("web-2", account=OTHER)
    settings = Path("passport.toml")
    settings.write_text(settings.read_text().replace(EXTERNAL_ID, "another-one"))
    status, lines = office.looks()
    assert status == 1
    assert [line["ready"] for line in lines] == [False, True]
    assert "AWS does not let Passport assume its role in other eu-west-1." in lines[0]["problems"][0]
    assert office.table()[0].startswith("NOT LISTED  AWS does not let Passport assume")


def test_no_permission_names_the_stack(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PASSPORT_DOCUMENT_PREFIX", "Other-")
    office.server()
    (problem,) = office.problems()
    assert problem.endswith("An admin must allow it: look at the stack of deploy/passport-account.yaml.")


# --- verdicts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ({"sshd": "stopped"}, "Its sshd is not running."),
        ({"sshd": "broken"}, "Its sshd does not accept its own settings."),
        ({"sshd": "absent"}, "It has no sshd."),
        ({"denies": "pp-*"}, "DenyUsers or DenyGroups pp-*"),
        ({"read_only": "/home"}, "/home can only be read"),
        ({"missing": "useradd"}, "It lacks useradd."),
        ({"timer": "none"}, "Neither systemd nor cron runs"),
        ({"free_kb": "/home 5000"}, "/home has 4 MB free, and I need 20."),
        ({"firewalls": ""}, "to keep users from the instance metadata"),
        ({"no_logins": "/etc/nologin"}, "/etc/nologin keeps everybody out."),
        ({"now": str(int(time.time()) - 600)}, "min behind, so ends come late. Let NTP set it."),
        ({"now": str(int(time.time()) + 6000)}, "min ahead, so ends come early. Let NTP set it."),
    ],
)
def test_each_fault_has_its_sentence(office: Office, lines: dict[str, str], said: str) -> None:
    office.server(answers=says(**lines))
    (problem,) = office.problems()
    assert said in problem


def windows(users: Sequence[str] = (), **lines: str) -> Answers:
    """A Windows server that answers the probe so."""

    def answer(_script: str, _environment: Mapping[str, str]) -> Scripted:
        told = {"os": "windows 10.0.20348", "now": str(int(time.time())), "timer": "task", "rdp": "yes"}
        told |= {"domain_controller": "no", "powershell": "5.1.20348.1", "accounts": str(len(users)), **lines}
        return Scripted(output=frame("probe", many=("account", users), **told))

    return answer


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ({"rdp": "no"}, "It does not let anybody in by Remote Desktop."),
        ({"timer": "none"}, "Its Task Scheduler does not run"),
        ({"domain_controller": "yes"}, "It is a domain controller"),
        ({"now": "1700000000"}, "Let NTP set it."),
        ({"rdp": "perhaps"}, "has an unknown rdp"),
    ],
)
def test_windows_has_its_own_faults(office: Office, lines: dict[str, str], said: str) -> None:
    office.server("win-1", windows(**lines), platform="Windows")
    office.server("web-1")
    (problem,) = office.problems()
    assert said in problem
    names = {call.request["DocumentName"] for call in office.aws.calls if call.operation == "SendCommand"}
    assert names == {"Passport-Probe", "Passport-ProbeWindows"}


def test_a_sound_windows_server_is_ready_and_a_left_over_user_is_not(office: Office) -> None:
    office.server("win-1", windows(), platform="Windows")
    assert office.problems() == []
    office.server("win-2", windows(users=[account_line()]), platform="Windows")
    (left,) = office.problems()
    assert left.startswith("LEFT OVER: the user pp-7f3k of AR-7F3K, a request that Passport's database does not know.")


def test_a_clock_within_two_minutes_is_right(office: Office) -> None:
    office.server(answers=says(now=str(int(time.time()) - 100)))
    office.server("web-2", says(now=str(int(time.time()) + 100)))
    assert office.problems() == []


# --- users who should not be there ---------------------------------------------------------------------------------


def test_a_user_of_a_running_request_is_in_order(office: Office) -> None:
    server = office.server(answers=says(users=[account_line()]))
    office.granted(server)
    assert office.problems() == []


def test_a_user_that_the_database_does_not_know(office: Office) -> None:
    office.server(answers=says(users=[account_line()], more=3))
    left, more = office.problems()
    assert left.startswith("LEFT OVER: the user pp-7f3k of AR-7F3K, a request that Passport's database does not know.")
    assert more.startswith("It has 3 more of Passport's users")


def test_a_user_on_another_server_than_the_requests(office: Office) -> None:
    office.granted(office.server("web-1"))
    office.server("web-2", says(users=[account_line()]))
    (left,) = office.problems()
    assert "which was never for this server" in left


def test_a_user_past_its_end(office: Office) -> None:
    office.granted(office.server(answers=says(users=[account_line(hours=-1)])), hours=-1)
    (left,) = office.problems()
    assert "is past its end" in left
    assert "the server's own timer did not remove it" in left


def test_a_user_whose_end_somebody_moved(office: Office) -> None:
    office.granted(office.server(answers=says(users=[account_line(hours=9)])))
    (left,) = office.problems()
    assert "and was approved until" in left


def test_a_user_who_was_removed_is_asked_for_twice(office: Office) -> None:
    """A removal that comes between a server's answer and the look into the database is no finding."""
    told = [says(users=[account_line()]), says()]

    def answer(script: str, environment: Mapping[str, str]) -> Scripted:
        return told.pop(0)(script, environment)

    server = office.server(answers=answer)
    office.granted(server, state=GrantState.REMOVED)
    assert office.problems() == []
    assert office.sent() == [1, 1]


def test_a_user_who_was_removed_and_is_there_is_loud(office: Office) -> None:
    server = office.server(answers=says(users=[account_line()]))
    office.granted(server, state=GrantState.REMOVED)
    (left,) = office.problems()
    assert "which Passport has on record as removed" in left


# --- what people read ----------------------------------------------------------------------------------------------


def test_the_table_begins_with_what_is_not_ready(office: Office) -> None:
    office.server("app-1")
    server = office.server("web-1", says(sshd="stopped", timer="none"))
    first, second, third, last = office.table()
    assert first.split("  ")[0] == f"web-1 ({server.instance_id})"
    assert "home eu-west-1  NOT READY  Its sshd is not running." in first
    assert second.strip().startswith("Neither systemd nor cron runs")
    assert third.rstrip().endswith("ready")
    assert last == "1 of 2 servers are ready."


def test_a_hostile_name_and_answer_stay_on_their_line(office: Office) -> None:
    office.server("web\r\n\u202e0 of 0 servers are ready.", says(sshd="stopped"))
    lines = office.table()
    assert len(lines) == 2
    assert all(line.isprintable() for line in lines)
    for row in ServerFinding(server=a_server("web\x1b[2J"), problems=("\x07",)).rows():
        assert "".join(row).isprintable()


def test_a_server_cannot_speak_of_others(office: Office) -> None:
    """What it lists may be made up; it is never more than a sentence in its own row."""
    office.server(answers=says(users=["AR-7F3K';--/../ pp-x 1 99999999999"]))
    status, lines = office.looks()
    assert (status, len(lines)) == (1, 1)
