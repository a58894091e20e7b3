"""``passport doctor --fleet``: asks every server whether it is ready, changes nothing, and says what to do."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from access.errors import NotFoundError
from access.model import Server
from access.ports import UnitOfWork
from bot import wiring
from bot.fleet_verdicts import Known, ServerFinding, judge
from bot.settings import Settings, SettingsError
from provisioning.aws import AwsAccount, Sessions
from provisioning.framing import Present, Probed
from provisioning.inventory import AwsInventory
from provisioning.probing import Heard, Probes, can_be_asked
from provisioning.run_command import RunCommand
from provisioning.windows_probe import ProbedWindows
from storage.unit_of_work import SqlStore


class Fleet:
    """The servers of the settings' accounts and regions, or of one of them."""

    def __init__(self, settings: Settings, *, account: str | None = None, region: str | None = None) -> None:
        """Read the inventory; raises SettingsError for an account or a region that is not in the settings."""
        self._settings = settings
        self._accounts = chosen(wiring.aws_accounts(settings), account, region)
        self._sessions = Sessions(self._accounts, session_name=f"passport-doctor-{wiring.instance_name(settings)}")
        inventory = AwsInventory(self._sessions, self._accounts, clock=wiring.now)
        self.problems = inventory.refresh().problems  # of regions whose servers cannot be listed
        self.servers = inventory.search("", len(self._accounts) * 1_000_000)

    def examine(self) -> Iterator[ServerFinding]:
        """What is true of each server, those first that need no asking."""
        to_ask = [server for server in self.servers if not server.problem and can_be_asked(server)]
        for server in self.servers:
            if server.problem:
                yield ServerFinding(server=server, problems=(server.problem,))
            elif not can_be_asked(server):
                yield ServerFinding(server=server, problems=(f"There is no probe for {server.platform}.",))
        probes = Probes(
            RunCommand(self._sessions, clock=wiring.now),
            clock=wiring.now,
            sleep=time.sleep,
            prefix=self._settings.document_prefix,
        )
        with _database(self._settings) as database:
            again = []
            for heard in probes.ask(to_ask):
                known = _known(database, heard)
                if any(each.is_over for each in known):
                    again.append(heard.server)  # it may have been removed just after the server spoke
                else:
                    yield judge(heard, known)
            for heard in probes.ask(again):
                yield judge(heard, _known(database, heard))


def chosen(accounts: Sequence[AwsAccount], account: str | None, region: str | None) -> list[AwsAccount]:
    """The accounts and regions that were named, or all; raises SettingsError for unknown ones."""
    found = [each for each in accounts if account in {None, each.name}]
    if not found:
        names = ", ".join(each.name for each in accounts)
        raise SettingsError(f"The settings have no account {account}. They have {names}.")
    if region is None:
        return found
    there = [replace(each, regions=(region,)) for each in found if region in each.regions]
    if not there:
        names = ", ".join(sorted({name for each in found for name in each.regions}))
        raise SettingsError(f"The settings have no region {region} there. They have {names}.")
    return there


def as_table(findings: Sequence[ServerFinding]) -> Iterator[str]:
    """Lines for people, what is not ready first."""
    ordered = sorted(findings, key=lambda each: (each.is_ready, each.server.name.casefold(), each.server.key))
    rows = [row for each in ordered for row in each.rows()]
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(3)]
    for row in rows:
        yield "  ".join([*(text.ljust(width) for text, width in zip(row[:3], widths, strict=True)), row[3]]).rstrip()


class _Database:
    """A short read for every answer: nothing waits for a look that takes minutes."""

    def __init__(self, store: SqlStore) -> None:
        self._store = store

    def known(self, server: Server, user: Present) -> Known:
        """What is on record of a user that a server names."""
        with self._store.unit_of_work(read_only=True) as uow:
            return _on_record(uow, server, user.request_id)


def _on_record(uow: UnitOfWork, server: Server, request_id: str) -> Known:
    try:
        request = uow.requests.get(request_id)
    except NotFoundError:
        return Known()
    grants = [grant for grant in uow.grants.of(request_id) if grant.server.key == server.key]
    # A retry is a grant of its own: the last one counts.
    return Known(request=request, grant=grants[-1] if grants else None)


def _known(database: _Database, heard: Heard) -> list[Known]:
    users = heard.said.users if isinstance(heard.said, Probed | ProbedWindows) else ()
    return [database.known(heard.server, user) for user in users]


@contextmanager
def _database(settings: Settings) -> Iterator[_Database]:
    from storage.migrations import check

    check(settings.database_url)
    store = wiring.open_store(settings, exclusive=False)
    try:
        yield _Database(store)
    finally:
        store.close()
