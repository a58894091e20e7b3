"""What *Show credentials* shows: it runs verbatim, and nothing that a server says is in it."""

import shlex
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from access.model import Grant, GrantState
from provisioning.connection import connection
from provisioning.framing import FramingError
from tests.unit.test_ssh_ca import WANTED, authority
from tests.unit.test_ssh_keys import ED25519, SK_ED25519, rsa_line
from tests.values import a_request, a_server

HOST_KEYS = [ED25519, rsa_line(3072)]
CERTIFICATE = authority().certify(WANTED)


def a_grant(number: int = 1, **details: str) -> Grant:
    return Grant(
        id=f"AR-7F3K.{number}",
        request_id="AR-7F3K",
        server=a_server(f"web-{number}"),
        state=GrantState.ACTIVE,
        details={"user": "pp-7f3k", "uid": "200001", "port": "22", "host_keys": "\n".join(HOST_KEYS)} | details,
    )


def test_the_command_is_this() -> None:
    (server,) = connection(a_request(), [a_grant()], CERTIFICATE).servers
    instance_id = a_server("web-1").instance_id
    assert server.command == (
        'ssh -i "$HOME/.ssh/id_ed25519" '
        '-o CertificateFile="$HOME/.ssh/passport/AR-7F3K/certificate" '
        '-o UserKnownHostsFile="$HOME/.ssh/passport/AR-7F3K/known_hosts" '
        f"-o HostKeyAlias=passport-{instance_id} "
        "-o IdentitiesOnly=yes -o StrictHostKeyChecking=yes -o UpdateHostKeys=no "
        f'-o ProxyCommand="aws ssm start-session --target {instance_id} --document-name AWS-StartSSHSession '
        '--parameters portNumber=%p --region eu-west-1" '
        f"pp-7f3k@{instance_id}"
    )


def test_ssh_understands_the_command_as_it_is_meant(tmp_path: Path) -> None:
    (server,) = connection(a_request(), [a_grant(port="2222")], CERTIFICATE).servers
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh/id_ed25519").touch()  # ssh ignores a name given with -i that is no file
    asked = server.command.replace("ssh ", "ssh -G -F none ", 1)
    ran = subprocess.run(
        ["sh", "-c", asked], check=True, capture_output=True, text=True, env={"HOME": str(tmp_path), "PATH": "/usr/bin"}
    )
    settings = dict(line.split(" ", 1) for line in ran.stdout.splitlines() if " " in line)
    assert settings["user"] == "pp-7f3k"
    assert settings["port"] == "2222"
    assert settings["hostkeyalias"] == server.alias
    assert settings["identitiesonly"] == "yes"
    assert settings["stricthostkeychecking"] in {"true", "yes"}
    assert settings["identityfile"] == f"{tmp_path}/.ssh/id_ed25519"
    assert settings["certificatefile"] == f"{tmp_path}/.ssh/passport/AR-7F3K/certificate"
    assert settings["userknownhostsfile"] == f"{tmp_path}/.ssh/passport/AR-7F3K/known_hosts"
    assert settings["proxycommand"].startswith(f"aws ssm start-session --target {server.instance_id} ")


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_pasting_the_block_writes_the_two_files_for_the_person_alone(tmp_path: Path, shell: str) -> None:
    shown = connection(a_request(), [a_grant(1), a_grant(2)], CERTIFICATE)
    for _ in range(2):
        subprocess.run(
            [shell, "-c", f"set -C; {shown.install}"], check=True, env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
        )
    folder = tmp_path / ".ssh/passport/AR-7F3K"
    assert (folder / "certificate").read_text() == shown.certificate == f"{CERTIFICATE}\n"
    assert (folder / "known_hosts").read_text() == shown.known_hosts
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "certificate").stat().st_mode & 0o777 == 0o600
    assert len(shown.known_hosts.splitlines()) == 4


