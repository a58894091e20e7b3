"""``passport doctor``: a sound installation is called sound, and each fault gets its line and its mend."""

import base64
import json
import logging
import re
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from bot import cli, wiring
from bot.ca_files import KeyFiles
from bot.doctor import examine
from bot.settings import load
from bot.slack_doctor import SCOPES
from bot.verdicts import Finding, clock_finding
from sandbox.aws import EXTERNAL_ID, AwsDouble
from sandbox.aws.callers import Caller
from sandbox.aws.gate import Gate
from sandbox.aws.templates import deploy
from sandbox.idp import IdentityProviderDouble
from sandbox.slack import SlackDouble
from tests.values import NOW

AUDIT, LEADS, ADMINS = "C0AUDIT", "C0LEADS", "S0ADMINS"
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def actions_of(statement: Mapping[str, Any]) -> list[str]:
    named = statement["Action"]
    return [named] if isinstance(named, str) else list(named)


# What a mend begins with, or what it says somebody has to do.
MEND = re.compile(
    r"(?:^|[.:;] )(?:Add|Check|Enable|Fetch|Install|Let|Make|Mend|Name|See|Set|Start|Switch|Type|Unarchive)\b"
    r"|\bmust\b|\brun `?passport "
)
GOES_ON = re.compile(r"\bI (?:try|go on|renew)\b|Try again")
POLICY = deploy("passport-account.yaml", "111111111111", {"PassportRoleArn": "", "ExternalId": ""}).statements("Policy")
ACTIONS = sorted({action for each in POLICY if each["Effect"] == "Allow" for action in actions_of(each)})
CONFIG = """
public_url = "https://passport.example.com"
slack_team_id = "{team}"
slack_audit_channel = "C0AUDIT"
slack_api_url = "{slack_url}"
slack_admins = ["U0BEN"]
saml_key_file = "saml.key"
saml_certificate_file = "saml.crt"
{more}
[[providers]]
name = "okta"
metadata_file = "idp.xml"

[[accounts]]
name = "prod-payments"
id = "{account}"
regions = ["{region}"]

[[rules]]
name = "prod-root"
groups = ["payments"]
reviewers = ["payments-leads"]
tell = ["C0LEADS"]
"""


@dataclass
class Installation:
    """A folder with everything that Passport needs, and the world around it."""

    folder: Path
    slack: SlackDouble
    aws: AwsDouble
    variables: dict[str, str] = field(default_factory=dict)

    def configure(self, *, team: str = "T0PASSPORT", account: str = "", more: str = "") -> None:
        """Write the settings."""
        text = CONFIG.format(
            team=team,
            slack_url=self.slack.url,
            account=account or self.aws.account,
            region=self.aws.region,
            more=more,
        )
        (self.folder / "passport.toml").write_text(text)

    def certificate(self, *, days: float, name: str = "saml.crt") -> bytes:
        """A certificate of our key that lasts so long."""
        now = datetime.now(UTC)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "passport")])
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(KEY.public_key())
        builder = builder.serial_number(1).not_valid_before(now - timedelta(days=400))
        made = builder.not_valid_after(now + timedelta(days=days, minutes=1)).sign(KEY, hashes.SHA256())
        pem = made.public_bytes(Encoding.PEM)
        (self.folder / name).write_bytes(pem)
        return pem

    def problems(self) -> dict[str, str]:
        """What the doctor finds wrong, by subject; nothing is wrong with a line of it."""
        return {finding.subject: finding.sentence for finding in self.findings() if finding.is_wrong}

    def findings(self) -> list[Finding]:
        """Everything that it finds."""
        found = list(examine(load))
        for finding in found:
            assert "\n" not in finding.line
            assert finding.sentence.endswith((".", "saml.key")), finding
            if finding.is_wrong:
                assert MEND.search(finding.sentence), f"no mend: {finding.line}"
                assert not GOES_ON.search(finding.sentence), f"a doctor looks once: {finding.line}"
            for secret in self.variables.values():
                assert secret not in finding.line
        return found


@pytest.fixture(scope="module")
def aws() -> Iterator[AwsDouble]:
    with AwsDouble() as double:
        yield double


@pytest.fixture(scope="module")
def idp_metadata() -> Iterator[bytes]:
    with IdentityProviderDouble() as provider:
        yield provider.metadata


