"""Systems Manager's agents on real hosts: scripts run as files and as root, and ssh comes through a session."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox.aws import AwsDouble, Server
from sandbox.hosts import Host, HostFleet
from tests.integration.aws_lab import client, publish, wait_for

pytestmark = pytest.mark.hosts
FREE = {
    "value": {"type": "String", "interpolationType": "ENV_VAR", "default": ""},
    "text": {"type": "String", "default": ""},
}


@pytest.fixture(scope="module")
def hosts() -> Iterator[HostFleet]:
    with HostFleet() as fleet:
        yield fleet


@pytest.fixture(scope="module")
def aws(hosts: HostFleet) -> Iterator[AwsDouble]:
    with AwsDouble() as aws:
        yield aws


@pytest.fixture(params=["systemd", "cron"])
def host(hosts: HostFleet, request: pytest.FixtureRequest) -> Iterator[Host]:
    host = hosts.boot(request.param, init=request.param)
    yield host
    hosts.discard(host)


@pytest.fixture
def server(aws: AwsDouble, host: Host) -> Server:
    return aws.add_server(host.name, host=host)


@pytest.fixture
def ssm(aws: AwsDouble) -> Iterator[Any]:
    found = client(aws, "ssm")
    yield found
    aws.faults.clear()
    for row in found.list_documents(Filters=[{"Key": "Owner", "Values": ["Self"]}])["DocumentIdentifiers"]:
        found.delete_document(Name=row["Name"])
    found.close()


def send(ssm: Any, server: Server, **parameters: str) -> str:
    given = {name: [value] for name, value in parameters.items()}
    answer = ssm.send_command(InstanceIds=[server.instance_id], DocumentName="Passport-Try", Parameters=given)
    return str(answer["Command"]["CommandId"])


def ran(ssm: Any, server: Server, **parameters: str) -> Any:
    return wait_for(ssm, send(ssm, server, **parameters), server.instance_id)


def test_a_script_runs_from_a_file_as_root(ssm: Any, server: Server, host: Host) -> None:
    publish(ssm, "Passport-Try", "#!/bin/sh", "id -un; hostname; stat -c %a $0; echo bad >&2; exit 3", parameters={})
    ended = ran(ssm, server)
    assert ended["StandardOutputContent"].splitlines() == ["root", host.name, "700"]
    assert (ended["Status"], ended["ResponseCode"]) == ("Failed", 3)
    assert ended["StandardErrorContent"].startswith("bad\n")
    files = sorted((host.root / "var/lib/amazon/ssm").rglob("_script.sh"))
    assert [file.read_text().splitlines()[0] for file in files] == ["#!/bin/sh"]


def test_text_is_put_in_without_regard_to_quotes_and_environment_is_not(ssm: Any, server: Server) -> None:
    publish(ssm, "Passport-Try", "echo '{{ text }}'", 'printf "%s\\n" "$SSM_value"', parameters=FREE)
    injected = "'; id -u; echo '"
    ended = ran(ssm, server, text=injected, value=injected)
    assert ended["StandardOutputContent"].splitlines() == ["", "0", "", injected]


def test_an_execution_timeout_ends_the_script(ssm: Any, server: Server, host: Host) -> None:
    publish(ssm, "Passport-Try", "sleep 4711", parameters={}, timeoutSeconds="1")
    ended = ran(ssm, server)
    assert (ended["Status"], ended["StatusDetails"]) == ("TimedOut", "ExecutionTimedOut")
    assert host.run("pgrep", "-x", "sleep", "-f").returncode == 1 or host.init == "systemd"
    assert b"4711" not in host.run("ps", "-eo", "args").stdout


def test_a_host_that_is_off_gets_its_command_after_the_boot(ssm: Any, server: Server, host: Host) -> None:
    publish(ssm, "Passport-Try", "echo here", parameters={})
    host.power_off()
    command = send(ssm, server)
    assert wait_for(ssm, command, server.instance_id, states={"Pending"})
    host.power_on()
    assert wait_for(ssm, command, server.instance_id)["StandardOutputContent"] == "here\n"


def test_a_host_that_dies_under_the_script_never_answers(aws: AwsDouble, ssm: Any, server: Server, host: Host) -> None:
    publish(ssm, "Passport-Try", "touch /root/began; sleep 4711", parameters={})
    command = send(ssm, server)
    while not (host.root / "root/began").exists():
        pass
    host.power_off()
    assert wait_for(ssm, command, server.instance_id, states={"InProgress"})


def test_a_command_that_comes_twice_runs_twice(aws: AwsDouble, ssm: Any, server: Server, host: Host) -> None:
    publish(ssm, "Passport-Try", "echo ran >> /root/runs", parameters={})
    aws.faults.deliver_twice(server)
    ran(ssm, server)
    host.run("sh", "-c", "until [ $(wc -l < /root/runs) = 2 ]; do sleep 0.01; done")


def test_ssh_through_the_aws_command_comes_from_the_hosts_own_agent(
    aws: AwsDouble, server: Server, host: Host, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    make = "useradd -m -s /bin/sh ana && usermod -p '*' ana && install -d -m 700 -o ana ~ana/.ssh"
    script = f"{make} && cat > ~ana/.ssh/authorized_keys && chown ana ~ana/.ssh/authorized_keys"
    assert host.run("sh", "-c", script, input=key.with_suffix(".pub").read_bytes()).returncode == 0
    known = tmp_path / "known_hosts"
    known.write_text("".join(f"{server.instance_id} {line}\n" for line in host.host_key_lines()))
    program = aws.install_cli(tmp_path / "bin")
    proxy = "aws ssm start-session --target %h --document-name AWS-StartSSHSession --parameters portNumber=%p"
    options = ["-F", "none", "-i", str(key), "-o", f"UserKnownHostsFile={known}", "-o", "StrictHostKeyChecking=yes"]
    entered = subprocess.run(
        ["ssh", *options, "-o", f"ProxyCommand={proxy}", f"ana@{server.instance_id}", "echo $SSH_CONNECTION; cat"],
        input=b"x" * 300_000,
        capture_output=True,
        check=False,
        env={**aws.environment(), "PATH": f"{program.parent}:{os.environ['PATH']}"},
    )
    assert entered.returncode == 0, entered.stderr
    first, rest = entered.stdout.split(b"\n", 1)
    assert first.startswith(b"127.0.0.1 ")
    assert rest == b"x" * 300_000
    assert aws.sessions[-1].server is server
