"""What must hold once a story is over and everything works again, looked at from outside of Passport."""

import re
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator

from access.model import AccessRequest, RequestState
from sandbox.company import Employee
from sandbox.hosts import Host
from tests.e2e.crash.record import Tables, channel_faults, channel_head, command_faults, record_faults
from tests.soak.ground import Ground
from tests.soak.told import DECISIONS, Told, hear, told_faults, unheard_faults
from tests.soak.watch import Watch

ENDS_WITHIN = 90.0  # seconds until everything is over: the longest request, and the longest pause between two tries
CATCHES_UP_WITHIN = 60.0
# How long after its end access may last while its host runs: on a calm day; and where a reboot took the sweeper, with
# Passport or AWS away, so that cron's next minute has to do it.
LATE, LATE_IN_BAD_WEATHER = 20.0, 80.0
FINAL = {
    RequestState.ENDED,
    RequestState.DENIED,
    RequestState.CANCELLED,
    RequestState.LAPSED,
}
_TRACE = 2000  # characters
_UID = re.compile(r"^uid=(\d+)$", re.MULTILINE)
_ACCEPTED = re.compile(r"Accepted \S+ for (pp-\S+) from .*? (SHA256:\S+) ID passport:(AR-[0-9A-Z]+):(\S+)")
_ACCEPTED_ANYHOW = re.compile(r"Accepted (?!certificate ID).*")