@pytest.fixture
def place(
    tmp_path: Path, aws: AwsDouble, idp_metadata: bytes, monkeypatch: pytest.MonkeyPatch, sqlite_template: Path
) -> Iterator[Installation]:
    """A sound installation."""
    aws.faults.clear()
    handlers = logging.getLogger().handlers[:]
    with SlackDouble() as slack:
        for channel in (AUDIT, LEADS):
            slack.add_channel(channel, name=channel.lower())
        slack.add_member("U0BEN", name="ben")
        made = Installation(folder=tmp_path, slack=slack, aws=aws)
        made.configure()
        made.certificate(days=900)
        key = tmp_path / "saml.key"
        key.write_bytes(KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        key.chmod(0o600)
        provider = tmp_path / "idp.xml"
        provider.write_bytes(lasting(idp_metadata, made.certificate(days=900)))
        (tmp_path / "passport.db").write_bytes(sqlite_template.read_bytes())
        made.variables = {
            "PASSPORT_SLACK_BOT_TOKEN": slack.bot_token,
            "PASSPORT_SLACK_SIGNING_SECRET": slack.signing_secret,
            "PASSPORT_SEALING_KEYS": f"k1:{base64.b64encode(secrets.token_bytes(32)).decode()}",
        }
        monkeypatch.chdir(tmp_path)
        monkeypatch.delenv("PASSPORT_CONFIG", raising=False)
        for name, value in {**aws.environment("admin"), **made.variables}.items():
            monkeypatch.setenv(name, value)
        cli.main(["documents", "publish"])
        for name, value in aws.environment().items():
            monkeypatch.setenv(name, value)
        yield made
    logging.getLogger().handlers[:] = handlers


def lasting(metadata: bytes, pem: bytes) -> bytes:
    """An identity provider's metadata with this certificate in place of its own."""
    from lxml import etree

    root = etree.fromstring(metadata)
    body = "".join(pem.decode().splitlines()[1:-1])
    for element in root.iter("{http://www.w3.org/2000/09/xmldsig#}X509Certificate"):
        element.text = body
    found: bytes = etree.tostring(root)
    return found


def test_a_sound_installation_is_called_sound(place: Installation, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert cli.main(["doctor"]) == 0
    printed = capsys.readouterr().out.splitlines()
    (unseen,) = [line for line in printed if line.split()[0] != "ok"]
    assert unseen == (
        f"unseen   aws prod-payments {place.aws.region}: AWS shows only with a real server or session whether the role "
        "may call TerminateSession. The stack of deploy/passport-account.yaml allows it."
    )
    subjects = [line.split(maxsplit=1)[1].partition(":")[0] for line in printed]
    assert subjects == [
        "settings", "database", "certificate authority", "saml", "saml certificate", "saml provider okta",
        "slack token", "slack scopes", "clock", "slack C0AUDIT", "slack C0LEADS", "slack U0BEN",
        "aws prod-payments", *["aws prod-payments " + place.aws.region] * 5,
    ]  # fmt: skip


def test_the_doctor_changes_nothing(place: Installation) -> None:
    before = {path.name: path.read_bytes() for path in place.folder.iterdir() if path.suffix != ".db-shm"}
    assert not place.problems()
    after = {path.name: path.read_bytes() for path in place.folder.iterdir() if path.suffix != ".db-shm"}
    assert {name: after[name] for name in before} == before
    assert not (place.folder / "passport-ca.sealed").exists()
    assert {call.method for call in place.slack.calls} == {"auth.test", "conversations.info", "users.info"}
    assert not place.slack.messages(AUDIT)


def test_machines_read_json(place: Installation, capsys: pytest.CaptureFixture[str]) -> None:
    place.configure(team="T0ELSEWHERE")
    capsys.readouterr()
    assert cli.main(["doctor", "--json"]) == 1
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert all(set(line) == {"subject", "verdict", "sentence"} for line in found)
    assert [line["subject"] for line in found if line["verdict"] == "problem"] == ["slack token"]


def test_wrong_settings_are_the_one_finding(place: Installation) -> None:
    place.configure(more='pubic_url = "x"')
    (finding,) = place.findings()
    assert finding.line == (
        "problem  settings: There is no setting pubic_url. Check its spelling against passport.example.toml."
    )


def test_a_database_without_tables(place: Installation) -> None:
    (place.folder / "passport.db").unlink()
    assert place.problems()["database"].endswith("run `passport migrate`.")
    assert not (place.folder / "passport.db").exists()


@pytest.mark.postgres
def test_a_postgres_that_is_not_there(place: Installation, postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PASSPORT_DATABASE_URL", postgres_url)
    assert not place.problems()
    monkeypatch.setenv("PASSPORT_DATABASE_URL", "postgresql://passport:geheim@127.0.0.1:1/passport")
    sentence = place.problems()["database"]
    assert "does not answer" in sentence
    assert "geheim" not in sentence


def test_a_sealed_file_of_another_key(place: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load()
    KeyFiles(settings.ca_key_file, wiring.sealer(settings)).first()
    assert not place.problems()
    monkeypatch.setenv("PASSPORT_SEALING_KEYS", f"k2:{base64.b64encode(bytes(32)).decode()}")
    sentence = place.problems()["certificate authority"]
    assert sentence.startswith("The file passport-ca.sealed is sealed with the key k1, which is not among")
    assert sentence.endswith("or restore both from the backup.")


@pytest.mark.parametrize(
    ("days", "words"),
    [(-3, "The certificate ran out on"), (12, "in 12 days. Make a new one"), (31, "")],
)
def test_passports_own_certificate_runs_out(place: Installation, days: int, words: str) -> None:
    place.certificate(days=days)
    assert words in place.problems().get("saml certificate", "")
    assert bool(place.problems()) is bool(words)


def test_a_providers_certificate_runs_out(place: Installation) -> None:
    metadata = place.folder / "idp.xml"
    metadata.write_bytes(lasting(metadata.read_bytes(), place.certificate(days=2, name="old.crt")))
    problems = place.problems()
    assert list(problems) == ["saml provider okta"]
    assert "Fetch its metadata anew into idp.xml." in problems["saml provider okta"]


def test_a_private_key_that_others_can_read(place: Installation) -> None:
    (place.folder / "saml.key").chmod(0o644)
    assert place.problems() == {"saml key": "Others can read saml.key. Mend: chmod 600 saml.key"}


def test_a_missing_file(place: Installation) -> None:
    (place.folder / "idp.xml").unlink()
    assert "metadata_file of the provider okta cannot be read" in place.problems()["saml"]


def test_a_token_that_slack_refuses(place: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PASSPORT_SLACK_BOT_TOKEN", "xoxb-0000000000-of-another-app")
    assert place.problems() == {
        "slack token": "Slack refuses the bot token (invalid_auth). Install the app again and set slack_bot_token anew."
    }


def test_a_slack_that_does_not_answer(place: Installation) -> None:
    place.slack.close()
    assert "Slack does not answer" in place.problems()["slack token"]


def test_scopes_that_are_missing(place: Installation) -> None:
    place.slack._scopes = tuple(scope for scope in place.slack._scopes if scope != "im:write")
    assert place.problems() == {
        "slack scopes": "The app lacks im:write. Add them as in app_manifest.yml and install the app again."
    }


def test_the_scopes_are_those_of_the_manifest() -> None:
    manifest = yaml.safe_load(Path("app_manifest.yml").read_text())
    reading = {"channels:read", "groups:read"}  # the doctor's own, and optional
    assert set(manifest["oauth_config"]["scopes"]["bot"]) - reading == set(SCOPES)


def test_a_channel_without_passport(place: Installation) -> None:
    place.slack.leave(AUDIT, "U0PASSPORT")
    place.slack.archive(LEADS)
    place.slack.deactivate("U0BEN")
    problems = place.problems()
    assert problems["slack C0AUDIT"].endswith("Type /invite @Passport there.")
    assert "is archived" in problems["slack C0LEADS"]
    assert "is deactivated" in problems["slack U0BEN"]


def test_channels_cannot_be_seen_without_the_scopes_for_it(tmp_path: Path, place: Installation) -> None:
    with SlackDouble(scopes=SCOPES, bot_token=place.slack.bot_token) as slack:
        slack.add_channel(AUDIT, name="audit")
        slack.add_channel(LEADS, name="leads")
        slack.add_member("U0BEN", name="ben")
        place.slack = slack
        place.configure()
        unseen = [finding for finding in place.findings() if finding.verdict == "unseen"]
        assert [finding.subject for finding in unseen][:2] == [f"slack {AUDIT}", f"slack {LEADS}"]
        assert not place.problems()


def test_a_user_group_that_is_not_there(place: Installation) -> None:
    place.configure(more="")
    config = place.folder / "passport.toml"
    config.write_text(config.read_text().replace('["U0BEN"]', '["S0NOBODY"]'))
    assert "cannot be looked up (no_such_subteam). Check the id." in place.problems()["slack S0NOBODY"]


def test_a_clock_that_is_wrong(place: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wiring, "now", lambda: datetime.now(UTC) + timedelta(seconds=45))
    (sentence,) = [finding.sentence for finding in place.findings() if finding.is_wrong]
    assert re.fullmatch(r"This machine is 4[4-6] s ahead of Slack. Let NTP set its clock.", sentence)


@pytest.mark.parametrize(
    ("date", "said"),
    [
        ("Sat, 21 Nov 2026 03:00:29 GMT", ["ok       clock: This machine and AWS agree within 29 s."]),
        ("Sat, 21 Nov 2026 03:05:00 GMT", ["problem  clock: This machine is 300 s behind AWS. Let NTP set its clock."]),
        ("", []),
        ("soon", []),
    ],
)
def test_the_clock_beside_the_date_of_an_answer(date: str, said: list[str]) -> None:
    assert [finding.line for finding in clock_finding("AWS", date, NOW)] == said


def test_another_aws_account(place: Installation) -> None:
    place.configure(account="999999999999")
    assert "the settings say 999999999999" in place.problems()["aws prod-payments"]


def test_a_permission_that_is_missing_names_the_stack(place: Installation) -> None:
    place.configure(more='document_prefix = "Other-"')  # which the stack of Passport- does not know
    (problem,) = [finding.sentence for finding in place.findings() if finding.is_wrong]
    assert problem == (
        "AWS does not let Passport's role call GetDocument on Other-CreateUser. "
        "An admin must allow it: look at the stack of deploy/passport-account.yaml."
    )


@pytest.mark.parametrize("action", ACTIONS)
def test_each_action_of_the_policy_is_tried(place: Installation, action: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one taken away, the doctor names it, and the stack; what it cannot know it does not call sound."""
    everything = Gate._statements

    def without(self: Gate, caller: Caller) -> list[Mapping[str, Any]] | None:
        found = everything(self, caller)
        return found and [{**each, "Action": [one for one in actions_of(each) if one != action]} for each in found]

    monkeypatch.setattr(Gate, "_statements", without)
    operation = action.partition(":")[2]
    subject = f"aws prod-payments {place.aws.region}"
    if operation == "TerminateSession":
        assert any(operation in finding.sentence for finding in place.findings() if finding.verdict == "unseen")
        return
    (problem,) = [finding for finding in place.findings() if finding.is_wrong]
    assert problem.subject == subject
    assert f"does not let Passport's role call {operation} " in problem.sentence
    assert "deploy/passport-account.yaml" in problem.sentence


def test_what_depends_on_the_tags_of_servers_is_not_called_sound(
    place: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = place.aws.account
    parameters: dict[str, str | list[str]] = {
        "PassportRoleArn": f"arn:aws:iam::{home}:role/Passport", "ExternalId": EXTERNAL_ID, "Servers": "tagged"
    }  # fmt: skip
    tagged = deploy("passport-account.yaml", home, parameters).statements("Policy")
    monkeypatch.setattr(Gate, "_statements", lambda *_: tagged)
    problems = [finding.sentence for finding in place.findings() if finding.is_wrong]
    assert len(problems) == 2
    assert all(sentence.endswith("set only_tagged = true for the account.") for sentence in problems)
    config = place.folder / "passport.toml"
    config.write_text(config.read_text().replace(f'id = "{home}"', f'id = "{home}"\nonly_tagged = true'))
    assert not place.problems()
    (unseen,) = [finding.sentence for finding in place.findings() if finding.verdict == "unseen"]
    assert "may call SendCommand, StartSession, TerminateSession. " in unseen


def test_the_doctor_sends_no_command_and_opens_no_session(place: Installation) -> None:
    before = (len(place.aws.commands), len(place.aws.sessions))
    assert not place.problems()
    assert (len(place.aws.commands), len(place.aws.sessions)) == before


@pytest.mark.parametrize(
    ("operation", "status", "what"),
    [("DescribeInstanceInformation", 500, "AWS has trouble of its own in"), ("ListCommands", 400, "AWS does not let")],
)
def test_an_aws_that_fails_is_no_promise_to_go_on(place: Installation, operation: str, status: int, what: str) -> None:
    place.aws.faults.fail(operation, status)
    assert what in place.problems()[f"aws prod-payments {place.aws.region}"]


def test_an_aws_without_credentials(place: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(place.folder / "none"))
    assert place.problems()["aws prod-payments"].startswith("Passport finds no AWS credentials for prod-payments")


def test_documents_of_another_version(place: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    place.configure(more='document_prefix = "Other-"')
    for name, value in place.aws.environment("admin").items():
        monkeypatch.setenv(name, value)
    problems = [finding.sentence for finding in place.findings() if finding.is_wrong]
    assert len(problems) == 6
    assert all(sentence.endswith("run passport documents publish.") for sentence in problems)


def test_a_role_that_may_not_be_assumed_in_a_persons_name(place: Installation) -> None:
    config, account = place.folder / "passport.toml", place.aws.account
    role = f'role_arn = "arn:aws:iam::{account}:role/PassportServers"\nexternal_id = "{EXTERNAL_ID}"\nsource_identity = true'
    config.write_text(config.read_text().replace(f'id = "{account}"', f'id = "{account}"\n{role}'))
    assert "each needs sts:SetSourceIdentity" in place.problems()["aws prod-payments"]
    place.aws.trust_source_identity(account)
    said = [finding.line for finding in place.findings()]
    assert "ok       aws prod-payments: Its role may be assumed in a person's name." in said
    assert "aws prod-payments" not in place.problems()
