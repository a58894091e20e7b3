"""The shell functions for sudo, the metadata wall, warnings and answers, run by every shell that /bin/sh may be."""

import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from provisioning.documents import SCRIPTS, SHARED, SWEEPER
from provisioning.framing import Created, Probed, parse_create, parse_probe, parse_remove
from provisioning.refusals import Refused
from provisioning.sudo_commands import PATTERN
from tests.unit.test_documents import SHELLS
from tests.unit.test_documents_shell import run

CREATE = (SCRIPTS / "create.sh").read_text().removesuffix("create_main\n")
PROBE = (SCRIPTS / "probe.sh").read_text().removesuffix("probe_main\n")
WARN = (SCRIPTS / "warn.sh").read_text()
# "Data elements": what ListCommandInvocations keeps of an answer.
MOST = 2500
every_shell = pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell[0])


# -- sudo --------------------------------------------------------------------------------------------------------


@every_shell
def test_sudos_rules_are_fixed_to_the_last_word(shell: list[str]) -> None:
    sudo = "/usr/bin/systemctl restart a@b.service,/usr/sbin/nginx,/usr/bin/journalctl --no-pager --since=10:20"
    assert run(f"{CREATE}\nUSER_NAME=pp-7f3k SUDO='{sudo}'\nsudo_rules", *SHARED, shell=shell) == (
        "pp-7f3k ALL=(root) NOPASSWD: /usr/bin/systemctl restart a@b.service\n"
        'pp-7f3k ALL=(root) NOPASSWD: /usr/sbin/nginx ""\n'
        "pp-7f3k ALL=(root) NOPASSWD: /usr/bin/journalctl --no-pager --since\\=10\\:20\n"
    )
    every = "pp-7f3k ALL=(ALL:ALL) NOPASSWD: ALL\n"
    assert run(f"{CREATE}\nUSER_NAME=pp-7f3k SUDO=all\nsudo_rules", *SHARED, shell=shell) == every
    assert run(f"{CREATE}\nUSER_NAME=pp-7f3k SUDO=all\nsudo_commands", *SHARED, shell=shell) == ""


@every_shell
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sudo=st.from_regex(PATTERN, fullmatch=True).filter(lambda text: "\n" not in text and text.startswith("/")))
def test_whatever_the_pattern_admits_is_one_rule_a_command_and_the_same_words(shell: list[str], sudo: str) -> None:
    rules = run(f"{CREATE}\nUSER_NAME=pp-7f3k SUDO='{sudo}'\nsudo_rules", *SHARED, shell=shell).splitlines()
    said = [re.sub(r"\\([:=])", r"\1", rule.partition("NOPASSWD: ")[2]).removesuffix(' ""') for rule in rules]
    assert said == sudo.split(",")
    assert all(rule.startswith("pp-7f3k ALL=(root) NOPASSWD: /") for rule in rules)
    assert not any(re.search(r"(?<!\\)[:=]", rule.partition("NOPASSWD: ")[2]) for rule in rules)


@every_shell
@pytest.mark.parametrize(
    ("asked", "had", "noted"),
    [
        *(("none", "", "none"), ("all", "", "all"), ("/bin/x y", "", "named"), ("none", "named", "named")),
        *(("none", "all", "all"), ("/bin/x", "all", "all"), ("all", "named", "all"), ("/bin/x", "none", "named")),
    ],
)
def test_the_marker_remembers_the_most_that_was_ever_given(
    tmp_path: Path, shell: list[str], asked: str, had: str, noted: str
) -> None:
    (tmp_path / "requests").mkdir()
    marker = tmp_path / "requests/AR-7F3K"
    if had:
        marker.write_text(f"had_sudo={had}\n")
    steps = f"STATE={tmp_path} REQUEST_ID=AR-7F3K ATTEMPT=1 USER_NAME=pp-7f3k USER_ID=200000 HOME_DIR=/home/pp-7f3k"
    steps += f"\nUID_FIRST=200000 DEAD_ID=524287 METADATA=closed KEEP_HOME=0 NOT_AFTER=1795230488 SUDO='{asked}'"
    run(f"{CREATE}\n{steps}\nwrite_marker", *SHARED, shell=shell)
    assert f"had_sudo={noted}\n" in marker.read_text()


