"""A real host, the real scripts, and a person with a key: what the tests of the scripts stand on."""

import inspect
import itertools
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Concatenate, ParamSpec

from provisioning.documents import Document, create_document, probe_document, remove_document
from provisioning.framing import (
    Created,
    Probed,
    Removed,
    parse_create,
    parse_probe,
    parse_remove,
)
from provisioning.refusals import Refused
from sandbox.hosts import Doorway, Host

P = ParamSpec("P")

# The agent writes the script to a file and gives it no input.
AGENT = 'file=$(mktemp /run/script.XXXXXX) && cat >"$file" && sh "$file" </dev/null; code=$?; rm -f "$file"; exit $code'


@dataclass(frozen=True, kw_only=True, slots=True)
class Keys:
    """A certificate authority and a person's key, as files."""

    folder: Path
    numbers: Iterator[int] = field(default_factory=itertools.count)

    @property
    def authority(self) -> str:
        """The authority's public key as a document parameter."""
        return " ".join((self.folder / "ca.pub").read_text().split()[:2])

    def certify(self, principal: str, options: Sequence[str] = ()) -> Path:
        """Sign the person's key for one principal, for use through the tunnel only."""
        number = next(self.numbers)  # hosts side by side have users of the same name
        certificate = self.folder / f"{principal}-{number}-cert.pub"
        public = self.folder / f"{principal}-{number}.pub"
        public.write_text((self.folder / "alone/person.pub").read_text())
        words = [word for option in ("clear", "permit-pty", *options) for word in ("-O", option)]
        words += ["-O", "source-address=127.0.0.1/32,::1/128", "-V", "-1m:+1h", "-n", principal]
        _keygen("-s", str(self.folder / "ca"), "-I", f"passport:test:{principal}", *words, str(public))
        return certificate


def make_keys(folder: Path) -> Keys:
    """Make a new authority and a new person."""
    (folder / "alone").mkdir()
    for name in ("ca", "alone/person"):
        _keygen("-t", "ed25519", "-N", "", "-f", str(folder / name))
    return Keys(folder=folder)


