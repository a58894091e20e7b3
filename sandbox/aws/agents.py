"""The agents: they get commands, write the script to a file as root, run it with sh and report."""

from __future__ import annotations

import re
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from sandbox.aws.commands import Command, Invocation
from sandbox.aws.documents import PLACE, Step
from sandbox.aws.faults import Faults
from sandbox.aws.nodes import RunsCommands, Server
from sandbox.hosts.base import HostsError
from sandbox.windows import WindowsHost

# Page "Troubleshooting parameter handling issues": from here on ENV_VAR parameters arrive in the environment.
KNOWS_ENVIRONMENT = (3, 3, 2746, 0)
ORCHESTRATION = "/var/lib/amazon/ssm"
# The agent's own: it writes the script, makes it executable and lets sh start it.
START = """umask 077 && mkdir -p "$1" && cat > "$1/_script.sh" && chmod 700 "$1/_script.sh" && cd "$2" && shift 2 && exec env "$@\""""
BEAT = 0.02
LONG_BEAT = 0.5  # while only the real clock moves it on: hundreds of servers may wait at once
PLATFORM_NAMES = {"Linux": "Debian GNU/Linux", "Windows": "Microsoft Windows Server 2022 Datacenter"}


class Agents:
    """Every server's agent; each command runs in a thread of its own, five at a time on a server."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._stopping = threading.Event()
        # A thread a command and server, and how to ask whether only time or the end of a trouble moves it on.
        self._threads: dict[threading.Thread, Callable[[], bool]] = {}
        self._lock = threading.Lock()

    def deliver(self, command: Command, server: Server, invocation: Invocation) -> None:
        """Take one server's part of a command; the answer comes later."""
        thread = threading.Thread(target=self._work, args=(command, server, invocation), daemon=True)
        with self._lock:
            self._threads = {each: waits for each, waits in self._threads.items() if each.is_alive()}
            self._threads[thread] = lambda: self._waits(command, server, invocation)
            thread.start()

    def settle(self, seconds: float) -> None:
        """Wait until nothing happens any more at this time of the clock; raise TimeoutError."""
        patience_ends = time.monotonic() + seconds
        for thread, waits in list(self._threads.items()):
            while thread.is_alive() and not waits():
                if time.monotonic() > patience_ends:
                    raise TimeoutError("the sandbox's agents are still at work")
                thread.join(BEAT / 4)

    def stop(self) -> None:
        """Take no more commands and wait for those that run."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(timeout=5)

    def _work(self, command: Command, server: Server, invocation: Invocation) -> None:
        if not self._arrives(command, server, invocation):
            return
        while not server.working.acquire(timeout=BEAT):
            if self._stopping.is_set() or invocation.is_final:
                return
        try:
            if not invocation.start():
                return
            if self._faults.stalls(server.instance_id):
                self._hang(command, server, invocation)
                return
            self._run(command, server, invocation)
            if self._faults.runs_twice(server.instance_id):
                _run_steps(command, server)
        finally:
            server.working.release()

    def _arrives(self, command: Command, server: Server, invocation: Invocation) -> bool:
        """Wait until the agent is there and the delay is over; False when the command ends first."""
        while not self._stopping.is_set():
            command.tick()
            if invocation.is_final:
                return False
            if server.state in {"terminated", "shutting-down"}:
                invocation.end("Undeliverable")
                return False
            if self._reaches(command, server):
                return True
            self._stopping.wait(self._beat(command, server))
        return False

    def _beat(self, command: Command, server: Server) -> float:
        """How long nothing can change: a clock that a test turns may move at any moment, the real one does not."""
        if self._faults.now is not time.time:
            return BEAT
        due = command.requested_at + self._faults.delay_of(server.instance_id, command.document)
        return min(max(due - time.time(), BEAT), LONG_BEAT)

    def _reaches(self, command: Command, server: Server) -> bool:
        late = self._faults.now() < command.requested_at + self._faults.delay_of(server.instance_id, command.document)
        return not late and self._faults.connects(server)

    def _waits(self, command: Command, server: Server, invocation: Invocation) -> bool:
        """Whether a command is held up by a trouble or by the clock alone."""
        if invocation.is_final:
            return False
        if self._faults.stalls(server.instance_id) and not server.has_room():
            return True
        if invocation.started_at is not None:
            return self._faults.stalls(server.instance_id)
        over = self._faults.now() >= command.deadline or server.state in {"terminated", "shutting-down"}
        return not over and not self._reaches(command, server)

    def _hang(self, command: Command, server: Server, invocation: Invocation) -> None:
        """Say "in progress" and nothing more, until the trouble is over."""
        while self._faults.stalls(server.instance_id) and not self._stopping.wait(BEAT):
            if invocation.is_final:
                return
        self._run(command, server, invocation)

    def _run(self, command: Command, server: Server, invocation: Invocation) -> None:
        try:
            details, code, output, errors = _run_steps(command, server)
        except (OSError, subprocess.SubprocessError, HostsError):
            return  # the host went down under the script: nobody reports
        if server.host is not None and not server.host.is_on:
            return
        if self._faults.silences(server.instance_id) or self._faults.has_lost(server.instance_id):
            return
        limit = self._faults.output_limit
        invocation.end(details, code=code, output=output[:limit], errors=errors[:limit])


def _run_steps(command: Command, server: Server) -> tuple[str, int, str, str]:
    """Run a document's steps one after the other, until one fails."""
    output, errors, ran = "", "", False
    for step in command.content.steps:
        if step.platform not in {None, server.platform}:
            continue
        ran = True
        details, code, out, err = _run_step(command, server, step)
        output, errors = output + out, errors + err
        if details != "Success":
            return details, code, output, errors
    if not ran:
        # A step whose precondition does not hold is skipped, which is a success of the whole.
        return "Success", 0, "Step execution skipped due to unsatisfied preconditions", ""
    return "Success", 0, output, errors


