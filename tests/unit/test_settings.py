"""The settings: what is right, and the one line that says what is wrong."""

import base64
import os
import re
import tomllib
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from access.model import Rights
from bot import settings as module
from bot import wiring
from bot.settings import AwsAccountSettings, ProviderSettings, RuleSettings, Settings, SettingsError
from storage.unit_of_work import SqlStore

EXAMPLE = Path(__file__).parents[2] / "passport.example.toml"
TOKEN, SIGNING = "xoxb-1234567890-secretsecret", "0123456789abcdef" * 2
KEY = "k1:" + base64.b64encode(b"s" * 32).decode()
SECRETS = (TOKEN, SIGNING, KEY, KEY.removeprefix("k1:"), "scim-secret", "external-secret", "db-secret")
REAL = {
    'slack_bot_token = "xoxb-…"': f'slack_bot_token = "{TOKEN}"',
    'slack_signing_secret = "…"': f'slack_signing_secret = "{SIGNING}"',
    'sealing_keys = ["k1:…"]': f'sealing_keys = ["{KEY}"]',
    'scim_token = "…"': 'scim_token = "scim-secret"',
    'external_id = "…"': 'external_id = "external-secret"',
    'database_url = "sqlite:///passport.db"': 'database_url = "postgresql://passport:db-secret@db/passport"',
}


def everything() -> str:
    """The example with its commented-out settings switched on, and real-looking values for its placeholders."""
    text = re.sub(r"(?m)^# (?=[a-z_]+ = )", "", EXAMPLE.read_text())
    text = re.sub(r"(?m)^slack_app_token = .*\n", "", text)  # it stands in the place of slack_signing_secret
    for placeholder, real in REAL.items():
        assert placeholder in text
        text = text.replace(placeholder, real)
    return text


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, and no variables of Passport's."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("PASSPORT_")]:
        monkeypatch.delenv(name)
    return tmp_path


def load(text: str | None = None) -> Settings:
    """The settings of a ``passport.toml`` with this text."""
    Path("passport.toml").write_text(everything() if text is None else text)
    return module.load()


def refusal(text: str | None = None) -> str:
    """The one line that the start stops with; it holds no secret."""
    with pytest.raises(SettingsError) as caught:
        load(text)
    return plain(caught.value)


def plain(error: SettingsError) -> str:
    """Its sentence, looked through for line breaks and secrets."""
    assert "\n" not in error.sentence
    assert not [secret for secret in SECRETS if secret in error.sentence]
    assert error.__cause__ is None
    assert error.__suppress_context__ or error.__context__ is None
    return error.sentence


def without(setting: str) -> str:
    """Everything but this top-level setting."""
    text, count = re.subn(rf"(?m)^{setting} = .*\n", "", everything(), count=1)
    assert count == 1
    return text


def changed(old: str, new: str) -> str:
    """Everything, with one thing different."""
    assert everything().count(old) == 1
    return everything().replace(old, new)


# --- The example ---------------------------------------------------------------------------------------------------


def test_the_example_loads() -> None:
    settings = load()
    assert settings.address == ("127.0.0.1", 8080)
    assert settings.default_duration == timedelta(hours=1)
    assert settings.providers[0].scim_url == "https://directory.example.com/scim/v2"
    [rule] = settings.policy().rules
    assert (rule.name, rule.quorum, rule.rights) == ("prod-root", 1, Rights(sudo=True))
    assert rule.tags == {"env": ("prod",)}


def test_sudo_may_be_named_commands_and_the_other_rights_are_closed_unless_opened() -> None:
    commands = '["/usr/bin/systemctl restart nginx", "/usr/sbin/nginx -t"]'
    [rule] = load(changed("sudo = true", f"sudo = {commands}")).policy().rules
    assert rule.rights == Rights(commands=("/usr/bin/systemctl restart nginx", "/usr/sbin/nginx -t"))
    assert rule.terms().keep_home_days == 0
    opened = changed("metadata = false", "metadata = true").replace("keep_home_days = 0", "keep_home_days = 7")
    [rule] = load(opened).policy().rules
    assert (rule.rights, rule.terms().keep_home_days) == (Rights(sudo=True, metadata=True), 7)


