"""A Windows server that is on or off, runs scripts and its own tasks, and lets people in by Remote Desktop."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

from sandbox.hosts.base import HostsError
from sandbox.windows import dotnet
from sandbox.windows.cmdlets import Cmdlets
from sandbox.windows.language import Language
from sandbox.windows.machine import SYSTEM, Machine, MachineOffError, Task
from sandbox.windows.remote_desktop import RemoteDesktop
from sandbox.windows.values import UnknownError

POWERSHELL = r"c:\windows\system32\windowspowershell\v1.0\powershell.exe"
RDP_PORT = 3389
BEAT = 0.05


class WindowsHost:
    """A context manager; its tasks run by themselves, or by ``run_tasks`` where the clock is a test's."""

    def __init__(self, name: str, *, now: Callable[[], float] = time.time, ticks: bool = True) -> None:
        self.name = name
        self.machine = Machine(name, now=now)
        self.is_on = True
        self.unknown: list[str] = []  # what scripts asked for that this Windows does not know
        self._steps_left: int | None = None
        self._stopping = threading.Event()
        self._ticks = ticks
        self._running = threading.RLock()  # one program after the other: what they do is not the sandbox's race

    def __enter__(self) -> Self:
        """Begin to listen and to keep time."""
        self._desktop = RemoteDesktop(self.machine, lambda: self.is_on)
        self._thread = threading.Thread(target=self._keep_time, daemon=True)
        if self._ticks:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Turn everything off."""
        self._stopping.set()
        if self._ticks:
            self._thread.join(timeout=10)
        self.power_off()
        self._desktop.close()

    def powershell(self, script: str, environment: Mapping[str, str]) -> tuple[int, str, str]:
        """Run a script as SYSTEM: its exit status, output and errors. Raises HostsError when the power goes."""
        if not self.is_on:
            raise MachineOffError(f"{self.name} is off")
        output: list[str] = []
        cmdlets = Cmdlets(self.machine)
        with self._running:
            self.machine.slept = 0.0
            language = Language(
                types=dotnet.types(self.machine, output.append),
                casts=dotnet.CASTS,
                cmdlets=cmdlets.table(),
                programs=cmdlets.programs(),
                environment={"ProgramFiles": r"C:\Program Files", "SystemRoot": r"C:\Windows", **environment},
                write=output.append,
                step=self._step,
            )
            try:
                code = language.run(script)
            except UnknownError as error:
                self.unknown.append(str(error))
                return 1, "".join(output), f"This Windows does not know {error}.\r\n"
            finally:
                self.machine.slept = 0.0
                self.machine.held.clear()  # with the program its locks end
        return code, "".join(output), ""

    def dial(self, port: int, timeout: float = 10.0) -> socket.socket:
        """Connect to a port of the server, as its agent does for a tunnel."""
        if port != RDP_PORT or not self.is_on:
            raise ConnectionRefusedError(f"nothing listens on {port}")
        return socket.create_connection(self._desktop.address, timeout=timeout)

    # Power

    def power_off(self) -> None:
        """As when the plug is pulled."""
        self.is_on = False
        self.machine.lose_power()

    def power_on(self) -> None:
        """Boot; tasks for the start, and those whose time was missed, run."""
        self.is_on = True
        for task in list(self.machine.tasks.values()):
            if task.at_startup:
                self._run_task(task)
        self.run_tasks()

    def fail_after(self, steps: int) -> None:
        """Lose power when the next program has done so many steps."""
        self._steps_left = steps

    def _step(self) -> None:
        if self._steps_left is not None:
            self._steps_left -= 1
            if self._steps_left < 0:
                self._steps_left = None
                self.power_off()
                raise MachineOffError(f"{self.name} lost power")

    # Tasks

    def run_tasks(self) -> int:
        """Run whatever task is due now; how many there were."""
        due = [task for task in list(self.machine.tasks.values()) if self.is_on and self._is_due(task)]
        for task in due:
            self._run_task(task)
        return len(due)

    def _is_due(self, task: Task) -> bool:
        now, begun = self.machine.now, [at for at in task.starts if at <= self.machine.now]
        if not begun or self.machine.services["Schedule"].state != "Running":
            return False
        if task.last_run is None or task.last_run < max(begun):
            # A start that was missed while the server was off is only made up for where the task asks for it.
            return task.when_available or now - max(begun) < 1
        return task.repeats_every is not None and now - task.last_run >= task.repeats_every

    def _run_task(self, task: Task) -> None:
        task.last_run = self.machine.now
        prefix = '-NoProfile -NonInteractive -ExecutionPolicy Bypass -File "'
        path = task.words.removeprefix(prefix).removesuffix('"').lower()
        known = task.command.lower() == POWERSHELL and task.words.startswith(prefix) and task.user == SYSTEM
        if not known:
            return  # somebody else's: what it runs is not this sandbox's
        if path in self.machine.files:
            try:
                self.powershell(self.machine.files[path], {})
            except HostsError:
                return

    def _keep_time(self) -> None:
        while not self._stopping.wait(BEAT):
            self.run_tasks()