def test_ssh_keygen_finds_the_host_key_by_its_alias(tmp_path: Path) -> None:
    shown = connection(a_request(), [a_grant()], CERTIFICATE)
    (tmp_path / "known_hosts").write_text(shown.known_hosts)
    found = subprocess.run(
        ["ssh-keygen", "-F", shown.servers[0].alias, "-f", tmp_path / "known_hosts"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert ED25519 in found.stdout


def test_the_key_file_follows_the_kind_of_key() -> None:
    certificate = authority().certify(replace(WANTED, public_key=SK_ED25519))
    assert connection(a_request(), [a_grant()], certificate).key_file == "$HOME/.ssh/id_ed25519_sk"


def test_only_active_grants_are_shown() -> None:
    grants = [a_grant(1), replace(a_grant(2), state=GrantState.REMOVING)]
    assert [server.name for server in connection(a_request(), grants, CERTIFICATE).servers] == ["web-1"]


@pytest.mark.parametrize(
    "hostile",
    [
        "",
        f"@cert-authority * {ED25519}",
        f"* {ED25519}",
        f"{ED25519} comment",
        f"{ED25519}\n\n{ED25519}",
        f"{ED25519}\n@cert-authority *",
        f"{ED25519}'; touch /tmp/owned; '",
        f"`id` {ED25519}",
        "ssh-ed25519 $(id)",
        "\n".join([ED25519] * 5),
        CERTIFICATE,
    ],
)
def test_a_host_key_that_is_none_never_reaches_a_laptop(hostile: str) -> None:
    with pytest.raises(FramingError):
        connection(a_request(), [a_grant(host_keys=hostile)], CERTIFICATE)


@pytest.mark.parametrize("port", ["0", "65536", "22 -oProxyCommand=id", "-1", "22\n", ""])
def test_a_port_is_a_port(port: str) -> None:
    with pytest.raises(ValueError):
        connection(a_request(), [a_grant(port=port)], CERTIFICATE)


@pytest.mark.parametrize(
    "changes",
    [{"instance_id": "i-0abc;id"}, {"instance_id": "i-0123456789abcdef0\n"}, {"region": "eu-west-1 --profile x"}],
)
def test_ids_and_regions_are_what_aws_makes(changes: dict[str, str]) -> None:
    grant = replace(a_grant(), server=a_server("web-1", **changes))
    with pytest.raises(ValueError):
        connection(a_request(), [grant], CERTIFICATE)


@pytest.mark.parametrize("certificate", ["", f"{CERTIFICATE}\nssh-ed25519 AAAA", f"{CERTIFICATE}'", ED25519])
def test_a_certificate_is_a_certificate(certificate: str) -> None:
    with pytest.raises(ValueError):
        connection(a_request(), [a_grant()], certificate)


@given(st.text(max_size=80), st.dictionaries(st.text(max_size=20), st.text(max_size=40), max_size=3))
def test_nothing_of_a_name_or_a_tag_is_in_what_runs(name: str, tags: dict[str, str]) -> None:
    plain = connection(a_request(), [a_grant()], CERTIFICATE)
    grant = replace(a_grant(), server=replace(a_grant().server, name=name, tags=tags))
    shown = connection(a_request(), [grant], CERTIFICATE)
    assert (shown.install, shown.known_hosts, shown.servers[0].command) == (
        plain.install,
        plain.known_hosts,
        plain.servers[0].command,
    )


@given(st.text(min_size=1, max_size=200))
def test_any_text_for_a_host_key_is_refused(text: str) -> None:
    with pytest.raises(FramingError):
        connection(a_request(), [a_grant(host_keys=text)], CERTIFICATE)


def test_the_words_of_the_block_hold_nothing_that_a_shell_reads() -> None:
    shown = connection(a_request(), [a_grant()], CERTIFICATE)
    for line in (shown.certificate, *shown.known_hosts.splitlines()):
        assert shlex.split(line.strip()) == line.split()