# -- the wall ----------------------------------------------------------------------------------------------------


def marker(uid: int, metadata: str = "closed", first: int = 200000, last: int = 524287) -> str:
    return f"user=pp-x\nuid={uid}\nuid_first={first}\ndead_uid={last}\nmetadata={metadata}\nnot_after=1\n"


@every_shell
@pytest.mark.parametrize(
    ("markers", "plan"),
    [
        ([], ""),
        ([marker(200000)], "200000-524287\n"),
        ([marker(200000, "open")], ""),
        ([marker(200000), marker(200001, "open"), marker(200002, "open")], "200000-524287\n200001\n200002\n"),
        # The range of the settings may change between two requests: both are walled in.
        ([marker(200000), marker(700000, first=700000, last=800000)], "200000-800000\n"),
        # An earlier version's marker said neither; its user was closed to nobody, and is closed to now.
        (["user=pp-x\nuid=200000\ndead_uid=524287\n"], "200000-524287\n"),
        (["user=pp-x\nuid=200000; reboot\ndead_uid=524287\n"], ""),
        (["", "rubbish\n", marker(200005)], "200000-524287\n"),
    ],
)
def test_the_wall_is_planned_from_the_records(tmp_path: Path, shell: list[str], markers: list[str], plan: str) -> None:
    (tmp_path / "requests").mkdir()
    for number, text in enumerate(markers):
        (tmp_path / f"requests/AR-000{number}").write_text(text)
    assert run(f"STATE={tmp_path}\nwall_plan", *SHARED, shell=shell) == plan


@every_shell
@pytest.mark.parametrize(
    ("there", "tools"),
    [
        ("nft iptables iptables-restore ip6tables-restore ip", "nft\niptables\nip\n"),
        ("iptables iptables-restore ip", "ip\n"),  # half a firewall is none: the service has an IPv6 address, too
        ("iptables iptables-restore ip6tables-restore", "iptables\n"),
        ("", ""),
    ],
)
def test_what_a_wall_can_be_made_of(tmp_path: Path, shell: list[str], there: str, tools: str) -> None:
    (tmp_path / "printf").symlink_to("/usr/bin/printf")  # for shells that have none of their own
    for name in there.split():
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    ipv6 = "has_ipv6() { true; }"
    assert run(f"PATH={tmp_path}\n{ipv6}\nwall_tools", *SHARED, shell=shell) == tools


# -- warnings ----------------------------------------------------------------------------------------------------


@every_shell
@pytest.mark.parametrize(
    ("left", "said", "marks"),
    [
        *((3600, "", []), (630, "", []), (629, "10 minutes", ["10"]), (570, "10 minutes", ["10"])),
        *((300, "5 minutes", ["10"]), (149, "2 minutes", ["2"]), (90, "2 minutes", ["2"]), (89, "1 minute", ["2"])),
        *((20, "less than a minute", ["2"]), (0, "", []), (-5, "", [])),
    ],
)
def test_when_and_how_the_end_is_announced(
    tmp_path: Path, shell: list[str], left: int, said: str, marks: list[str]
) -> None:
    (tmp_path / "requests").mkdir()
    (tmp_path / "requests/AR-7F3K").write_text("not_after=1795230488\n")
    fakes = f"load_marker() {{ true; }}\nsay_to_terminals() {{ printf '%s\\n' \"$1\"; }}\nSTATE={tmp_path}\n"
    fakes += f"WARNED={tmp_path}/warned\n"
    words = run(
        f"{WARN}\n{fakes}warn_request AR-7F3K {left}\nwait\nwarn_request AR-7F3K {left}\nwait", *SHARED, shell=shell
    )
    assert re.findall("in (.*?)\\. Your", words) == ([said] if said else [])
    assert "Access ends 03:08 UTC" in words or not said
    noted = sorted(file.name.rpartition(".")[2] for file in tmp_path.glob("warned/*"))
    assert noted == marks


