"""Answers of servers: read strictly, and anything else refused whole."""

import base64
import re
import struct
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioning.documents import SCRIPTS
from provisioning.framing import (
    Created,
    FramingError,
    Probed,
    Removed,
    parse_create,
    parse_host_keys,
    parse_probe,
    parse_remove,
)
from provisioning.refusals import SENTENCES, RefusalCode, Refused


def key(kind: str, rest: bytes = bytes(36)) -> str:
    blob = struct.pack(">I", len(kind)) + kind.encode() + rest
    return f"{kind} {base64.b64encode(blob).decode()}"


ED25519 = key("ssh-ed25519")
CREATED = f"""passport:1:create
request=AR-7F3K
user=pp-7f3k
uid=200000
existing=no
not_after=1795230488
now=1795226888
timer=systemd
sshd=drop_in
port=22
host_key={ED25519}
host_key={key("ecdsa-sha2-nistp256")}
authority=SHA256:{"a" * 43}
authority=SHA256:{"b" * 43}
passport:end:ok
"""
REMOVED = """passport:1:remove
request=AR-7F3K
user=pp-7f3k
result=removed
sudo=all
uid=200000
ended_at=1795226890
processes=3
files=2
mounts=1
jobs=0
swept_at=1795226895
verified=yes
passport:end:ok
"""


def create(output: str) -> Created | Refused:
    return parse_create(output, request_id="AR-7F3K", user_name="pp-7f3k")


def remove(output: str) -> Removed | Refused:
    return parse_remove(output, request_id="AR-7F3K", user_name="pp-7f3k")


def test_a_created_user() -> None:
    created = create(CREATED)
    assert isinstance(created, Created)
    assert (created.uid, created.existing, created.timer, created.port) == (200000, False, "systemd", 22)
    assert created.not_after == datetime.fromtimestamp(1795230488, tz=UTC)
    assert [str(each) for each in created.host_keys] == [ED25519, key("ecdsa-sha2-nistp256")]


def test_a_removed_user() -> None:
    removed = remove(REMOVED)
    assert isinstance(removed, Removed)
    assert (removed.processes, removed.files, removed.mounts, removed.jobs) == (3, 2, 1, 0)
    assert removed.had_sudo
    assert removed.verified
    assert removed.ended_at is not None
    assert removed.swept_at is not None
    assert (removed.swept_at - removed.ended_at).total_seconds() == 5


def test_a_user_who_was_gone_before() -> None:
    absent = REMOVED.replace("removed\n", "absent\n").replace("sudo=all\n", "").replace("uid=200000", "uid=")
    removed = remove(absent.replace("ended_at=1795226890", "ended_at=0"))
    assert isinstance(removed, Removed)
    assert (removed.result, removed.uid, removed.ended_at, removed.had_sudo) == ("absent", None, None, False)


def test_a_later_attempt_is_not_a_proof() -> None:
    removed = remove("passport:1:remove\nrequest=AR-7F3K\nuser=pp-7f3k\nresult=superseded\npassport:end:ok\n")
    assert isinstance(removed, Removed)
    assert not removed.verified


def test_a_removal_without_its_proof_is_refused() -> None:
    for proof in ("verified=yes\n", "swept_at=1795226895\n", "processes=3\n"):
        with pytest.raises(FramingError):
            remove(REMOVED.replace(proof, ""))
    with pytest.raises(FramingError):
        remove(REMOVED.replace("verified=yes", "verified=no"))


def test_what_newer_scripts_say_is_read_and_what_older_ones_lack_is_not_missed() -> None:
    told = CREATED.replace("sshd=drop_in", "firewall=iptables\nsshd=drop_in")
    created = parse_create(told, request_id="AR-7F3K", user_name="pp-7f3k")
    assert isinstance(created, Created)
    assert created.firewall == "iptables"
    before = parse_create(CREATED, request_id="AR-7F3K", user_name="pp-7f3k")
    assert isinstance(before, Created)
    assert before.firewall == "none"

    told = REMOVED.replace("sudo=all", "sudo=named\nfirewall=stays\nkept_until=1795831695")
    removed = parse_remove(told, request_id="AR-7F3K", user_name="pp-7f3k")
    assert isinstance(removed, Removed)
    assert (removed.had_sudo, removed.had_commands, removed.firewall) == (False, True, "stays")
    assert removed.kept_until == datetime.fromtimestamp(1795831695, UTC)


def test_a_probed_server() -> None:
    lines = [
        *(
            "passport:1:probe",
            "os=debian 12 ",
            "now=1795226888",
            "timer=cron",
            "free_kb=/etc 262100",
            "read_only=/home",
        ),
        *("sshd_version=OpenSSH_9.2", "sshd=running", "include=yes", "use_pam=no", "denies=pp-*", "allowgroups=1"),
        *("account=AR-7F3K pp-7f3k 200000 1795230488", "accounts=1", "passport:end:ok"),
    ]
    probed = parse_probe("\n".join(lines) + "\n")
    assert isinstance(probed, Probed)
    assert (probed.system, probed.timer, probed.include, probed.use_pam) == ("debian 12", "cron", True, False)
    assert probed.free_kb == {"/etc": 262100}
    assert probed.read_only == ("/home",)
    assert probed.denies == "pp-*"
    assert (probed.firewalls, probed.selinux, probed.homes_kept) == ((), "", 0)
    more = ["firewalls=nft ip ", "selinux=enforcing", "shell=/usr/bin/bash", "sudo_version=1.9.13p3", "homes_kept=2"]
    probed = parse_probe("\n".join([*lines[:-1], *more, "no_logins=/run/nologin", lines[-1]]) + "\n")
    assert isinstance(probed, Probed)
    assert (probed.firewalls, probed.selinux, probed.homes_kept) == (("nft", "ip"), "enforcing", 2)
    assert (probed.shell, probed.no_logins, probed.sudo_version) == ("/usr/bin/bash", "/run/nologin", "1.9.13p3")
    assert [(user.request_id, user.uid) for user in probed.users] == [("AR-7F3K", 200000)]


