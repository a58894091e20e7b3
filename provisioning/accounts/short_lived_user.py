"""The account `short_lived_user`: an OS user of this request alone, made and removed by Run Command."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from access.authorities import Trust
from access.errors import UnavailableError
from access.model import AccessRequest, Grant, GrantState, Rights
from access.ports import Clock
from access.steps import Failed, Step, Waiting
from provisioning.accounts.answers import (
    never_made,
    read_created,
    read_created_windows,
    read_removed,
    terminated,
)
from provisioning.accounts.silence import with_last_answers
from provisioning.aws import Sessions
from provisioning.aws_errors import AwsError
from provisioning.command_intent import Order, Outcome
from provisioning.command_outcome import Answered, Unanswered
from provisioning.documents import PREFIX, Document, linux_documents, windows_documents
from provisioning.instances import Instance, read_instances
from provisioning.run_command import RunCommand

Pair = tuple[Grant, Outcome]
WINDOWS = "windows"
NEVER_SENT = "never_sent"  # in a grant's details: AWS refused the only command that could have made its user
# The moduli that servers encrypt their passwords to, in base64, by grant: their private halves are sealed by then.
PublicKeys = Callable[[Sequence[str]], Mapping[str, str]]


def no_keys(_: Sequence[str]) -> Mapping[str, str]:
    """Where nothing keeps keys, no Windows server can be opened."""
    raise UnavailableError("This Passport keeps no keys for the passwords of Windows servers.")


class ShortLivedUser:
    """Makes and removes a user per request and server; ``access.ports.Account``.

    A Linux server gets a user for the person's certificate, a Windows server one with a password that it makes.
    ``trust`` tells which keys of the certificate authority servers shall trust now; it may raise PassportError.
    ``details["attempt"]`` of a grant says how often its request has asked for this server; "1" if it does not.
    """

    def __init__(
        self,
        run_command: RunCommand,
        sessions: Sessions,
        *,
        trust: Callable[[], Trust],
        clock: Clock,
        public_keys: PublicKeys = no_keys,
        prefix: str = PREFIX,
    ) -> None:
        self._run_command = run_command
        self._sessions = sessions
        self._trust = trust
        self._public_keys = public_keys
        self._clock = clock
        self._documents: dict[str, tuple[Document, ...]] = {
            WINDOWS: windows_documents(prefix),
            "linux": linux_documents(prefix),
        }

    def intend(self, request: AccessRequest, grants: Sequence[Grant]) -> Mapping[str, Waiting]:
        """The commands to be sent; none to make a user on Windows, for which a key has to be sealed first."""
        if request.expires_at is None:
            return {}
        making = [g for g in grants if g.state is GrantState.PROVISIONING and g.server.platform != WINDOWS]
        removing = [g for g in grants if g.state is GrantState.REMOVING and NEVER_SENT not in g.details]
        intents: dict[str, Waiting] = {}
        for act, these in (("create", making), ("remove", removing)):
            for together in _alike(these).values():
                intents |= self._run_command.intend(act, together)
        return intents

    def provision(self, request: AccessRequest, grants: Sequence[Grant]) -> Mapping[str, Step]:
        """Make the user; ``Done`` has user, uid, port; and host_keys (``type base64``, a line each) and authorities,
        or a password.
        """
        ends = request.expires_at
        if ends is None or ends <= self._clock():
            late = Failed(reason="The time was over before the server was ready.", retryable=False)
            return {grant.id: late for grant in grants}
        not_after = str(int(ends.timestamp()))
        windows = [grant for grant in grants if grant.server.platform == WINDOWS]
        linux = [grant for grant in grants if grant.server.platform != WINDOWS]
        steps = self._provision_linux(request, linux, not_after) if linux else {}
        return steps | (self._provision_windows(request, windows, not_after) if windows else {})

    def _provision_linux(self, request: AccessRequest, grants: Sequence[Grant], not_after: str) -> dict[str, Step]:
        trust = self._trust()
        parameters = {
            "NotAfter": not_after,
            "Sudo": _sudo(request.terms.rights),
            "CaPublicKey": ",".join(trust.public_keys),
            "CaGeneration": str(trust.generation),
            "Forwarding": "yes" if request.terms.rights.forwarding else "no",
            "Metadata": "open" if request.terms.rights.metadata else "closed",
            "KeepHome": str(request.terms.keep_home_days),
        }
        pairs = self._run("create", request, grants, parameters)
        now = self._clock()
        created = {g.id: read_created(request, g, output, trust=trust, now=now) for g, output in _answered(pairs)}
        return self._unmade(pairs) | _moving(pairs) | created

    def _provision_windows(self, request: AccessRequest, grants: Sequence[Grant], not_after: str) -> dict[str, Step]:
        """Each server's key is sealed before its command is even intended."""
        administrator = "yes" if request.terms.rights.administrator else "no"
        parameters = {"NotAfter": not_after, "Administrator": administrator}
        keys = self._public_keys([grant.id for grant in grants])
        pairs = self._run("create", request, grants, parameters, keys)
        now = self._clock()
        created = {g.id: read_created_windows(request, g, output, now=now) for g, output in _answered(pairs)}
        return self._unmade(pairs) | _moving(pairs) | created

    def _unmade(self, pairs: Sequence[Pair]) -> dict[str, Step]:
        gone, silent = self._split(pairs)
        steps: dict[str, Step] = {
            grant.id: Failed(reason=f"{grant.server.name} is terminated.", retryable=False) for grant in gone
        }
        return steps | {grant.id: _not_sent(grant, lack) for grant, lack in silent}

    def remove(self, request: AccessRequest, grants: Sequence[Grant]) -> Mapping[str, Step]:
        """Remove the user; ``Done`` has the proof. A server that is terminated needs none of its own."""
        if request.expires_at is None:
            return {grant.id: never_made(grant) for grant in grants}
        sent = [grant for grant in grants if NEVER_SENT not in grant.details]
        pairs = self._run("remove", request, sent, {})
        gone, silent = self._split(pairs)
        steps: dict[str, Step] = {grant.id: never_made(grant) for grant in grants if NEVER_SENT in grant.details}
        steps |= {grant.id: terminated(grant) for grant in gone}
        # That nothing is proven, and when the server ends the account itself, whoever shows the reason says.
        steps |= {grant.id: Failed(reason=lack.reason, retryable=lack.retryable) for grant, lack in silent}
        return steps | _moving(pairs) | {g.id: read_removed(request, g, output) for g, output in _answered(pairs)}

    def _run(
        self,
        act: str,
        request: AccessRequest,
        grants: Sequence[Grant],
        parameters: Mapping[str, str],
        keys: Mapping[str, str] | None = None,
    ) -> list[Pair]:
        """The outcome for every grant."""
        pairs: list[Pair] = []
        for (kind, attempt), together in _alike(grants).items():
            (document,) = (each for each in self._documents[kind] if each.action == act)
            given = {"RequestId": request.id, "UserName": request.user_name, "Attempt": attempt, **parameters}
            order = Order(
                request_id=request.id,
                document=document,
                parameters=given,
                keys=keys or {},
                person=request.person_email,
            )
            outcomes = self._run_command.run(order, together)
            pairs += [(grant, outcomes[grant.id]) for grant in together]
        return pairs

    def _split(self, pairs: Sequence[Pair]) -> tuple[list[Grant], list[tuple[Grant, Unanswered]]]:
        """Which of the servers that did not answer are gone for good, and what the others are."""
        places: dict[tuple[str, str], list[tuple[Grant, Unanswered]]] = defaultdict(list)
        for grant, outcome in pairs:
            if isinstance(outcome, Unanswered):
                places[grant.server.account, grant.server.region].append((grant, outcome))
        gone: list[Grant] = []
        silent: list[tuple[Grant, Unanswered]] = []
        mute: dict[tuple[str, str], list[tuple[Grant, Unanswered]]] = defaultdict(list)
        for place, lacking in places.items():
            known = self._known(*place, [grant.server.instance_id for grant, _ in lacking])
            for grant, lack in lacking:
                instance = known.get(grant.server.instance_id)
                if grant.server.instance_id in known and (instance is None or instance.is_gone):
                    gone.append(grant)
                elif instance and instance.state != "running":
                    reason = f"{grant.server.name} is {instance.state}."
                    silent.append((grant, Unanswered(reason=reason, retryable=True)))
                else:
                    mute[place].append((grant, lack))
        now = self._clock()
        for place, lacking in mute.items():
            silent += with_last_answers(self._sessions, *place, lacking, now)
        return gone, silent

    def _known(self, account: str, region: str, ids: Sequence[str]) -> dict[str, Instance | None]:
        """What EC2 says of each instance, None for one it does not know; nothing at all if it does not answer.

        Only EC2's own: a machine elsewhere that was deregistered (``mi-…``) still exists.
        """
        on_ec2 = [instance_id for instance_id in ids if instance_id.startswith("i-")]
        try:
            found = read_instances(self._sessions, account, region, on_ec2)
            if len(found) < len(on_ec2):
                self._sessions.confirm_account(account)
        except AwsError:
            return {}
        return {instance_id: found.get(instance_id) for instance_id in on_ec2}


