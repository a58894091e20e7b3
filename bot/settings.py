"""The settings: a TOML file and ``PASSPORT_…`` variables, which win. A wrong one stops the start with one line."""

import ipaddress
import os
import tomllib
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from access.errors import PassportError
from access.model import Rights
from access.policy import EVERYTHING, Policy, Rule
from access.words import parse_duration

CONFIG_VARIABLE = "PASSPORT_CONFIG"
DEFAULT_CONFIG = "passport.toml"


class SettingsError(PassportError):
    """A setting is wrong or missing; the sentence names it and says how to mend it."""


def _duration(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return parse_duration(value)
    except ValueError:
        raise ValueError(f'write a duration like "30m", "2h" or "1h30m", not {value!r}') from None


def _words(value: object) -> object:
    """A list, also from a variable, where it is written with commas."""
    return [word.strip() for word in value.split(",") if word.strip()] if isinstance(value, str) else value


Duration = Annotated[timedelta, BeforeValidator(_duration)]
Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_words)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class AwsAccountSettings(_Section):
    """An AWS account whose servers can be asked for."""

    name: str = Field(pattern=r"^[a-z0-9-]{1,40}$")
    id: str = Field(pattern=r"^\d{12}$")
    regions: tuple[str, ...] = Field(min_length=1)
    role_arn: str | None = Field(default=None, pattern=r"^arn:aws[a-z-]*:iam::\d{12}:role/.+$")
    external_id: SecretStr | None = None


class ProviderSettings(_Section):
    """A SAML identity provider, and the store behind it."""

    name: str = Field(pattern=r"^[a-z0-9-]{1,40}$")
    metadata_file: Path
    email_attribute: str | None = None
    name_attribute: str | None = None
    groups_attribute: str | None = None
    scim_url: str | None = None
    scim_token: SecretStr | None = None


class RuleSettings(_Section):
    """One rule of the policy; the first that matches wins."""

    name: str = Field(pattern=r"^[a-z0-9-]{1,40}$")
    groups: tuple[str, ...] = Field(min_length=1)
    reviewers: tuple[str, ...] = Field(min_length=1)
    tell: tuple[str, ...] = Field(min_length=1)
    accounts: tuple[str, ...] = (EVERYTHING,)
    tags: dict[str, str | tuple[str, ...]] = Field(default_factory=dict)
    max_duration: Duration = timedelta(hours=12)
    approvals: int = Field(default=1, ge=1, le=10)
    sudo: bool = False
    forwarding: bool = False

    def rule(self) -> Rule:
        """The rule as the policy knows it."""
        return Rule(
            name=self.name,
            groups=frozenset(self.groups),
            reviewers=frozenset(self.reviewers),
            tell=self.tell,
            accounts=frozenset(self.accounts),
            tags={key: (value,) if isinstance(value, str) else value for key, value in self.tags.items()},
            max_duration=self.max_duration,
            quorum=self.approvals,
            rights=Rights(sudo=self.sudo, forwarding=self.forwarding),
        )