class Oracle:
    """Remembers where logs were read to, so that each story is told its own faults."""

    def __init__(self, ground: Ground, watch: Watch) -> None:
        self._ground = ground
        self._company = ground.company
        self._watch = watch
        self._log_read = 0
        self._known = {request.id for request in ground.tables().requests}
        self._fingerprints = {_fingerprint(person): person.email for person in ground.company.people.values()}

    def faults(self, *tolds: Told, calm: bool) -> Iterator[str]:
        """A sentence for everything that is not as it must be after stories that were played at the same time."""
        yield from self._unfinished()
        self._company.aws.settle()
        yield from self._behind()
        tables = self._ground.tables()
        new = [request for request in tables.requests if request.id not in self._known]
        self._known |= {request.id for request in new}
        yield from record_faults(tables)
        yield from channel_faults(self._ground.audit_channel(), tables.head)
        yield from self._command_faults(tables)
        yield from _decision_faults(tables)
        yield from self._chain_faults(tables)
        yield from self._left_behind(new)
        yield from self._presence_faults(tables, new, late=LATE if calm else LATE_IN_BAD_WEATHER)
        yield from self._strange_logins(tables, at_least=sum(told.logged_in for told in tolds) if calm else 0)
        yield from self._log_faults()
        typed = sum(told.typed for told in tolds)
        if len(new) > typed:
            yield f"{typed} requests were typed, {len(new)} were made: {[request.id for request in new]}"
        yield from unheard_faults(tolds, new)
        shown = [message.plain for person in self._company.people.values() for message in person.slack.ephemerals()]
        for told in tolds:
            yield from self._still_open(told)
            hear(told, shown)
            yield from told_faults(told, tables, calm=calm)
            if told.intruded:
                yield told.intruded
            if told.setback and calm:
                yield f"on a calm day: {told.setback}"

    def _unfinished(self) -> Iterator[str]:
        def open_requests() -> list[AccessRequest]:
            return [request for request in self._ground.tables().requests if request.state not in FINAL]

        if not _comes(lambda: not open_requests(), ENDS_WITHIN):
            for request in open_requests():
                yield f"{request.id} is still {request.state} (due {request.due_at}, {request.problem or 'no problem'})"

    def _behind(self) -> Iterator[str]:
        """The channel, while it lacks events that the log has."""

        def caught_up() -> bool:
            return channel_head(self._ground.audit_channel()) == self._ground.tables().head.sequence

        if not _comes(caught_up, CATCHES_UP_WITHIN):
            told, log = channel_head(self._ground.audit_channel()), self._ground.tables().head.sequence
            yield f"the audit channel is at event {told}, the log at {log}"

    def _command_faults(self, tables: Tables) -> Iterator[str]:
        """An end that is clicked while a create is on its way to AWS is no fault: the tombstone refuses it."""
        for fault in command_faults(tables, self._company.aws.commands):
            if "after its end had begun" not in fault:
                yield fault

    def _chain_faults(self, tables: Tables) -> Iterator[str]:
        head = tables.head
        said = self._ground.passport.run("audit", "verify", "--head", f"{head.sequence}:{head.hash}", check=False)
        if said.returncode or "is whole" not in said.stdout:
            yield f"passport audit verify: {said.stdout}{said.stderr}"

    def _left_behind(self, new: list[AccessRequest]) -> Iterator[str]:
        for host in self._company.hosts.values():
            for request in new:
                name, uid = request.user_name, self._uid(host, request.id)
                yield from (f"{host.name} keeps of {request.id}: {left}" for left in host.leftovers(name, uid, name))
            for row in (host.root / "etc/passwd").read_text().splitlines():
                if row.startswith("pp-"):
                    yield f"{host.name} still has the user {row}"

    def _presence_faults(self, tables: Tables, new: list[AccessRequest], *, late: float) -> Iterator[str]:
        """Users whom a host had though no request that had started was for it, or for too long after the end."""
        started = {(at.name, each.user_name) for each in tables.requests if each.expires_at for at in each.servers}
        for host, user in sorted(self._watch.seen() - started):
            yield f"{host} had the user {user}, and no request that had started was for it"
        for request in new:
            for server in request.servers if request.expires_at else ():
                overtime = self._watch.overtime(server.name, request.user_name, request.expires_at.timestamp())
                if overtime > late:
                    yield f"{server.name} still had {request.user_name} {overtime:.0f} s after the end of {request.id}"

    def _uid(self, host: Host, request_id: str) -> int:
        """As the host told it when it made the user; -1 where it never did."""
        instance = self._company.servers[host.name].instance_id
        said = [
            command.invocations[instance].output
            for command in self._company.aws.commands
            if instance in command.invocations and command.parameters.get("RequestId") == [request_id]
        ]
        found = _UID.search("\n".join(said))
        return int(found[1]) if found else -1

    def _still_open(self, told: Told) -> Iterator[str]:
        for command in told.logins:
            for person in (self._company.people["ana"], self._company.people["cleo"]):
                if (done := self._company.shell(person, f"{command} true")).returncode != 255:
                    yield f"{person.email} can still log in to {told.request_id}: {done.stdout}{done.stderr}"

    def _strange_logins(self, tables: Tables, *, at_least: int) -> Iterator[str]:
        """Every login that a host has on record was with the requester's own key, by a certificate of the request."""
        owners = {request.user_name: request for request in tables.requests}
        lines = {host: _ACCEPTED_ANYHOW.findall(_sshd_log(host)) for host in self._company.hosts.values()}
        if sum(map(len, lines.values())) < at_least:
            yield f"the servers have not logged the {at_least} logins"
        for host, logged in lines.items():
            for line in logged:
                found = _ACCEPTED.match(line)
                request = owners.get(found[1]) if found else None
                if found is None or request is None:
                    yield f"{host.name}: a login that nobody asked for: {line}"
                elif (self._fingerprints.get(found[2]), found[3]) != (request.person_email, request.id):
                    yield f"{host.name}: not the key of {request.person_email}: {line}"

    def _log_faults(self) -> Iterator[str]:
        text = self._ground.passport.log.read_text()
        new, self._log_read = text[self._log_read :], len(text)
        yield from (f"in the log: Traceback{trace[:_TRACE]}" for trace in new.split("Traceback")[1:])


def _comes(holds: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.25)
    return True


def _decision_faults(tables: Tables) -> Iterator[str]:
    counts = Counter(found.event.request_id for found in tables.events if found.event.kind in DECISIONS)
    for request in tables.requests:
        if counts[request.id] != (request.state in FINAL):
            yield f"{request.id} was decided {counts[request.id]} times"


def _fingerprint(person: Employee) -> str:
    words = ["ssh-keygen", "-l", "-f", str(person.key.with_suffix(".pub"))]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()[1]


def _sshd_log(host: Host) -> str:
    if host.init == "systemd":
        return host.run("journalctl", "--quiet", "-o", "cat", "-t", "sshd", "-t", "sshd-session").stdout.decode()
    return (host.root / "var/log/sshd.log").read_text(errors="replace")
