"""Single shell functions of the scripts, run by a real shell where a server would be too slow or cannot be had."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from provisioning.documents import SCRIPTS, SHARED

SHELLS = [["sh"], ["bash", "--posix"], ["busybox", "sh"], ["mksh"], ["yash", "-o", "posixlycorrect"]]
# The system call that ends one thread, by machine.
EXIT = {"x86_64": 60, "aarch64": 93}
HALF_DEAD = """
import ctypes, threading, time
threading.Thread(target=time.sleep, args=(60,)).start()
ctypes.CDLL(None).syscall({exit}, 0)
"""


def run(script: str, *modules: str, shell: list[str] | None = None) -> str:
    """Run lines after the functions of the modules."""
    functions = "\n".join((SCRIPTS / f"{name}.sh").read_text() for name in modules)
    done = subprocess.run(
        [*(shell or ["sh"]), "-c", f"{functions}\n{script}"], capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    return done.stdout


SWEEP = (SCRIPTS / "sweep.sh").read_text().removesuffix('sweep_main "$@"\n')


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell[0])
@pytest.mark.parametrize(
    ("now", "uptime", "boot", "left"),
    [
        (1000, 50, "this", 100),  # as planned
        (1100, 150, "this", 0),  # due
        (5000, 60, "this", -3900),  # the clock jumped forward
        (10, 150, "this", 0),  # the clock was set back: the uptime has run out all the same
        (10, 60, "this", 90),
        (10, 9999, "other", 1090),  # after a reboot only the clock is known
    ],
)
def test_a_clock_that_jumps_never_lengthens_access(
    tmp_path: Path, shell: list[str], now: int, uptime: int, boot: str, left: int
) -> None:
    record = tmp_path / "AR-TIME"
    record.write_text("not_after=1100\nboot=this\nends_uptime=150\n")
    fakes = f"now() {{ echo {now}; }}\nuptime_seconds() {{ echo {uptime}; }}\nboot_id() {{ echo {boot}; }}\n"
    said = run(f"{SWEEP}\n{fakes}seconds_left {record}", *SHARED, shell=shell)
    assert int(said) == left


def test_a_record_without_an_end_is_due(tmp_path: Path) -> None:
    record = tmp_path / "AR-TIME"
    record.write_text("user=pp-time\n")
    assert int(run(f"{SWEEP}\nseconds_left {record}", *SHARED)) <= 0


@pytest.mark.parametrize(
    "lines",
    [
        "user=root\nuid=0\nhome=/root\ndead_uid=524287",
        "user=pp-time\nuid=0\nhome=/home/pp-time\ndead_uid=524287",
        "user=pp-time\nuid=999\nhome=/home/pp-time\ndead_uid=524287",
        "user=pp-time\nuid=\nhome=/home/pp-time\ndead_uid=524287",
        "user=pp-time\nuid=200000\nhome=/\ndead_uid=524287",
        "user=pp-time\nuid=200000\nhome=/home/somebody\ndead_uid=524287",
        "user=pp-time\nuid=200000\nhome=/home/pp-time\ndead_uid=0",
        "user=pp-time\nuid=200000 0\nhome=/home/pp-time\ndead_uid=524287",
    ],
)
def test_a_damaged_marker_is_not_believed(tmp_path: Path, lines: str) -> None:
    (tmp_path / "requests").mkdir()
    (tmp_path / "requests/AR-TIME").write_text(lines + "\n")
    assert run(f"STATE={tmp_path}\nload_marker AR-TIME && echo believed || echo not", *SHARED) == "not\n"


def test_a_whole_marker_is_believed(tmp_path: Path) -> None:
    (tmp_path / "requests").mkdir()
    lines = "user=pp-time\nuid=200000\nhome=/home/pp-time\ndead_uid=524287\n"
    (tmp_path / "requests/AR-TIME").write_text(lines)
    said = run(f'STATE={tmp_path}\nload_marker AR-TIME && echo "$USER_ID $HOME_DIR"', *SHARED)
    assert said == "200000 /home/pp-time\n"


def test_a_zombie_is_dead_and_a_process_whose_first_thread_ended_is_not() -> None:
    half = subprocess.Popen(
        [
            sys.executable,
            "-c",
            HALF_DEAD.format(exit=EXIT[os.uname().machine]),
        ]
    )
    dead = os.fork()
    if dead == 0:
        os._exit(0)
    try:
        _wait_for_state(half.pid, "Z")
        _wait_for_state(dead, "Z")
        assert run(f"process_lives {half.pid} && echo alive", *SHARED) == "alive\n"
        assert run(f"process_lives {dead} || echo dead", *SHARED) == "dead\n"
        assert run("process_lives 4194304 || echo dead", *SHARED) == "dead\n"
    finally:
        half.kill()
        half.wait()
        os.waitpid(dead, 0)


def _wait_for_state(pid: int, state: str) -> None:
    while f"State:\t{state}" not in Path(f"/proc/{pid}/status").read_text():
        time.sleep(0.01)


def test_the_program_and_those_who_started_it_are_never_its_prey() -> None:
    own = run("own_processes", *SHARED).split()
    assert str(os.getpid()) in own
    assert "1" not in own


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell[0])
@pytest.mark.parametrize(
    ("written", "name"),
    [
        (r"/mnt/a\040b", "/mnt/a b"),
        (r"/mnt/100%s\134x", r"/mnt/100%s\x"),
        ("/mnt/-n", "/mnt/-n"),
        (r"/mnt/*\012\012", "/mnt/*\n\n"),
    ],
)
def test_mount_points_get_their_names_back(shell: list[str], written: str, name: str) -> None:
    assert run(f"unescape '{written}'; printf '%s' \"$NAME\"", *SHARED, shell=shell) == name


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell[0])
@pytest.mark.parametrize("last", ["\n", ""])
def test_the_block_goes_in_and_out_of_a_settings_file(tmp_path: Path, shell: list[str], last: str) -> None:
    settings = tmp_path / "sshd_config"
    before = "Port 22\n# passport: a comment of somebody\nMatch User x\n    X11Forwarding no"
    settings.write_text(before + last)
    settings.chmod(0o640)
    steps = [
        f"SSHD_CONFIG={settings}; DROP_IN={tmp_path}/absent",
        "sshd_has_block block && echo early",
        "write_sshd_block block; write_sshd_block block",
        "sshd_has_block block && grep -c '^Match User pp-\\*$' $SSHD_CONFIG",
        "grep -c '^    X11Forwarding no$' $SSHD_CONFIG",
        "erase_sshd_block && echo erased; erase_sshd_block || echo nothing",
    ]
    assert run("\n".join(steps), "common", "sshd", shell=shell) == "1\n2\nerased\nnothing\n"
    assert settings.read_text() == before + "\n"
    assert settings.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(
    ("denied", "user", "who"),
    [
        ("denyusers root", "pp-7f3k", ""),
        ("denyusers root\ndenyusers pp-*", "pp-7f3k", "pp-*"),
        ("denyusers *@10.0.0.1", "pp-7f3k", "*"),
        ("denygroups pp-????", "pp-7f3k", "pp-????"),
        ("denyusers pp-7f3", "pp-7f3k", ""),
    ],
)
def test_denials_are_matched_as_sshd_does(denied: str, user: str, who: str) -> None:
    said = run(f"sshd_effective() {{ printf '%s\\n' '{denied}'; }}\nsshd_denial {user}", "common", "sshd")
    assert said.replace("*@10.0.0.1", "*").strip() == who


def test_without_flock_the_lock_waits_for_the_living_and_not_for_the_dead(tmp_path: Path) -> None:
    # PATH without flock: only what the lock needs.
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("mkdir", "rm", "cat", "sleep", "find"):
        (tools / name).symlink_to(f"/bin/{name}")
    lock = tmp_path / "lock.d"
    start = f"PATH={tools}; STATE={tmp_path}\n"
    assert (
        run(start + "take_lock 1 && echo mine; cat $STATE/lock.d/pid >/dev/null && echo held", "common")
        == "mine\nheld\n"
    )
    assert not lock.exists()

    lock.mkdir()
    (lock / "pid").write_text(f"{os.getpid()}\n")
    assert run(start + "take_lock 1 || echo taken", "common") == "taken\n"
    (lock / "pid").write_text("4194304\n")
    assert run(start + "take_lock 2 && echo mine", "common") == "mine\n"
