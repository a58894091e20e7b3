"""The troubles of a story: each begins on its own, lasts as long as planned, and is over when the story is looked at."""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from types import TracebackType
from typing import Self

from sandbox.company import AUDIT_CHANNEL
from tests.e2e.database_lab import crash
from tests.postgres import PostgresServer
from tests.soak.ground import Ground
from tests.soak.plan import AGENT, AWS, DATABASE, DISK, PASSPORT, POWER, SLACK, SOCKETS, Trouble

_COMMAND_CALLS = ("SendCommand", "ListCommandInvocations", "ListCommands")


class Weather:
    """A context manager around a story: on leaving, everything works again, or the trouble that did not pass is raised."""

    def __init__(self, ground: Ground, troubles: Sequence[Trouble]) -> None:
        self._ground = ground
        self._slack, self._aws = ground.company.slack, ground.company.aws
        self._threads = [threading.Thread(target=self._live, args=(trouble,), daemon=True) for trouble in troubles]
        self._failed: list[Exception] = []
        self._starting = threading.Lock()  # Passport starts only where it finds its database
        self.passed: list[str] = []  # the troubles that there were

    def __enter__(self) -> Self:
        """Let the clouds gather."""
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait until every trouble has passed, and end what is left of them."""
        for thread in self._threads:
            thread.join()
        self._slack.faults.clear()
        self._aws.faults.clear()
        if self._failed:
            raise self._failed[0]

    def _live(self, trouble: Trouble) -> None:
        time.sleep(trouble.after)
        try:
            self._play(trouble)
            self.passed.append(trouble.name)
        except Exception as error:  # noqa: BLE001 - raised where the story ends
            self._failed.append(error)

    def _play(self, trouble: Trouble) -> None:
        for family, play in (
            (SLACK, self._upset_slack),
            (SOCKETS, self._upset_sockets),
            (AWS, self._upset_aws),
            (AGENT, self._upset_agent),
            (POWER, self._cut_power),
            (DISK, self._spoil_disk),
            (PASSPORT, self._end_passport),
            (DATABASE, self._upset_database),
        ):
            if trouble.name in family:
                play(trouble)

    def _upset_slack(self, trouble: Trouble) -> None:
        faults = self._slack.faults
        begin: dict[str, Callable[[], object]] = {
            "slack down": lambda: faults.down(trouble.lasts),
            "slack slow": lambda: faults.slow(2.0),
            "slack rate limited": lambda: faults.rate_limit(retry_after=2, times=5),
            "slack loses answers": lambda: faults.drop_answer(times=3),
            "slack answers 503": lambda: faults.http_error(times=5),
            "audit channel archived": lambda: self._slack.archive(AUDIT_CHANNEL),
        }
        begin[trouble.name]()
        time.sleep(trouble.lasts)
        faults.clear()
        workspace = self._slack.workspace
        workspace.put_channel(replace(workspace.channel(AUDIT_CHANNEL), archived=False))

    def _upset_sockets(self, trouble: Trouble) -> None:
        """Again and again; Passport comes back each time."""
        ends = time.monotonic() + trouble.lasts
        while time.monotonic() < ends:
            with suppress(OSError):  # of one that has just gone by itself
                self._slack.sockets.cut() if trouble.name == "sockets cut" else self._slack.sockets.refresh()
            time.sleep(1)

    def _upset_aws(self, trouble: Trouble) -> None:
        faults = self._aws.faults
        for call in _COMMAND_CALLS:
            if trouble.name == "aws throttles":
                faults.throttle(call, seconds=trouble.lasts)
            elif trouble.name == "aws answers 500":
                faults.fail(call, times=3)
            else:
                faults.take_then_timeout(call, times=1)
        time.sleep(trouble.lasts)

    def _upset_agent(self, trouble: Trouble) -> None:
        faults, server = self._aws.faults, self._ground.company.servers[trouble.host]
        if trouble.name == "agent late":
            faults.deliver_late(server, trouble.lasts)
        else:
            begin = {"agent twice": faults.deliver_twice, "agent stalls": faults.stall, "agent lost": faults.lose}
            begin[trouble.name](server)
        time.sleep(trouble.lasts)
        faults.heal(server)
        self._report_lost(trouble.host, time.time())

    def _cut_power(self, trouble: Trouble) -> None:
        host = self._ground.company.hosts[trouble.host]
        if trouble.name == "pause":
            host.pause()
            time.sleep(trouble.lasts)
            host.resume()
            return
        died_at = time.time()
        host.power_off()
        time.sleep(trouble.lasts if trouble.name == "power cut" else 0)
        host.power_on()
        self._report_lost(host.name, died_at)

    def _spoil_disk(self, trouble: Trouble) -> None:
        host = self._ground.company.hosts[trouble.host]
        with host.fill_disk() if trouble.name == "disk full" else host.remount_etc_read_only():
            time.sleep(trouble.lasts)

    def _report_lost(self, host: str, before: float) -> None:
        """An agent that is back tells of the commands that it had begun and never reported: they came to nothing.

        The double's own say nothing, and Passport rightly waits for them as long as their scripts may take.
        """
        self._aws.settle()
        server = self._ground.company.servers[host]
        for command in self._aws.commands:
            invocation = command.invocations.get(server.instance_id)
            if invocation and invocation.started_at is not None and invocation.started_at < before:
                invocation.end("Failed", code=1, errors="the agent was restarted")

    def _end_passport(self, trouble: Trouble) -> None:
        passport = self._ground.passport
        passport.kill() if trouble.name == "kill -9" else passport.stop()
        time.sleep(trouble.lasts)
        with self._starting:
            passport.start(seconds=60, slack=False)

    def _upset_database(self, trouble: Trouble) -> None:
        postgres = self._ground.postgres
        assert postgres is not None
        if trouble.name == "database cut":
            self._cut_database(postgres, trouble.lasts)
            return
        with self._starting:
            crash(postgres) if trouble.name == "database crash" else postgres.stop()
            time.sleep(trouble.lasts)
            self._ground.start_postgres()

    def _cut_database(self, postgres: PostgresServer, seconds: float) -> None:
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            with suppress(AssertionError):
                postgres.cut_connections(self._ground.database_url.rpartition("/")[2])
            time.sleep(1)