@every_shell
def test_an_end_that_was_moved_is_announced_anew(tmp_path: Path, shell: list[str]) -> None:
    (tmp_path / "requests").mkdir()
    record = tmp_path / "requests/AR-7F3K"
    fakes = "load_marker() { true; }\nsay_to_terminals() { echo said; }\n"
    fakes += f"STATE={tmp_path}\nWARNED={tmp_path}/warned\n"
    steps = f"echo not_after=1000 >{record}\nwarn_request AR-7F3K 500\nwait\necho not_after=2000 >{record}\n"
    assert run(f"{WARN}\n{fakes}{steps}warn_request AR-7F3K 500\nwait", *SHARED, shell=shell) == "said\nsaid\n"


@every_shell
@pytest.mark.parametrize(
    ("stat", "number"),
    [
        ("7 (sh) S 1 7 7 34816 -1 0", 34816),
        ("7 (a) b) (c) S 1 7 7 34817 -1 0", 34817),
        ("7 (new\nline) R 99 99 99 34818) S 1 7 7 34819 -1 0", 34819),
        ("7 (sh) S 1 7 7 0 -1 0", 0),
        ("7 (sh", 0),
        ("", 0),
        ("7 (sh) S 1 7 7 $(id) -1", 0),
    ],
)
def test_the_terminal_is_read_from_what_the_kernel_says(
    tmp_path: Path, shell: list[str], stat: str, number: int
) -> None:
    (tmp_path / "stat").write_text(stat)
    patched = WARN.replace("/proc/$1/stat", f"{tmp_path}/stat")
    assert patched != WARN
    assert run(f"{patched}\nterminal_number 7", *SHARED, shell=shell) == f"{number}\n"


@every_shell
def test_somebody_elses_terminal_a_link_and_a_file_are_not_theirs(tmp_path: Path, shell: list[str]) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to("/dev/null")
    said = run(
        f"{WARN}\nUSER_ID=200000\n"
        f"for way in {tmp_path}/file {tmp_path}/link {tmp_path}/none; do is_theirs $way $$ && echo $way; done\n"
        "is_theirs /dev/null $$ && echo ours\n"
        "stat() { echo 1000; }\nis_theirs /dev/null $$ && echo somebody\n"
        "stat() { echo 200000; }\nis_theirs /dev/null $$ && echo theirs\n:",
        *SHARED,
        shell=shell,
    )
    assert said == "ours\ntheirs\n"


# -- answers -----------------------------------------------------------------------------------------------------


def tools(folder: Path, **programs: str) -> str:
    """A line that puts programs before all others."""
    for name, text in programs.items():
        file = folder / name.replace("_", "-")
        file.write_text(f"#!/bin/sh\n{text}\n")
        file.chmod(0o755)
    return f"PATH={folder}:$PATH"


