"""The runbooks of docs/installing.md, really run: a rotation under open access, and a stolen key; with real logins."""

import base64
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from access.ports import Certificate
from access.service.showing import THROUGH_THE_TUNNEL
from bot.ca_files import KeyFiles
from sandbox.company import Company
from sandbox.hosts import HostWish
from sandbox.reading import code_blocks, wait_for
from sandbox.serving import Serving
from storage.sealing import Sealer
from tests.e2e.test_serve import Night
from tests.integration.test_kms_key import kms, make_key

pytestmark = pytest.mark.hosts

CA_PUB = "/etc/ssh/passport/ca.pub"


class Story(Night):
    """Ana logs in with what she is shown."""

    def opened(self, words: str = "web-1 for 1h") -> tuple[str, str]:
        """A request whose server is open, and the ssh command that was shown."""
        request_id = self.ask(words)
        self.approve(request_id)
        return request_id, self.credentials(request_id)

    def credentials(self, request_id: str) -> str:
        """Press the button, paste what it shows, and answer the command that logs in."""
        before = len(self.ana.slack.ephemerals())
        self.ana.slack.click(self.ready(request_id), "credentials.show")
        shown = wait_for(lambda: self.ana.slack.ephemerals()[before:], "the credentials")[-1]
        install, *rest = code_blocks(shown)
        assert self.company.shell(self.ana, install).returncode == 0, shown.plain
        return next(line for block in rest for line in block.splitlines() if line.startswith("ssh "))

    def told(self, request_id: str) -> str:
        """What the button says when nothing can be shown."""
        before = len(self.ana.slack.ephemerals())
        self.ana.slack.click(self.ready(request_id), "credentials.show")
        return wait_for(lambda: self.ana.slack.ephemerals()[before:], "an answer")[-1].plain

    def gets_in(self, command: str) -> bool:
        """Whether the command logs in."""
        done = self.company.shell(self.ana, f"{command} true")
        assert done.returncode in {0, 255}, done.stderr
        return done.returncode == 0

    def signed_by(self, request_id: str) -> str:
        """The fingerprint of the key that signed the certificate on Ana's disk."""
        file = self.ana.home / f".ssh/passport/{request_id}/certificate"
        said = subprocess.run(["ssh-keygen", "-L", "-f", file], capture_output=True, text=True, check=True).stdout
        return next(line.split()[3] for line in said.splitlines() if "Signing CA" in line)

    def forge(self, request_id: str) -> str:
        """The ssh command of a thief who has the authority's key, and Cleo's laptop; through the tunnel all the same."""
        name, _, key = self.passport._secrets["PASSPORT_SEALING_KEYS"].partition(":")
        sealed = KeyFiles(self.passport._folder / "ca.sealed", Sealer([(name, base64.b64decode(key))]))
        now = datetime.now(UTC)
        thief = self.company.people["cleo"]
        certificate = sealed.first().certify(
            Certificate(
                public_key=" ".join(thief.public_key.split()[:2]),
                principal=f"pp-{request_id[3:].lower()}",
                key_id="stolen",
                serial=1,
                valid_after=now - timedelta(minutes=1),
                valid_before=now + timedelta(hours=20),
                source_addresses=THROUGH_THE_TUNNEL,
            )
        )
        file = self.ana.home / "forged"
        file.write_text(certificate + "\n")
        command = self.credentials(request_id).replace("$HOME/.ssh/id_ed25519", str(thief.key))
        return command.replace(f"$HOME/.ssh/passport/{request_id}/certificate", str(file))

    def trusted(self) -> str:
        """What the server trusts; "" when it knows nothing of Passport."""
        return self.company.hosts["web-1"].run("sh", "-c", f"cat {CA_PUB} 2>/dev/null; true").stdout.decode()

    def ca(self, *words: str) -> str:
        """``passport ca …``, beside the running server."""
        return self.passport.run("ca", *words).stdout

    def refused(self, *words: str) -> str:
        """What it says when it refuses."""
        done = self.passport.run("ca", *words, check=False)
        assert (done.returncode, done.stdout) == (1, ""), done
        return done.stderr


@pytest.fixture(scope="module")
def company(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Company]:
    with Company(tmp_path_factory.mktemp("company"), [HostWish(name="web-1", init="systemd")]) as company:
        yield company


@pytest.fixture
def story(company: Company, tmp_path: Path) -> Iterator[Story]:
    """A running Passport, with Ana and Ben signed in."""
    serving = Serving(company, tmp_path / "passport")
    serving.run("migrate")
    serving.run("documents", "publish")
    serving.start()
    serving.trust()
    story = Story(company, serving)
    story.sign_in(story.ana)
    story.sign_in(story.ben)
    assert "SHA256:" in story.ana.slack.command("/passport", f"key add {story.ana.public_key}").plain
    yield story
    serving.kill()
    assert "Traceback" not in serving.log.read_text()