@pytest.mark.parametrize(
    ("written", "why"),
    [
        ("[]", "name 1 to 10 commands"),
        ('["/usr/bin/vim /etc/hosts"]', "/usr/bin/vim is an editor"),
        ('["nginx -t"]', "is not an absolute path"),
        ('"/usr/sbin/nginx -t"', "a list of commands"),
        ("[1]", "a list of commands"),
        ("1", "a list of commands"),
        (str([f"/usr/bin/thing{number}" for number in range(11)]), "name 1 to 10 commands"),
    ],
)
def test_a_command_that_gives_a_shell_stops_the_start_with_its_reason(written: str, why: str) -> None:
    sentence = refusal(changed("sudo = true", f"sudo = {written}"))
    assert sentence.startswith("The setting rules.0.sudo is wrong: ")
    assert why in sentence


def test_the_example_as_it_stands_is_refused_for_its_placeholders() -> None:
    assert refusal(EXAMPLE.read_text()).startswith("The setting slack_bot_token is wrong")


@pytest.mark.parametrize(
    ("section", "model"),
    [(None, Settings), ("providers", ProviderSettings), ("accounts", AwsAccountSettings), ("rules", RuleSettings)],
)
def test_the_example_explains_every_setting_and_no_other(section: str | None, model: type[BaseModel]) -> None:
    parsed: dict[str, Any] = tomllib.loads(everything())
    found = parsed if section is None else parsed[section][0]
    instead = {"slack_app_token"} if section is None else set()
    assert set(found) | instead == set(model.model_fields)
    assert all(f"{name} = " in EXAMPLE.read_text() for name in instead)


@pytest.mark.parametrize("name", ["listen", "log_level", "slack_api_url", "document_prefix", "default_duration",
                                  "max_duration", "min_duration", "lapse_after", "link_lifetime", "groups_max_age",
                                  "groups_refresh_every", "inventory_every", "ca_key_file"])  # fmt: skip
def test_the_example_shows_the_defaults(name: str) -> None:
    assert getattr(load(), name) == Settings.model_fields[name].default


# --- Variables -----------------------------------------------------------------------------------------------------


def test_variables_win_over_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PASSPORT_LISTEN", "0.0.0.0:9000")
    monkeypatch.setenv("PASSPORT_ADMINS", "ops, security ,")
    monkeypatch.setenv("PASSPORT_MAX_DURATION", "1h30m")
    monkeypatch.setenv("PASSPORT_SLACK_API_URL", "http://127.0.0.1:7777/api/")
    monkeypatch.setenv("PASSPORT_TRUSTED_PROXIES", "10.0.0.0/8,::1")
    settings = load()
    assert settings.address == ("0.0.0.0", 9000)
    assert settings.admins == ("ops", "security")
    assert settings.max_duration == timedelta(minutes=90)
    assert settings.slack_api_url == "http://127.0.0.1:7777/api/"
    assert settings.trusted_proxies == ("10.0.0.0/8", "::1")


def test_secrets_can_be_variables_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PASSPORT_SEALING_KEYS", f"k2:{base64.b64encode(b't' * 32).decode()},{KEY}")
    settings = load(without("sealing_keys"))
    assert [key.get_secret_value()[:3] for key in settings.sealing_keys] == ["k2:", "k1:"]


def test_a_variable_that_names_no_setting_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PASSPORT_SLACK_BOT_TOKN", TOKEN)
    assert refusal() == "The variable PASSPORT_SLACK_BOT_TOKN names no setting. Check its spelling."


def test_a_table_in_a_variable_must_be_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PASSPORT_PROVIDERS", "name=okta scim_token=scim-secret")
    assert '"providers"' in refusal()


def test_the_variable_for_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PASSPORT_CONFIG", str(tmp_path / "here.toml"))
    with pytest.raises(SettingsError, match=r"PASSPORT_CONFIG names .*here\.toml, which is not a file\. Mend"):
        module.load()
    (tmp_path / "here.toml").write_text(everything())
    assert module.load().instance == ""