@dataclass(frozen=True, kw_only=True, slots=True)
class Lab:
    """One host and the keys."""

    host: Host
    keys: Keys

    def create(
        self, request_id: str, *, seconds: int = 3600, attempt: str = "1", sudo: str = "none", **more: str
    ) -> Created | Refused:
        """Run the create document for the request's user, ending in so many seconds."""
        given = {
            "RequestId": request_id,
            "Attempt": attempt,
            "UserName": name_of(request_id),
            "NotAfter": str(int(time.time()) + seconds),
            "Sudo": sudo,
            "CaPublicKey": self.keys.authority,
            **more,
        }
        output = self.run_document(create_document(), given)
        return parse_create(output, request_id=request_id, user_name=given["UserName"])

    def created(self, request_id: str, *, seconds: int = 3600, sudo: str = "none", **more: str) -> Created:
        """Create, and fail the test if that is refused."""
        answer = self.create(request_id, seconds=seconds, sudo=sudo, **more)
        assert isinstance(answer, Created), answer
        return answer

    def remove(self, request_id: str, attempt: str = "1", *, inside: Sequence[str] = ()) -> Removed | Refused:
        """Run the remove document for the request's user, by a command that runs others if one is given."""
        given = {"RequestId": request_id, "Attempt": attempt, "UserName": name_of(request_id)}
        output = self.run_document(remove_document(), given, inside=inside)
        return parse_remove(output, request_id=request_id, user_name=given["UserName"])

    def removed(self, request_id: str) -> Removed:
        """Remove, and fail the test if that is refused."""
        answer = self.remove(request_id)
        assert isinstance(answer, Removed), answer
        return answer

    def probe(self) -> Probed:
        """Run the probe document."""
        answer = parse_probe(self.run_document(probe_document(), {}))
        assert isinstance(answer, Probed), answer
        return answer

    def run_document(self, document: Document, given: dict[str, str], *, inside: Sequence[str] = ()) -> str:
        """Run a document as a new agent does, parameters in the environment; the answer fits AWS's 2,500 characters."""
        environment = [f"SSM_{name}={value[0]}" for name, value in document.values(given).items()]
        words = [*inside, "env", *environment, "sh", "-c", AGENT]
        done = self.host.run(*words, input=document.script.encode(), timeout=150)
        output = done.stdout.decode()
        assert len(output) < 2500
        return output

    def login(
        self,
        created: Created,
        command: str,
        *,
        options: Sequence[str] = (),
        certificate: Path | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Log in through the host's agent with a certificate, believing only the host keys that create named."""
        certificate = certificate or self.keys.certify(created.user_name)
        return self._ssh(created, command, ("-o", f"CertificateFile={certificate}", *options))

    def login_with_bare_key(self, created: Created) -> subprocess.CompletedProcess[str]:
        """Try to log in with the person's key and no certificate."""
        return self._ssh(created, "true", ())

    def _ssh(self, created: Created, command: str, options: Sequence[str]) -> subprocess.CompletedProcess[str]:
        with Doorway(self.host.dial) as door:
            words = [*self._ssh_words(created, door), *options, f"{created.user_name}@127.0.0.1", command]
            return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)

    @contextmanager
    def terminal(self, created: Created, command: str) -> Iterator[subprocess.Popen[bytes]]:
        """A login with a terminal that runs a command; what it shows is on the process's output."""
        certificate = self.keys.certify(created.user_name)
        with Doorway(self.host.dial) as door:
            words = [*self._ssh_words(created, door), "-tt", "-o", f"CertificateFile={certificate}"]
            words += [f"{created.user_name}@127.0.0.1", command]
            with subprocess.Popen(
                words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            ) as ssh:
                try:
                    yield ssh
                finally:
                    ssh.kill()

    def _ssh_words(self, created: Created, door: Doorway) -> list[str]:
        key = self.keys.folder / "alone" / "person"  # beside it there is no certificate that ssh would find
        known = self.keys.folder / f"{self.host.name}-{created.user_name}.known_hosts"
        known.write_text("".join(f"passport-host {key}\n" for key in created.host_keys))
        return [
            *("ssh", "-F", "none", "-p", str(door.port), "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes"),
            *("-i", str(key), "-o", "ConnectTimeout=10", "-o", f"UserKnownHostsFile={known}"),
            *("-o", "StrictHostKeyChecking=yes", "-o", "HostKeyAlias=passport-host"),
        ]

    def sh(self, script: str) -> str:
        """Run a shell line on the host as root and give its output; fails the test if it fails."""
        done = self.host.run("sh", "-c", script)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    def leftovers(self, created: Created) -> list[str]:
        """What is left of a user, seen from the outside."""
        return self.host.leftovers(created.user_name, created.uid, created.request_id)

    def sshd_settings(self) -> str:
        """Everything that sshd reads."""
        return self.sh("cat /etc/ssh/sshd_config; cat /etc/ssh/sshd_config.d/* 2>/dev/null; ls -R /etc/ssh")


def on_every_host(test: Callable[Concatenate[Lab, P], None]) -> Callable[..., None]:
    """Make a test of one lab a test of all the fixture ``labs``, side by side; a failure names its host."""

    def beside(labs: Mapping[str, Lab], *args: P.args, **given: P.kwargs) -> None:
        with ThreadPoolExecutor(len(labs)) as pool:
            running = {kind: pool.submit(test, lab, *args, **given) for kind, lab in labs.items()}
        for kind, run in running.items():
            failure = run.exception()
            if failure is not None:
                failure.add_note(f"on the host {kind}")
                raise failure

    lab, *others = inspect.signature(test).parameters.values()
    beside.__name__, beside.__doc__ = test.__name__, test.__doc__
    # What pytest reads to know the fixtures.
    vars(beside)["__signature__"] = inspect.Signature([lab.replace(name="labs"), *others])
    return beside


def name_of(request_id: str) -> str:
    """The user name of a request: pp-7f3k of AR-7F3K."""
    return f"pp-{request_id.removeprefix('AR-').lower()}"


def _keygen(*words: str) -> None:
    subprocess.run(["ssh-keygen", "-q", *words], check=True, capture_output=True)