def _run_step(command: Command, server: Server, step: Step) -> tuple[str, int, str, str]:
    script = "\n".join(line for text in step.commands for line in _interpolated(text, command.values))
    timeout = float(_interpolated(step.timeout, command.values)[0])
    environment = _environment(command, server)
    if server.host is None:
        answered = server.answers(script, environment)
        return ("Failed" if answered.code else "Success"), answered.code, answered.output, answered.errors
    if isinstance(server.host, WindowsHost):
        assert step.action == "aws:runPowerShellScript", "a Windows server has no sh"
        return _in_powershell(server.host, script, environment)
    folder = f"{ORCHESTRATION}/{server.instance_id}/document/orchestration/{command.id}/awsrunShellScript/{step.name}"
    where = step.working_directory or folder
    words = [
        folder,
        where,
        *(f"{key}={value}" for key, value in environment.items()),
        "sh",
        "-c",
        f"{folder}/_script.sh",
    ]
    return _on_host(server.host, words, script, timeout)


def _on_host(host: RunsCommands, words: list[str], script: str, timeout: float) -> tuple[str, int, str, str]:
    try:
        ran = host.run("sh", "-c", START, "agent", *words, input=script.encode(), timeout=timeout)
    except subprocess.TimeoutExpired as late:
        return "ExecutionTimedOut", -1, _text(late.stdout), _text(late.stderr)
    code = ran.returncode if ran.returncode >= 0 else 128 - ran.returncode
    errors = _text(ran.stderr)
    if code:
        errors += f"failed to run commands: exit status {code}"
    return ("Failed" if code else "Success"), code, _text(ran.stdout), errors


def _in_powershell(host: WindowsHost, script: str, environment: Mapping[str, str]) -> tuple[str, int, str, str]:
    code, output, errors = host.powershell(script, environment)
    if code:
        errors += f"failed to run commands: exit status {code}"
    return ("Failed" if code else "Success"), code, output, errors


def _interpolated(text: str, values: Mapping[str, Any]) -> list[str]:
    """Put the values in place of `{{ name }}`, with no regard to any quoting: that is how the service does it.

    The pages do not say that an agent which knows ENV_VAR leaves the braces of such a parameter alone, so it
    does not here. A list that stands alone becomes a line an entry.
    """
    alone = PLACE.fullmatch(text.strip())
    if alone and isinstance(values[alone[1]], list):
        return [str(entry) for entry in values[alone[1]]]
    return [PLACE.sub(lambda place: _shown(values[place[1]]), text)]


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return " ".join(value) if isinstance(value, list) else str(value)


def _environment(command: Command, server: Server) -> dict[str, str]:
    environment = {
        "AWS_SSM_INSTANCE_ID": server.instance_id,
        "AWS_SSM_REGION_NAME": server.region,
        "AWS_SSM_PLATFORM_NAME": PLATFORM_NAMES[server.platform],
    }
    if version_of(server.agent_version) >= KNOWS_ENVIRONMENT:
        for name, rules in command.content.parameters.items():
            if rules.get("interpolationType") == "ENV_VAR":
                environment[f"SSM_{name}"] = _shown(command.values[name])
    return environment


def version_of(text: str) -> tuple[int, ...]:
    """An agent's version, comparable."""
    return tuple(int(part) for part in re.findall(r"\d+", text))


def _text(output: bytes | str | None) -> str:
    return output.decode(errors="replace") if isinstance(output, bytes) else (output or "")