# --- What is wrong is named, in one line ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name, field in Settings.model_fields.items() if field.is_required()])
def test_what_is_missing_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name in {"providers", "accounts", "rules"}:
        text = re.sub(rf"(?ms)^\[\[{name}\]\].*?(?=^\[\[|\Z)", "", everything())
    else:
        text = without(name)
    said = refusal(text)
    assert said.startswith(f"The setting {name} is missing.")
    assert f"PASSPORT_{name.upper()}" in said


def test_without_any_file_the_first_setting_is_missing() -> None:
    with pytest.raises(SettingsError, match="The setting public_url is missing"):
        module.load()


@pytest.mark.parametrize(
    ("old", "new", "named", "mend"),
    [
        ('"https://passport.example.com"  ', '"http://passport.example.com"', "public_url", "begins with https://"),
        ('"https://passport.example.com"  ', '"https://passport.example.com/x"', "public_url", "like \"https://"),
        ('"https://passport.example.com"  ', '"passport.example.com"', "public_url", "like \"https://"),
        ('"https://passport.example.com"  ', '"https://me:pw@a.example"', "public_url", "like \"https://"),
        ('"https://passport.example.com"  ', '"https://[::1"', "public_url", "Invalid IPv6 URL"),
        ('"127.0.0.1:8080"', '"8080"', "listen", "a host and a port"),
        ('"127.0.0.1:8080"', '"127.0.0.1:88080"', "listen", "a host and a port"),
        ('["127.0.0.1"]', '["proxy.example"]', "trusted_proxies.0", "'proxy.example' is no address"),
        ('"INFO"', '"LOUD"', "log_level", "DEBUG"),
        (f'"{TOKEN}"', '"xoxp-123456789012"', "slack_bot_token", "begins with xoxb-"),
        (f'"{TOKEN}"', '""', "slack_bot_token", "begins with xoxb-"),
        (f'"{SIGNING}"', '""', "slack_signing_secret", "32 hexadecimal digits"),
        (f'"{SIGNING}"', f'"{SIGNING[:20]}"', "slack_signing_secret", "32 hexadecimal digits"),
        (f'"{SIGNING}"', "7", "slack_signing_secret", "valid string"),
        ('"T0EXAMPLE"', '"C0EXAMPLE"', "slack_team_id", "^T"),
        ('"C0EXAMPLE"', '"#audit"', "slack_audit_channel", "^[CG]"),
        ('"https://slack.com/api/"', '"https://slack.com/api"', "slack_api_url", "slash included"),
        ('"https://slack.com/api/"', '"http://slack.com/api/"', "slack_api_url", "slash included"),
        (f'["{KEY}"]', "[]", "sealing_keys", "at least 1 item"),
        ('default_duration = "1h"', "default_duration = 3600", "default_duration", "in quotes"),
        ('default_duration = "1h"', 'default_duration = "soon"', "default_duration", "not 'soon'"),
        ('lapse_after = "30m"', 'lapse_after = "0m"', "lapse_after", "not '0m'"),
        ('id = "111111111111"', 'id = "1111"', "accounts.0.id", r"^\d{12}$"),
        ('regions = ["eu-west-1"]', "regions = []", "accounts.0.regions", "at least 1 item"),
        ('"arn:aws:iam::111111111111:role/passport"', '"passport"', "accounts.0.role_arn", "^arn:aws"),
        ('role_arn = "arn:aws:iam::111111111111:role/passport"', "", "accounts.0", "source_identity needs a role_arn"),
        ('scim_url = "https:', 'scim_url = "http:', "providers.0.scim_url", "begins with https://"),
        ('scim_token = "scim-secret"', "", "providers.0", "go together"),
        ('"prod-root"', '"Prod Root"', "rules.0.name", "^[a-z0-9-]"),
        ("approvals = 1 ", "approvals = 0 ", "rules.0.approvals", "greater than or equal to 1"),
        ("approvals = 1 ", "approvers = 1 ", "rules.0.approvers", "Check its spelling"),
        ("instance = ", "instnace = ", "instnace", "Check its spelling"),
        ('metadata_file = "okta-metadata.xml"', "", "providers.0.metadata_file", "passport.toml there"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_the_way_to_mend_it(old: str, new: str, named: str, mend: str) -> None:
    said = refusal(changed(old, new))
    assert re.match(rf"(The setting|There is no setting) {re.escape(named)}\b", said), said
    assert mend in said
    assert "passport.example.toml" in said


@pytest.mark.parametrize("kind", ["providers", "accounts", "rules"])
def test_two_of_one_name_are_refused(kind: str) -> None:
    found = re.search(rf"(?ms)^\[\[{kind}\]\].*?(?=^# ---|\Z)", everything())
    assert found
    said = refusal(everything() + "\n" + found[0])
    assert said.startswith(f"The setting {kind} is wrong: two have the name ")


def test_a_rule_for_an_account_that_is_not_there_is_refused() -> None:
    said = refusal(changed('accounts = ["prod-payments"]', 'accounts = ["prod-paymnets"]'))
    assert "the rule prod-root names the account prod-paymnets, which [[accounts]] lacks" in said


def test_a_default_beyond_the_most_is_refused() -> None:
    said = refusal(changed('max_duration = "12h"', 'max_duration = "30m"'))
    assert "default_duration lies between min_duration and max_duration" in said


@pytest.mark.parametrize("content", [b"public_url = ", b"\xff\xfe", b"public_url = 1\npublic_url = 2"])
def test_a_file_that_is_not_toml(content: bytes) -> None:
    Path("passport.toml").write_bytes(content)
    with pytest.raises(SettingsError) as caught:
        module.load()
    assert plain(caught.value).startswith("passport.toml is not TOML: ")


@pytest.mark.parametrize("url", ["http://127.0.0.1:8080", "http://localhost:8080", "http://[::1]:8080/"])
def test_http_is_fine_on_loopback(url: str) -> None:
    assert load(changed('"https://passport.example.com"  ', f'"{url}"')).public_url == url


# --- Secrets -------------------------------------------------------------------------------------------------------


def test_nothing_shows_a_secret() -> None:
    settings = load()
    for shown in (repr(settings), str(settings), f"{settings.accounts!r}{settings.providers!r}"):
        assert not [secret for secret in SECRETS if secret in shown]


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ("k1:not base64!", "it is not name:base64"),
        ("c2VjcmV0LXNlY3JldC1zZWNyZXQ", "it is not name:base64"),
        ("k1:schlüssel", "it is not name:base64"),
        (f"k1:{base64.b64encode(b's' * 16).decode()}", "16 bytes instead of 32"),
        (f"k 1:{KEY[3:]}", "the id of a sealing key"),
        (f"{KEY}, {KEY}", "two sealing keys have the same id"),
    ],
)
def test_a_bad_sealing_key_is_named_and_not_shown(key: str, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PASSPORT_SEALING_KEYS", key)
    with pytest.raises(SettingsError) as caught:
        wiring.sealer(load())
    said = plain(caught.value)
    assert said.startswith("The setting sealing_keys")
    assert why in said
    assert "openssl rand -base64 32" in said
    assert key not in said


def test_the_first_sealing_key_seals_and_all_open(monkeypatch: pytest.MonkeyPatch, sqlite_store: SqlStore) -> None:
    place = {"table": "t", "column": "c", "row": "r"}
    sealed = wiring.sealer(load()).seal(b"value", **place)
    monkeypatch.setenv("PASSPORT_SEALING_KEYS", f"k2:{base64.b64encode(b't' * 32).decode()},{KEY}")
    both = wiring.sealer(load())
    assert both.open(sealed, **place) == b"value"
    assert both.seal(b"value", **place).startswith("v1:k2:")


@pytest.mark.parametrize("missing", ["saml_key_file", "saml_certificate_file", "metadata_file of the provider okta"])
def test_a_file_that_is_missing_is_named(missing: str, folder: Path) -> None:
    settings = load()
    for name in ("saml.key", "saml.crt", "okta-metadata.xml"):
        (folder / name).write_text("x")
    (folder / {"k": "saml.key", "c": "saml.crt"}.get(missing[5], "okta-metadata.xml")).unlink()
    with pytest.raises(SettingsError) as caught:
        wiring.service_provider(settings)
    assert f"The file of the setting {missing} cannot be read" in plain(caught.value)
    assert "No such file or directory" in caught.value.sentence