def test_a_rotation_to_kms_while_people_work(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    first, old_login = story.opened()
    file_key = story.signed_by(first)
    assert f"current  {file_key}" in story.ca("show")
    assert "signs for every server" in story.ca("show")

    arn = make_key(story.company.aws)
    story.passport._more["PASSPORT_CA_KMS_KEY"] = arn  # as an admin edits the settings; the server runs on without
    begun = story.ca("rotate")
    assert arn in begun
    assert "1 open server trusts only this one" in begun
    assert "A rotation is under way" in story.refused("rotate")

    second, new_login = story.opened()  # on the same server, which now trusts both
    kms_key = story.signed_by(second)
    assert kms_key != file_key
    assert story.trusted().splitlines()[0] == "# passport: generation 2"
    assert story.gets_in(old_login)
    assert story.gets_in(new_login)
    assert story.gets_in(story.credentials(first))
    assert story.signed_by(first) == file_key
    assert f"web-1 ({first})" in story.refused("rotate", "--finish")

    story.ana.slack.command("/passport", f"done {first}")
    story.closed(first)
    assert story.gets_in(new_login)  # the last user's settings stay
    kms(story.company.aws).disable_key(KeyId=arn.rpartition("/")[2])
    assert "is not there, or disabled" in story.refused("rotate", "--finish")  # else nothing could be signed
    assert story.gets_in(story.credentials(second))  # its server knows both keys, so the other one signs meanwhile
    assert story.signed_by(second) == file_key
    kms(story.company.aws).enable_key(KeyId=arn.rpartition("/")[2])
    assert "its file is taken away" in story.ca("rotate", "--finish")
    assert not (story.passport._folder / "ca.sealed").exists()
    assert story.gets_in(story.credentials(second))
    kms(story.company.aws).disable_key(KeyId=arn.rpartition("/")[2])
    assert "is not there, or disabled, in AWS KMS. An admin enables it." in story.told(second)
    kms(story.company.aws).enable_key(KeyId=arn.rpartition("/")[2])
    new_login = story.credentials(second)
    assert story.signed_by(second) == kms_key

    third, login = story.opened()
    assert story.signed_by(third) == kms_key
    assert story.gets_in(login)
    assert story.gets_in(new_login)
    assert file_key in story.ca("show").split("retired")[1]
    assert "ssh-ed25519" not in story.trusted()

    story.passport.kill()  # by now the settings of the process say so, too
    story.passport.start()
    assert story.gets_in(story.credentials(third))
    for request_id in (second, third):
        story.ana.slack.command("/passport", f"done {request_id}")
        story.closed(request_id)


def test_a_stolen_key_is_worth_nothing_minutes_later(story: Story) -> None:
    request_id, login = story.opened()
    forged = story.forge(request_id)
    assert story.gets_in(forged)
    assert not story.gets_in(forged.replace(f"pp-{request_id[3:].lower()}@", "root@"))  # no other user trusts it
    session = subprocess.Popen(
        ["/bin/sh", "-c", f"{login} sleep 300"],
        env=story.company.environment(story.ana),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    stolen = story.signed_by(request_id)
    began = time.monotonic()
    said = story.ca("rotate", "--compromised", "a copy of the disk was sold")
    assert "1 open request is being ended" in said
    assert session.wait(timeout=120) != 0
    assert "root replaced the key of the certificate authority: a copy of the disk was sold" in story.closed(request_id)
    assert story.trusted() == ""
    assert not story.gets_in(login)
    shown = story.ca("show")
    assert "no server trusts it any more" in shown.split(f"retired  {stolen}")[1]
    print(f"nothing trusted the old key after {time.monotonic() - began:.1f} s")  # noqa: T201 - told, not asserted
    assert not story.gets_in(forged)

    anew, login = story.opened()
    assert story.signed_by(anew) != stolen
    assert story.gets_in(login)
    story.ana.slack.command("/passport", f"done {anew}")
    story.closed(anew)
    kinds = [event["kind"] for event in story.events() if event["kind"].startswith("ca.")]
    assert kinds == ["ca.made", "ca.replaced"]


def test_a_server_that_nobody_reaches_forgets_the_stolen_key_by_itself(story: Story) -> None:
    request_id, login = story.opened("web-1 for 40s")
    assert story.gets_in(login)
    story.company.aws.faults.lose(story.company.servers["web-1"])
    try:
        story.ca("rotate", "--compromised", "stolen")
        shown = story.ca("show")
        assert "1 server still trusts it, and will not after" in shown
        assert f"web-1 ({request_id})" in shown
        wait_for(lambda: not story.trusted(), "the server's own timer", seconds=90)
    finally:
        story.company.aws.faults.heal(story.company.servers["web-1"])
    story.closed(request_id)
    assert "no server trusts it any more" in story.ca("show")
