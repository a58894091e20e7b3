"""The whole story, from a request at night to nothing left: played on real servers, checked from the outside."""

import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from sandbox.company import AUDIT_CHANNEL, COMMAND, LEADS_CHANNEL, Company, Employee
from sandbox.hosts import Doorway, Host, HostWish
from sandbox.machine import Machine
from sandbox.narrator import Narrator
from sandbox.reading import code_blocks, first_url, wait_for, with_button
from sandbox.serving import Serving
from sandbox.slack import Message
from sandbox.windows.remote_desktop import knock

SERVERS = (
    HostWish(name="web-1", init="systemd"),
    HostWish(name="db-2", init="cron"),
    HostWish(name="app-3", init="systemd", use_pam=False, allow_groups="staff"),
)
DESKTOP = "win-1"
_HEAD = re.compile(r"\b(\d+):([0-9a-f]{64})\b")
_COMMAND = re.compile(r"`(ssh [a-z0-9-]+\.passport)`")
_REQUEST = re.compile(r"AR-[0-9A-Z]{4,8}")


def play(*, as_json: bool = False, socket_mode: bool = False) -> None:
    """Play the story; raises NotSoError, or whatever broke, at the first thing that is not so."""
    narrator = Narrator(as_json=as_json)
    folder = Path(tempfile.mkdtemp(prefix="passport-demo-"))
    try:
        narrator.title("A small company on this machine")
        with narrator.step(
            "boot three servers with real sshd, and a Windows, a Slack, an AWS and an identity provider"
        ):
            company = Company(folder, SERVERS, windows=[DESKTOP]).__enter__()
        try:
            settings = {"PASSPORT_OWN_AWS_CREDENTIALS": "false"}
            passport = Serving(company, folder / "passport", socket_mode=socket_mode, settings=settings)
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
        self._laptops = {}
        for person in (self._ana, self._cleo):
            own = person.home / ".local" / "bin"
            own.mkdir(parents=True)
            self._laptops[person] = Machine(person.home, path=[company.folder / "bin", own])

    def tell(self) -> None:
        """From nothing to nothing."""
        try:
            self._set_up()
            first = self._get_approved()
            commands = self._log_in(first)
            self._refuse_others(first, commands)
            self._end_early(first, commands)
            self._open_a_desktop()
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
        self._say.title("Minutes later: a real login on each server, through the tunnel")
        with self._say.step("Ana registers her public key"):
            answer = self._ana.slack.command(COMMAND, f"key add {self._ana.public_key}")
            self._say.check("SHA256:" in answer.plain, answer.plain)
        with self._say.step(f"{COMMAND} setup: one line, pasted on her laptop, once"):
            self._say.aside(self._set_laptop_up(self._ana))
        with self._say.step("a direct message says that the servers are open"):
            ready = self._ready(request_id)
            self._say.aside(ready.plain)
        with self._say.step("Show credentials: only Ana sees what to type"):
            commands = self._commands(ready)
            self._say.check(len(commands) == len(SERVERS), f"{len(commands)} commands")
        for command, wish in zip(commands, SERVERS, strict=True):
            with self._say.step(f"{command}, verbatim, with her own key and no AWS credentials"):
                self._log_in_once(request_id, command, wish.name)
        with self._say.step(f"{commands[0]} again, with her key in an ssh-agent only"):
            self._log_in_by_agent(request_id, commands[0])
        return commands

    def _set_laptop_up(self, person: Employee) -> str:
        """Paste the line of ``/passport setup`` into the person's shell; answers the line."""
        shown = person.slack.command(COMMAND, "setup").message
        self._say.check(shown, "no answer")
        assert shown
        line = next(block for block in code_blocks(shown) if block.startswith("curl "))
        pasted = self._laptops[person].run("/bin/sh", "-c", line)
        self._say.check(pasted.returncode == 0, pasted.stderr)
        return line

    def _log_in_once(self, request_id: str, command: str, name: str) -> None:
        laptop = self._laptops[self._ana]
        self._say.check(not [word for word in laptop.environment if word.startswith("AWS_")], "AWS credentials")
        done = laptop.run("/bin/sh", "-c", f"{command} 'id -un; hostname; sudo -n id -u; id -u; echo $SSH_CONNECTION'")
        said = done.stdout.split()
        self._say.check(said[:3] == [_user(request_id), name, "0"], f"{done.stdout}{done.stderr}")
        self._uids[request_id] = int(said[3])
        session = self._company.aws.sessions[-1]
        self._say.check(session.server.name == name and said[4] == "127.0.0.1", "the login passed by the tunnel")
        self._say.check(not session.agent.rejected, f"the agent refused {session.agent.rejected}")

    def _log_in_by_agent(self, request_id: str, command: str) -> None:
        aside = self._ana.key.with_name("taken-away")
        script = f"""eval "$(ssh-agent -s)" >/dev/null && ssh-add -q {self._ana.key} && mv {self._ana.key} {aside} || exit 1
            {command} id -un; status=$?; mv {aside} {self._ana.key}; ssh-agent -k >/dev/null; exit $status"""
        done = self._laptops[self._ana].run("/bin/sh", "-c", script)
        self._say.check(done.stdout == f"{_user(request_id)}\n", f"{done.stdout}{done.stderr}")

    def _refuse_others(self, request_id: str, commands: Sequence[str]) -> None:
        self._say.title("Nobody else gets in")
        with self._say.step("Cleo cannot see or end Ana's request"):
            answer = self._cleo.slack.command(COMMAND, f"done {request_id}")
            self._say.check(answer.message and "/passport link" in answer.plain, answer.plain)
        with self._say.step("Cleo has all that Ana's laptop has, certificates too, but not her key: refused"):
            stolen = self._steal()
            self._say.aside(self._refused(self._cleo, commands[0]))
            self._say.check(self._login_by_aws_fails(self._cleo, "web-1", request_id), "her key went with it")
            shutil.rmtree(stolen)
            (stolen.parent / "config").unlink()
        with self._say.step("the same certificate past the tunnel, straight to the server's address: refused"):
            host = self._company.hosts["web-1"]
            self._say.check(self._direct_login_fails(host, request_id), "the certificate works off the tunnel")
        with self._say.step("Cleo's own laptop and key, set up for her: refused, and told what to do"):
            self._introduce_cleo()
            self._say.aside(self._refused(self._cleo, commands[0], "You have no access to web-1"))

    def _steal(self) -> Path:
        """Give Cleo's laptop what the script has on Ana's, but for the links to her key, with its paths put right."""
        ana, cleo = self._ana.home / ".ssh", self._cleo.home / ".ssh"
        shutil.copytree(ana / "passport", cleo / "passport", ignore=_private_keys)
        shutil.copy(ana / "config", cleo / "config")
        settings = cleo / "passport" / "config"
        settings.write_text(settings.read_text().replace(str(self._ana.home), str(self._cleo.home)))
        return cleo / "passport"

    def _introduce_cleo(self) -> None:
        """Cleo signs in, registers a key, and sets her laptop up, as anybody may."""
        self._company.link(self._cleo)
        self._cleo.slack.command(COMMAND, f"key add {self._cleo.public_key}")
        self._set_laptop_up(self._cleo)

    def _end_early(self, request_id: str, commands: Sequence[str]) -> None:
        self._say.title("Ana is done early")
        plant = "crontab - <<< '* * * * * true'; (sleep 900 & sudo -n sleep 901 &) ; echo x > /dev/shm/left-behind"
        with self._say.step("she leaves things behind: processes, a crontab, files, a root process through sudo"):
            for command in commands:
                planting = f"""{command} "bash -c \\"{plant}\\" </dev/null >/dev/null 2>&1" """
                self._laptops[self._ana].run("/bin/sh", "-c", planting)
            self._say.check(self._left(request_id), "nothing was planted")
        with self._say.step("I'm done: everything is removed, and verified by the servers"):
            self._ana.slack.click(self._ready(request_id), "request.complete")
            self._wait_until_ended(request_id)
        with self._say.step("logins are refused, and nothing is left (seen from outside the servers)"):
            for command in commands:
                self._say.aside(self._refused(self._ana, command, "Passport: "))
            self._nothing_left(request_id)

    def _open_a_desktop(self) -> None:
        self._say.title("A Windows server")
        with self._say.step(f"Ana asks for {DESKTOP}, Ben approves"):
            asked = self._ana.slack.command(COMMAND, f"request {DESKTOP} for 1h because INC-125: a stuck service")
            found = _REQUEST.search(asked.plain)
            self._say.check(found, "no request")
            assert found
            self._ben.slack.click(self._card(found[0]), "review.approve")
            ready = self._ready(found[0])
            command = f"passport-connect rdp {DESKTOP}"
            self._say.check(f"`{command}`" in ready.text, "the direct message does not say what to type")
        with self._say.step(f"{command}, verbatim: a port of her laptop leads to it, through the tunnel"):
            forwarding = self._laptops[self._ana].start("/bin/sh", "-c", command)
            assert forwarding.stderr is not None
            line = next((line for line in forwarding.stderr if "127.0.0.1:" in line), "")
            opened = re.search(r"127\.0\.0\.1:(\d+)", line)
            self._say.check(opened, "no port was opened")
            assert opened
            self._say.aside(re.sub(r", or the file .*", "", line.strip()))
        with self._say.step("Show credentials has the password; it opens the desktop, and no other does"):
            (password,) = code_blocks(self._shown(ready))
            self._say.check(knock(int(opened[1]), _user(found[0]), "a guess")[0].startswith("no "), "a guess opened it")
            said, desktop = knock(int(opened[1]), _user(found[0]), password)
            self._say.check(said.startswith("yes "), said)
        with self._say.step("I'm done: the desktop and the tunnel close, the user is gone"):
            self._ana.slack.click(ready, "request.complete")
            self._wait_until_ended(found[0])
            self._say.check(desktop.recv(1) == b"", "the desktop is still open")
            desktop.close()
            forwarding.communicate(timeout=60)
            self._say.check(
                _user(found[0]) not in self._company.desktops[DESKTOP].machine.accounts, "the user is there"
            )

    def _expire_alone(self) -> None:
        self._say.title("Passport dies; the server ends the access alone")
        with self._say.step("Ana asks for web-1 for a short time, Ben approves, she logs in"):
            words = "request web-1 for 15s because INC-124: one look"
            request_id = _REQUEST.search(self._ana.slack.command(COMMAND, words).plain)
            self._say.check(request_id, "no request")
            assert request_id
            self._ben.slack.click(self._card(request_id[0]), "review.approve")
            found = _COMMAND.search(self._ready(request_id[0]).text)
            self._say.check(found, "the direct message does not say what to type")
            assert found
            laptop, command = self._laptops[self._ana], found[1]
            done = laptop.run("/bin/sh", "-c", f"{command} id -u")
            self._say.check(done.returncode == 0, done.stderr)
            self._uids[request_id[0]] = int(done.stdout)
            session = laptop.start("/bin/sh", "-c", f"{command} 'echo in; sleep 300'")
            assert session.stdout is not None
            self._say.check(session.stdout.readline() == "in\n", "there is no session to outlive Passport")
        with self._say.step("kill -9 passport serve; at the end her live session dies all the same"):
            self._passport.kill()
            session.communicate(timeout=60)
            self._say.check(session.returncode != 0, "the session ended well")
        with self._say.step("login refused, even by a tunnel of AWS's own; nothing left, and Passport is still dead"):
            wait_for(lambda: not self._left(request_id[0]), "the server to clean up", seconds=60)
            self._refused(self._ana, command)
            self._say.check(self._login_by_aws_fails(self._ana, "web-1", request_id[0]), "the server let her in")
            wait_for(lambda: not self._left(request_id[0]), "the server to be rid of that, too")
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

    def _commands(self, ready: Message) -> list[str]:
        """What *Show credentials* says to type, a line a server; nobody else has read it."""
        lines = [line for block in code_blocks(self._shown(ready)) for line in block.splitlines()]
        everywhere = [message.text for message in self._company.slack.messages(LEADS_CHANNEL)]
        self._say.check(not any("ssh " in text for text in everywhere), "a command in the channel")
        self._say.check(not any("-cert-v01" in line for line in lines), "a certificate, which nobody needs to see")
        return [line for line in lines if line.startswith("ssh ")]

    def _shown(self, ready: Message) -> Message:
        """What the button answers."""
        before = len(self._ana.slack.ephemerals())
        self._ana.slack.click(ready, "credentials.show")
        return wait_for(lambda: self._ana.slack.ephemerals()[before:], "the credentials")[-1]

    def _ephemeral(self, person: Employee, words: str) -> str:
        return wait_for(
            lambda: next((m.plain for m in person.slack.ephemerals() if words in m.plain), None), repr(words)
        )

    def _refused(self, person: Employee, command: str, words: str = "") -> str:
        """The person's ssh fails, and says these words; no tunnel was started for it. Answers what it says."""
        before = len(self._company.aws.sessions)
        done = self._laptops[person].run("/bin/sh", "-c", f"{command} true")
        self._say.check(done.returncode == 255, f"exit status {done.returncode}: {done.stdout}{done.stderr}")
        self._say.check(words in done.stderr, f"it says {done.stderr}")
        self._say.check(len(self._company.aws.sessions) == before, "a tunnel was started")
        return done.stderr.strip().splitlines()[0]

    def _direct_login_fails(self, host: Host, request_id: str) -> bool:
        """Log in with Ana's key and certificate, over a connection that comes from outside of the server."""
        with Doorway(host.dial_from_outside) as door:
            command = f"ssh -p {door.port} {self._certified(self._ana, host.name)} {_user(request_id)}@127.0.0.1 true"
            done = self._laptops[self._ana].run("/bin/sh", "-c", command)
        return done.returncode == 255 and "Permission denied" in done.stderr

    def _login_by_aws_fails(self, person: Employee, name: str, request_id: str) -> bool:
        """The person's key with Ana's certificate, through a session that somebody with AWS credentials starts."""
        target = self._company.servers[name].instance_id
        tunnel = f"aws ssm start-session --target {target} --document-name AWS-StartSSHSession"
        command = f"ssh {self._certified(person, name)} -o ProxyCommand='{tunnel}' {_user(request_id)}@{name} true"
        done = self._company.shell(person, command)
        # A client that just goes leaves its session, and sshd waits for it: up to LoginGraceTime.
        self._company.aws.end_sessions(self._company.servers[name])
        return done.returncode == 255 and "Permission denied" in done.stderr

    def _certified(self, person: Employee, name: str) -> str:
        """Options of ssh: the person's key, and the certificate that Ana's laptop fetched last for a server."""
        certificate = self._ana.home / ".ssh" / "passport" / "hosts" / f"{name}.certificate"
        self._say.check(certificate.exists(), "there is no certificate to try")
        return (
            f"-F none -i {person.key} -o CertificateFile={certificate} -o IdentitiesOnly=yes -o BatchMode=yes "
            "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"
        )

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


def _private_keys(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if (Path(folder) / name).is_symlink() and not name.endswith(".pub")]


def _user(request_id: str) -> str:
    return f"pp-{request_id[3:].lower()}"