def _alike(grants: Sequence[Grant]) -> Mapping[tuple[str, str], Sequence[Grant]]:
    """By kind and attempt: servers of a kind that were asked for equally often share their commands."""
    alike: dict[tuple[str, str], list[Grant]] = defaultdict(list)
    for grant in grants:
        kind = WINDOWS if grant.server.platform == WINDOWS else "linux"
        alike[kind, grant.details.get("attempt", "1")].append(grant)
    return alike


def _sudo(rights: Rights) -> str:
    """The create document's parameter Sudo."""
    return "all" if rights.sudo else ",".join(rights.commands) or "none"


def _not_sent(grant: Grant, lack: Unanswered) -> Failed:
    """A create that came to nothing; of an earlier attempt's command nothing is known here."""
    surely = lack.never_sent and not grant.account.attempts
    return Failed(reason=lack.reason, retryable=lack.retryable, details={NEVER_SENT: "yes"} if surely else {})


def _moving(pairs: Sequence[Pair]) -> dict[str, Step]:
    return {grant.id: outcome for grant, outcome in pairs if isinstance(outcome, Waiting)}


def _answered(pairs: Sequence[Pair]) -> list[tuple[Grant, str]]:
    return [(grant, outcome.output) for grant, outcome in pairs if isinstance(outcome, Answered)]