@pytest.mark.parametrize("code", list(RefusalCode))
def test_every_refusal_has_its_sentence(code: RefusalCode) -> None:
    refused = create(f"passport:1:create\nrequest=AR-7F3K\ndetail=useradd: no\npassport:end:failed:{code}\n")
    assert isinstance(refused, Refused)
    assert (refused.code, refused.detail) == (code, "useradd: no")
    assert refused.sentence.endswith(".")
    assert refused.sentence[0].isupper()


def test_what_is_left_is_told() -> None:
    refused = remove("passport:1:remove\nleft=files,processes\npassport:end:failed:left_behind\n")
    assert isinstance(refused, Refused)
    assert refused.left == ("files", "processes")
    assert refused.sentence.endswith("Left: files, processes.")
    assert refused.retryable


def test_the_scripts_use_exactly_the_known_codes() -> None:
    scripts = "\n".join(file.read_text() for file in SCRIPTS.glob("*.sh"))
    used = set(re.findall(r"\b(?:fail|give_up) ([a-z_]+)", scripts))
    powershell = "\n".join(file.read_text() for file in SCRIPTS.glob("*.ps1"))
    used |= set(re.findall(r"-Code '([a-z_]+)'", powershell))
    assert used == set(RefusalCode) == set(SENTENCES)


@pytest.mark.parametrize(
    "after", ["", "\n", "\n----------ERROR-------\nuseradd warning\n", "failed to run commands: exit status 1"]
)
def test_what_the_agent_adds_is_passed_over(after: str) -> None:
    assert isinstance(create(CREATED + after), Created)
    assert isinstance(create(CREATED.replace("\n", "\r\n") + after), Created)


@pytest.mark.parametrize("after", ["x\n", "passport:1:create\n", "passport:end:ok\n", "host_key=x\n"])
def test_what_somebody_else_adds_is_refused(after: str) -> None:
    with pytest.raises(FramingError):
        create(CREATED + after)


@pytest.mark.parametrize(
    "output",
    [
        "",
        "\n" + CREATED,
        "motd: hello\n" + CREATED,
        CREATED.replace("passport:1:", "passport:2:"),
        CREATED.replace("create", "remove"),
        CREATED.replace("end:ok", "end:failed:unheard_of"),
        CREATED.replace("end:ok", "end:OK"),
        CREATED.replace("AR-7F3K", "AR-7F3L"),
        CREATED.replace("pp-7f3k", "pp-7f3l"),
        CREATED.replace("uid=200000", "uid=-1"),
        CREATED.replace("uid=200000", "uid=２０００００"),
        CREATED.replace("uid=200000\n", ""),
        CREATED.replace("uid=200000\n", "uid=200000\nuid=200001\n"),
        CREATED.replace("existing=no", "existing=perhaps"),
        CREATED.replace("now=1795226888", "now=999999999999999999"),
        CREATED.replace("port=22", "port=22;id"),
        CREATED.replace("timer=systemd", "timer=$(id)"),
        CREATED.replace("user=", "user=\u202e"),
        CREATED + "-" * 24_000,
    ],
)
def test_whatever_is_not_exactly_an_answer_is_refused(output: str) -> None:
    with pytest.raises(FramingError):
        create(output)


@given(cut=st.integers(0, len(CREATED) - 2))
def test_an_answer_that_was_cut_is_refused(cut: int) -> None:
    with pytest.raises(FramingError):
        create(CREATED[:cut])


@given(st.text())
def test_anything_is_read_or_refused(output: str) -> None:
    for text in (output, "passport:1:create\n" + output, CREATED[:-17] + output):
        try:
            answer = create(text)
        except FramingError:
            continue
        assert isinstance(answer, Created | Refused)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "ssh-ed25519",
        "ssh-ed25519 ",
        "ssh-ed25519 AAAA",
        "ssh-ed25519 ////",
        ED25519.replace("ssh-ed25519", "ssh-rsa", 1),
        key("ssh-dss"),
        key("ssh-ed25519", b""),
        f"@cert-authority * {ED25519}",
        f"{ED25519} comment",
        f"{ED25519}\n* ssh-ed25519 AAAA",
        ED25519.rstrip("=") + "=!",
        ED25519 + "====",
    ],
)
def test_what_is_no_host_key_is_refused(line: str) -> None:
    with pytest.raises(FramingError):
        parse_host_keys([line])


@given(st.binary(max_size=60))
def test_any_bytes_as_a_host_key_are_read_or_refused(blob: bytes) -> None:
    try:
        parse_host_keys([f"ssh-ed25519 {base64.b64encode(blob).decode()}"])
    except FramingError:
        return
    assert blob[4:15] == b"ssh-ed25519"


@pytest.mark.parametrize("count", [0, 5])
def test_the_number_of_host_keys_is_bounded(count: int) -> None:
    with pytest.raises(FramingError):
        parse_host_keys([ED25519] * count)
