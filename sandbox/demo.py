"""The whole story, from a request at night to nothing left: played on real servers, checked from the outside."""

import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from sandbox.company import AUDIT_CHANNEL, COMMAND, LEADS_CHANNEL, Company, Employee
from sandbox.hosts import Doorway, Host, HostWish
from sandbox.narrator import Narrator
from sandbox.reading import code_blocks, first_url, wait_for, with_button
from sandbox.serving import Serving
from sandbox.slack import Message

SERVERS = (
    HostWish(name="web-1", init="systemd"),
    HostWish(name="db-2", init="cron"),
    HostWish(name="app-3", init="systemd", use_pam=False, allow_groups="staff"),
)
_HEAD = re.compile(r"\b(\d+):([0-9a-f]{64})\b")
_REQUEST = re.compile(r"AR-[0-9A-Z]{4,8}")


def play(*, as_json: bool = False, socket_mode: bool = False) -> None:
    """Play the story; raises NotSoError, or whatever broke, at the first thing that is not so."""
    narrator = Narrator(as_json=as_json)
    folder = Path(tempfile.mkdtemp(prefix="passport-demo-"))
    try:
        narrator.title("A small company on this machine")
        with narrator.step("boot three servers with real sshd, and a Slack, an AWS and an identity provider"):
            company = Company(folder, SERVERS).__enter__()
        try:
            passport = Serving(company, folder / "passport", socket_mode=socket_mode)
            Story(company, passport, narrator).tell()
        finally:
            company.__exit__(None, None, None)
        narrator.end()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Story:
    """Ana needs servers, Ben decides, Cleo gets nothing."""

    def __init__(self, company: Company, passport: Serving, narrator: Narrator) -> None:
        self._company = company
        self._say = narrator
        self._ana, self._ben, self._cleo = (company.people[name] for name in ("ana", "ben", "cleo"))
        self._passport = passport
        self._uids: dict[str, int] = {}  # of the users that logged in, by request

    def tell(self) -> None:
        """From nothing to nothing."""
        try:
            self._set_up()
            first = self._get_approved()
            commands = self._log_in(first)
            self._refuse_others(first, commands)
            self._end_early(first, commands)
            self._expire_alone()
            self._check_the_record()
        except BaseException:
            self._say.aside(self._passport.log.read_text()[-2000:] if self._passport.log.exists() else "")
            raise
        finally:
            self._passport.kill()

    def _set_up(self) -> None:
        self._say.title("An admin sets Passport up")
        with self._say.step("passport migrate"):
            self._passport.run("migrate")
        with self._say.step("passport documents publish"):
            printed = self._passport.run("documents", "publish").stdout
            self._say.check("Passport-" in printed, printed)
        with self._say.step("passport serve, ready to answer"):
            self._passport.start()
            self._passport.trust()

    def _get_approved(self) -> str:
        self._say.title("03:00. Ana needs three servers")
        words = "request web-1 db-2 app-3 for 2h because INC-123: disk full"
        with self._say.step(f"Ana types: {COMMAND} {words}"):
            answer = self._ana.slack.command(COMMAND, words)
            self._say.check(answer.message, f"no answer: {answer}")
            assert answer.message
            self._say.aside(answer.message.plain)
            url = first_url(answer.message)
        with self._say.step("Ana signs in; the parked request submits itself"):
            page = self._company.sign_in(self._ana, url)
            found = _REQUEST.search(page)
            self._say.check(found, f"the page names no request: {page}")
            assert found
            request_id = found[0]
            self._say.aside(page)
        with self._say.step("the leads' channel has the card"):
            card = self._card(request_id)
            self._say.aside(card.plain)
            self._say.check(not card.pings, f"the card pings {card.pings}")
        with self._say.step("Ana cannot approve it herself"):
            self._ana.slack.click(card, "review.approve")
            refusal = self._ephemeral(self._ana, "cannot review your own request")
            self._say.check(refusal, "no refusal")
            self._say.aside(refusal)
        with self._say.step("Ben signs in and approves"):
            link = self._ben.slack.command(COMMAND, "link").message
            self._say.check(link, "no link")
            assert link
            self._company.sign_in(self._ben, first_url(link))
            self._ben.slack.click(self._card(request_id), "review.approve")
            wait_for(lambda: "Ben Ito" in self._card_text(request_id), "the card to say who approved")
        return request_id

    def _log_in(self, request_id: str) -> list[str]:
        self._say.title("Minutes later: a real login on each server")
        with self._say.step("Ana registers her public key"):
            answer = self._ana.slack.command(COMMAND, f"key add {self._ana.public_key}")
            self._say.check("SHA256:" in answer.plain, answer.plain)
        with self._say.step("a direct message says that the servers are open"):
            ready = self._ready(request_id)
            self._say.aside(ready.plain)
        with self._say.step("Show credentials: only Ana sees them"):
            install, commands = self._credentials(ready)
            self._say.check(len(commands) == len(SERVERS), f"{len(commands)} commands")
            self._say.aside(commands[0])
            everywhere = [m.text for m in self._company.slack.messages(LEADS_CHANNEL)]
            self._say.check(not any("-cert-v01" in text for text in everywhere), "a certificate in the channel")
            pasted = self._company.shell(self._ana, install)
            self._say.check(pasted.returncode == 0, pasted.stderr)
        for command, wish in zip(commands, SERVERS, strict=True):
            with self._say.step(f"the printed ssh command, verbatim, on {wish.name}"):
                done = self._company.shell(self._ana, f"{command} 'id -un; hostname; sudo -n id -u; id -u'")
                said = done.stdout.split()
                self._say.check(said[:3] == [_user(request_id), wish.name, "0"], f"{done.stdout}{done.stderr}")
                self._uids[request_id] = int(said[3])
        return commands

    def _refuse_others(self, request_id: str, commands: Sequence[str]) -> None:
        self._say.title("Nobody else gets in")
        with self._say.step("Cleo has Ana's certificate, but not her key: refused"):
            stolen = self._ana.home / ".ssh" / "passport"
            shutil.copytree(stolen, self._cleo.home / ".ssh" / "passport")
            self._refused(self._cleo, commands[0])
        with self._say.step("the same certificate past the tunnel, straight to the server's address: refused"):
            host = self._company.hosts["web-1"]
            self._say.check(self._direct_login_fails(host, request_id), "the certificate works off the tunnel")
        with self._say.step("Cleo cannot see or end Ana's request"):
            answer = self._cleo.slack.command(COMMAND, f"done {request_id}")
            self._say.check(answer.message and "/passport link" in answer.plain, answer.plain)

    def _end_early(self, request_id: str, commands: Sequence[str]) -> None:
        self._say.title("Ana is done early")
        plant = "crontab - <<< '* * * * * true'; (sleep 900 & sudo -n sleep 901 &) ; echo x > /dev/shm/left-behind"
        with self._say.step("she leaves things behind: processes, a crontab, files, a root process through sudo"):
            for command in commands:
                self._company.shell(self._ana, f"""{command} "bash -c \\"{plant}\\" </dev/null >/dev/null 2>&1" """)
            self._say.check(self._left(request_id), "nothing was planted")
        with self._say.step("I'm done: everything is removed, and verified by the servers"):
            self._ana.slack.click(self._ready(request_id), "request.complete")
            self._wait_until_ended(request_id)
        with self._say.step("logins are refused, and nothing is left (seen from outside the servers)"):
            for command in commands:
                self._refused(self._ana, command)
            self._nothing_left(request_id)

    def _expire_alone(self) -> None:
        self._say.title("Passport dies; the server ends the access alone")
        with self._say.step("Ana asks for web-1 for a short time, Ben approves, she logs in"):
            words = "request web-1 for 15s because INC-124: one look"
            request_id = _REQUEST.search(self._ana.slack.command(COMMAND, words).plain)
            self._say.check(request_id, "no request")
            assert request_id
            self._ben.slack.click(self._card(request_id[0]), "review.approve")
            install, commands = self._credentials(self._ready(request_id[0]))
            self._company.shell(self._ana, install)
            done = self._company.shell(self._ana, f"{commands[0]} id -u")
            self._say.check(done.returncode == 0, done.stderr)
            self._uids[request_id[0]] = int(done.stdout)
            session = subprocess.Popen(
                ["/bin/sh", "-c", f"{commands[0]} sleep 300"],
                env=self._company.environment(self._ana),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        with self._say.step("kill -9 passport serve; at the end her live session dies all the same"):
            self._passport.kill()
            self._say.check(session.wait(timeout=60) != 0, "the session ended well")
        with self._say.step("login refused, nothing left, and Passport is still dead"):
            wait_for(lambda: not self._left(request_id[0]), "the server to clean up", seconds=60)
            self._refused(self._ana, commands[0])
            self._nothing_left(request_id[0])
        with self._say.step("Passport starts again and closes the request with the server's proof"):
            self._passport.start()
            self._wait_until_ended(request_id[0])

    def _check_the_record(self) -> None:
        self._say.title("The record")
        with self._say.step("the audit channel has everything, in order"):
            head = wait_for(self._channel_head, "the channel to catch up")
        with self._say.step(f"passport audit verify --head {head[:20]}…"):
            verified = self._passport.run("audit", "verify", "--head", head)
            self._say.check("is whole" in verified.stdout, verified.stdout)
            self._say.aside(verified.stdout.strip())

    def _card(self, request_id: str) -> Message:
        return wait_for(
            lambda: with_button(self._company.slack.messages(LEADS_CHANNEL), "review.approve", request_id),
            f"the card of {request_id}",
        )

    def _card_text(self, request_id: str) -> str:
        return "\n".join(m.plain for m in self._company.slack.messages(LEADS_CHANNEL) if request_id in m.plain)

    def _ready(self, request_id: str) -> Message:
        """The message whose button shows the credentials, once every server is open."""

        def ready() -> Message | None:
            found = with_button(self._ana.slack.direct_messages(), "credentials.show", request_id)
            return None if found is None or "still being opened" in found.plain else found

        return wait_for(ready, f"{request_id} to be ready")

    def _credentials(self, ready: Message) -> tuple[str, list[str]]:
        before = len(self._ana.slack.ephemerals())
        self._ana.slack.click(ready, "credentials.show")
        shown = wait_for(lambda: self._ana.slack.ephemerals()[before:], "the credentials")[-1]
        blocks = code_blocks(shown)
        self._say.check(len(blocks) >= 2, f"no credentials: {shown.plain}")
        first = next(number for number, block in enumerate(blocks) if block.startswith("ssh "))
        commands = [line for block in blocks[first:] for line in block.splitlines() if line.startswith("ssh ")]
        return "\n".join(blocks[:first]), commands

    def _ephemeral(self, person: Employee, words: str) -> str:
        return wait_for(
            lambda: next((m.plain for m in person.slack.ephemerals() if words in m.plain), None), repr(words)
        )

    def _refused(self, person: Employee, command: str) -> None:
        done = self._company.shell(person, f"{command} true")
        self._say.check(done.returncode == 255, f"exit status {done.returncode}: {done.stdout}{done.stderr}")

    def _direct_login_fails(self, host: Host, request_id: str) -> bool:
        """Log in with Ana's key and certificate, over a connection that comes from outside of the server."""
        with Doorway(host.dial_from_outside) as door:
            command = (
                f'ssh -p {door.port} -i "$HOME/.ssh/id_ed25519" -o StrictHostKeyChecking=no -o IdentitiesOnly=yes '
                f'-o UserKnownHostsFile=/dev/null -o CertificateFile="$HOME/.ssh/passport/{request_id}/certificate" '
                f"-o BatchMode=yes {_user(request_id)}@127.0.0.1 true"
            )
            done = self._company.shell(self._ana, command)
        return done.returncode == 255 and "Permission denied" in done.stderr

    def _left(self, request_id: str) -> list[str]:
        user, uid = _user(request_id), self._uids[request_id]
        return [f"{h.name}: {what}" for h in self._company.hosts.values() for what in h.leftovers(user, uid, user)]

    def _nothing_left(self, request_id: str) -> None:
        left = self._left(request_id)
        self._say.check(not left, f"left behind: {left}")

    def _wait_until_ended(self, request_id: str) -> None:
        """Ana reads that it is over, and what the servers vouch for."""

        def closed() -> str | None:
            texts = [message.plain for message in self._ana.slack.direct_messages() if request_id in message.plain]
            return next((text for text in texts if "Closed: " in text), None)

        self._say.aside(wait_for(closed, f"{request_id} to end", seconds=60))
        self._say.checks += 1

    def _channel_head(self) -> str | None:
        heads = _HEAD.findall("\n".join(m.text for m in self._company.slack.messages(AUDIT_CHANNEL)))
        exported = self._passport.run("audit", "export").stdout.splitlines()
        return f"{heads[-1][0]}:{heads[-1][1]}" if heads and int(heads[-1][0]) == len(exported) else None


def _user(request_id: str) -> str:
    return f"pp-{request_id[3:].lower()}"