class Settings(BaseSettings):
    """Everything that can be set; ``passport.example.toml`` explains each."""

    model_config = SettingsConfigDict(env_prefix="PASSPORT_", extra="forbid", frozen=True, hide_input_in_errors=True)

    public_url: str
    listen: str = "127.0.0.1:8080"
    trusted_proxies: Words = ()
    instance: str = ""
    log_level: str = Field(default="INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$")

    slack_bot_token: SecretStr
    slack_signing_secret: SecretStr
    slack_team_id: str = Field(pattern=r"^T[A-Z0-9]{2,20}$")
    slack_audit_channel: str = Field(pattern=r"^[CG][A-Z0-9]{2,20}$")
    slack_admins: Words = ()
    slack_api_url: str = "https://slack.com/api/"

    database_url: str = "sqlite:///passport.db"
    sealing_keys: Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(_words)] = Field(min_length=1)

    ca_key_file: Path = Path("passport-ca.sealed")
    saml_entity_id: str | None = None
    saml_key_file: Path
    saml_certificate_file: Path
    providers: tuple[ProviderSettings, ...] = Field(min_length=1)

    accounts: tuple[AwsAccountSettings, ...] = Field(min_length=1)
    document_prefix: str = Field(default="Passport-", pattern=r"^[A-Za-z0-9_.-]{3,60}$")
    inventory_every: Duration = timedelta(minutes=2)

    rules: tuple[RuleSettings, ...] = Field(min_length=1)
    admins: Words = ()
    default_duration: Duration = timedelta(hours=1)
    max_duration: Duration = timedelta(hours=12)
    min_duration: Duration = timedelta(minutes=5)
    lapse_after: Duration = timedelta(minutes=30)
    link_lifetime: Duration = timedelta(hours=12)
    groups_max_age: Duration = timedelta(hours=12)
    groups_refresh_every: Duration = timedelta(minutes=10)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic-settings names these arguments
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Variables win over the file; nothing else is read."""
        path = os.environ.get(CONFIG_VARIABLE, DEFAULT_CONFIG)
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, toml_file=path)

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_public_url(self.public_url)
        check_api_url(self.slack_api_url)
        for proxy in self.trusted_proxies:
            ipaddress.ip_network(proxy, strict=False)
        host_and_port(self.listen)
        for kind in ("rules", "accounts", "providers"):
            names = [section.name for section in getattr(self, kind)]
            if len(set(names)) < len(names):
                raise ValueError(f"two {kind} share a name; give each its own")
        known = {account.name for account in self.accounts} | {EVERYTHING}
        for rule in self.rules:
            if unknown := set(rule.accounts) - known:
                raise ValueError(f"rule {rule.name} names the account {min(unknown)}, which [[accounts]] lacks")
        return self

    @property
    def address(self) -> tuple[str, int]:
        """Where ``passport serve`` listens."""
        return host_and_port(self.listen)

    def policy(self) -> Policy:
        """The policy that these settings write down."""
        return Policy(
            rules=tuple(rule.rule() for rule in self.rules),
            admins=frozenset(self.admins),
            default_duration=self.default_duration,
            max_duration=self.max_duration,
            min_duration=self.min_duration,
            lapse_after=self.lapse_after,
            link_lifetime=self.link_lifetime,
            groups_max_age=self.groups_max_age,
        )


def load() -> Settings:
    """Read the settings; raises SettingsError with one line."""
    path = Path(os.environ.get(CONFIG_VARIABLE, DEFAULT_CONFIG))
    if CONFIG_VARIABLE in os.environ and not path.is_file():
        raise SettingsError(f"{CONFIG_VARIABLE} names {path}, which is not a file. Mend the path.")
    for name in os.environ:
        known = name.removeprefix("PASSPORT_").lower() in Settings.model_fields or name == CONFIG_VARIABLE
        if name.startswith("PASSPORT_") and not known:
            raise SettingsError(f"The variable {name} names no setting. Check its spelling.")
    try:
        return Settings()
    except ValidationError as error:
        raise SettingsError(_first_problem(error)) from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path} is not TOML: {error}. Mend that line.") from None


def check_public_url(url: str) -> None:
    """https, or http on loopback; no path. Raises ValueError."""
    parts = urlsplit(url)
    if not parts.hostname or parts.path not in {"", "/"} or parts.query or parts.username:
        raise ValueError('public_url is the address people reach Passport at, like "https://passport.example.com"')
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_loopback(parts.hostname)):
        raise ValueError("public_url begins with https:// (http:// only on loopback)")


def check_api_url(url: str) -> None:
    """https, or http on loopback; ends in a slash. Raises ValueError."""
    parts = urlsplit(url)
    secure = parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(parts.hostname or ""))
    if not parts.hostname or not secure or not url.endswith("/"):
        raise ValueError(
            'slack_api_url is like "https://slack.com/api/" or "https://slack-gov.com/api/", slash included'
        )


def host_and_port(listen: str) -> tuple[str, int]:
    """``host:port`` in two; raises ValueError."""
    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise ValueError('listen is a host and a port, like "127.0.0.1:8080"')
    return host.strip("[]"), int(port)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _first_problem(error: ValidationError) -> str:
    """The first problem, by name and without the value, which may be a secret."""
    found: Any = error.errors(include_input=False, include_url=False)[0]
    path = ".".join(str(part) for part in found["loc"])
    if found["type"] == "missing":
        top = str(found["loc"][0])
        how = f"or the variable PASSPORT_{top.upper()}" if len(found["loc"]) == 1 else "there"
        return f"The setting {path} is missing. Add it to passport.toml {how}; passport.example.toml explains it."
    if found["type"] == "extra_forbidden":
        return f"There is no setting {path}. Check its spelling against passport.example.toml."
    message = str(found["msg"]).removeprefix("Value error, ")
    return f"The setting {path} is wrong: {message}." if path else f"A setting is wrong: {message}."
