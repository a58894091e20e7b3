"""Commands that sudo may be given for: what is taken, what is refused and why, and what reaches the parameter."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from access.errors import InvalidInputError
from provisioning.documents import create_document
from provisioning.sudo_commands import COMMAND, MOST_CHARACTERS, PATTERN, objection
from tests.unit.test_documents import GOOD


@pytest.mark.parametrize(
    "command",
    [
        "/usr/bin/systemctl restart nginx",
        "/usr/bin/systemctl --no-pager status nginx@1.service",
        "/usr/bin/systemctl daemon-reload",
        "/usr/bin/journalctl --no-pager -u nginx --since=today",
        "/usr/sbin/nginx -t",
        "/usr/sbin/nginx",
        "/opt/app-1.2/bin/flush-cache --all",
        "/bin/cat /var/log/nginx/error.log",
        "/usr/sbin/service nginx restart",
    ],
)
def test_a_fixed_command_is_taken(command: str) -> None:
    assert objection(command) == ""
    assert re.fullmatch(PATTERN, command)


@pytest.mark.parametrize(
    ("command", "why"),
    [
        *((f"/bin/{name} x", "is a shell") for name in ("sh", "bash", "dash", "zsh", "zsh5", "ksh93", "busybox")),
        *((f"/usr/bin/{name} x", "is an editor") for name in ("vi", "vim", "vim.tiny", "nano", "ed", "sed")),
        *((f"/usr/bin/{name}", "is an interpreter") for name in ("python3", "python3.11", "perl", "perl5.36.0", "awk")),
        *((f"/usr/bin/{name} x", "is a pager") for name in ("less", "more", "man", "most", "pager")),
        *((f"/usr/bin/{name} x", "runs others") for name in ("find", "tar", "env", "sudo", "ssh", "docker", "apt")),
        *((f"/usr/bin/{name} x", "rewrite the system") for name in ("cp", "chmod", "tee")),
        ("/usr/bin/systemctl", "could start a pager"),
        ("/usr/bin/systemctl status nginx", "could start a pager"),
        ("/usr/bin/systemctl edit nginx", "could start a pager or an editor"),
        ("/usr/bin/systemctl --no-pager edit nginx", "could be made to run anything"),
        ("/usr/bin/systemctl --no-pager link x.service", "could be made to run anything"),
        ("/usr/bin/journalctl -u nginx", "starts a pager"),
        ("/usr/sbin/service ../../bin/sh", "has .. in it"),
        ("/usr/bin/../bin/thing x", "absolute path"),
        ("thing", "absolute path"),
        ("./thing", "absolute path"),
        ("/usr/bin/thing *", "no wildcards"),
        ("/usr/bin/thing [a-z]", "no wildcards"),
        ("/usr/bin/thing  x", "one space"),
        ("/usr/bin/thing ", "one space"),
        ("/usr/bin/thing x\n", "fixed arguments"),
        ("/usr/bin/thing x,/bin/other", "fixed arguments"),
        ("/usr/bin/thing 'x'", "no quotes"),
        ("/usr/bin/thing $(id)", "fixed arguments"),
        ("/usr/bin/thing ^.*$", "fixed arguments"),
        ("/usr/bin/thing !x", "fixed arguments"),
        ("/usr/bin/thing \\x", "fixed arguments"),
        ("ALL", "absolute path"),
        ("/usr/bin/thing " + "x" * MOST_CHARACTERS, "at most"),
    ],
)
def test_everything_else_is_refused_with_its_reason(command: str, why: str) -> None:
    assert why in objection(command)


@given(st.text(alphabet=st.characters(codec="ascii"), max_size=40))
def test_what_sudoers_or_a_shell_would_read_something_in_is_never_a_command(text: str) -> None:
    command = f"/usr/bin/thing {text}"
    if re.fullmatch(COMMAND, command):
        assert not set(text) & set("*?[]!\\\"'`$(){}<>|&;,#~^\n\t\r")


def test_the_parameter_takes_up_to_ten_commands() -> None:
    commands = [f"/usr/bin/thing{number} --now=a:b" for number in range(10)]
    assert create_document().values({**GOOD, "Sudo": ",".join(commands)})["Sudo"] == [",".join(commands)]
    for wrong in (",".join([*commands, "/bin/more"]), commands[0] + ",", "all,/bin/x", "/bin/x,all", "/bin/x y\n"):
        with pytest.raises(InvalidInputError):
            create_document().values({**GOOD, "Sudo": wrong})