def rsa(length: int, number: int) -> str:
    """A public key line that is as long as one of so many characters, and of the right form."""
    import base64

    head = b"\0\0\0\x07ssh-rsa"
    body = base64.b64encode(head + bytes([number]) * (length * 3 // 4 - len(head))).decode()
    return f"ssh-rsa {body[:length]}"


@every_shell
def test_the_longest_answer_of_create_fits_and_is_whole(tmp_path: Path, shell: list[str]) -> None:
    keys = "\n".join(rsa(996, number) for number in range(1, 6))
    small = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAbQ6kKZAa3YLcDNc1ZXMIyrvbO+h5ZhBAF1Kzv/bYFs"
    (tmp_path / "keys").write_text(f"{keys}\n{small}\n")
    path = tools(tmp_path, ssh_keygen=f"cat {tmp_path}/keys", sshd="echo port 22222")
    fakes = """
sshd_effective() { printf 'hostkey /etc/ssh/%s\\n' 1; }
trusted_authorities() { for n in 1 2; do echo SHA256:8lZGhj8q6lMUazaOZeag8N0OiWFYa0Scwm7fTKyJMS0; done; }
timekeeper() { echo systemd; }
begin_answer create
answer request AR-12345678
answer user pp-12345678
USER_ID=524286 EXISTING=yes NOT_AFTER=1795230488 PLACE=drop_in WALL_TOOL=iptables USER_NAME=pp-12345678
SSHD_CONFIG=x
"""
    said = run(f"{CREATE}\n{path}{fakes}SSHD={tmp_path}/sshd\nreport_created", *SHARED, shell=shell)
    assert len(said) < MOST
    created = parse_create(said, request_id="AR-12345678", user_name="pp-12345678")
    assert isinstance(created, Created)
    assert str(created.host_keys[0]) == small
    assert len(created.host_keys) == 2


@every_shell
def test_the_longest_answer_of_the_probe_fits_and_is_whole(tmp_path: Path, shell: list[str]) -> None:
    (tmp_path / "requests").mkdir()
    for number in range(60):
        text = f"user=pp-1234567{number % 10}\nuid=524286\nnot_after=1795230488\n"
        (tmp_path / f"requests/AR-123456{number:02}").write_text(text)
        (tmp_path / f"kept/AR-123456{number:02}.1").mkdir(parents=True)
    path = tools(tmp_path, sudo="echo Sudo version " + "9" * 300, getenforce="echo Enforcing" + "g" * 300)
    fakes = f"""
STATE={tmp_path}
find_sshd() {{ true; }}
sshd_runs() {{ true; }}
sshd_accepts() {{ true; }}
sshd_effective() {{ echo usepam yes; for n in $(seq 300); do echo "denyusers pp-*{"x" * 100}"; echo allowgroups g; done; }}
sshd_denial() {{ printf '%0900d' 0; }}
wall_tools() {{ printf 'nft\\niptables\\nip\\n'; }}
timekeeper() {{ echo systemd; }}
SSHD=true SSHD_CONFIG=/dev/null
begin_answer probe
report_system
report_sshd
report_kept
report_users
end_answer
"""
    said = run(f"{PROBE}\n{path}{fakes}", "common", "sshd", "timer", "metadata", shell=shell)
    assert len(said) < MOST
    probed = parse_probe(said)
    assert isinstance(probed, Probed)
    assert (probed.user_count, len(probed.users), probed.homes_kept) == (60, 20, 60)
    assert probed.selinux.startswith("enforcing")


@every_shell
def test_the_longest_refusal_fits(shell: list[str]) -> None:
    steps = "begin_answer remove\nanswer request AR-12345678\nanswer user pp-12345678\nUSER_ID=524286\nLEFT=\n"
    steps += (
        "for kind in account principals sudoers jobs mounts home files processes firewall; do note_left $kind; done\n"
    )
    steps += 'report_counts\nanswer left "$LEFT"\nfail left_behind "$(printf \'%05000d\' 0)"'
    functions = "\n".join((SCRIPTS / f"{name}.sh").read_text() for name in SHARED)
    done = subprocess.run(
        [*shell, "-c", f"{functions}\n{steps}"], capture_output=True, text=True, check=False, timeout=60
    )
    assert len(done.stdout) < MOST
    refused = parse_remove(done.stdout, request_id="AR-12345678", user_name="pp-12345678")
    assert isinstance(refused, Refused)
    assert len(refused.left) == 9


def test_the_sweeper_carries_what_warns() -> None:
    assert SWEEPER == ("warn", "sweep")
