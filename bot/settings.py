"""The settings: a TOML file and ``PASSPORT_…`` variables, which win. A wrong one stops the start with one line."""

import os
import tomllib
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)
from pydantic_settings.exceptions import SettingsError as UnreadableVariableError

from access.errors import PassportError
from access.model import Rights
from access.policy import EVERYTHING, Policy, Rule
from bot.values import (
    ApiUrl,
    AppToken,
    BotToken,
    Duration,
    Listen,
    Networks,
    PublicUrl,
    ScimUrl,
    Secrets,
    SigningSecret,
    Sudo,
    Words,
    WorkstationLifetime,
    host_and_port,
)

CONFIG_VARIABLE = "PASSPORT_CONFIG"
DEFAULT_CONFIG = "passport.toml"
KMS_KEY = r"^arn:aws[a-z-]*:kms:[a-z0-9-]{5,30}:\d{12}:key/[A-Za-z0-9-]{1,128}$"  # no alias: it may move on
_PREFIX = "PASSPORT_"


class SettingsError(PassportError):
    """A setting is wrong or missing; the sentence names it and says how to mend it."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z0-9-]{1,40}$")


class AwsAccountSettings(_Section):
    """An AWS account whose servers can be asked for."""

    id: str = Field(pattern=r"^\d{12}$")
    regions: tuple[str, ...] = Field(min_length=1)
    role_arn: str | None = Field(default=None, pattern=r"^arn:aws[a-z-]*:iam::\d{12}:role/.+$")
    external_id: SecretStr | None = None
    source_identity: bool = False
    only_tagged: bool = False

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.source_identity and self.role_arn is None:
            raise ValueError("source_identity needs a role_arn: only AssumeRole takes a person's name")
        return self


class ProviderSettings(_Section):
    """A SAML identity provider, and the store behind it."""

    metadata_file: Path
    email_attribute: str | None = None
    name_attribute: str | None = None
    groups_attribute: str | None = None
    scim_url: ScimUrl | None = None
    scim_token: SecretStr | None = None
    scim_lookup_by: tuple[Literal["externalId", "id", "userName", "emails.value"], ...] = Field(
        default=("externalId", "userName", "emails.value"), min_length=1
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.scim_url is None) != (self.scim_token is None):
            raise ValueError("scim_url and scim_token go together; give both or neither")
        return self


class RuleSettings(_Section):
    """One rule of the policy; the first that matches wins."""

    groups: tuple[str, ...] = Field(min_length=1)
    reviewers: tuple[str, ...] = Field(min_length=1)
    tell: tuple[str, ...] = Field(min_length=1)
    accounts: tuple[str, ...] = (EVERYTHING,)
    tags: dict[str, str | tuple[str, ...]] = Field(default_factory=dict)
    max_duration: Duration = timedelta(hours=12)
    approvals: int = Field(default=1, ge=1, le=10)
    sudo: Sudo = False
    forwarding: bool = False
    metadata: bool = False
    administrator: bool = False
    keep_home_days: int = Field(default=0, ge=0, le=90)

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
            rights=Rights(
                sudo=self.sudo is True,
                commands=() if isinstance(self.sudo, bool) else self.sudo,
                forwarding=self.forwarding,
                metadata=self.metadata,
                administrator=self.administrator,
            ),
            keep_home_days=self.keep_home_days,
        )


_Named = TypeVar("_Named", bound=_Section)


def _distinct(sections: tuple[_Named, ...]) -> tuple[_Named, ...]:
    names = [section.name for section in sections]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"two have the name {min(twice)}; give each its own")
    return sections


class Settings(BaseSettings):
    """Everything that can be set; ``passport.example.toml`` explains each."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, extra="forbid", frozen=True, hide_input_in_errors=True)

    public_url: PublicUrl
    listen: Listen = "127.0.0.1:8080"
    trusted_proxies: Networks = ()
    instance: str = ""
    log_level: str = Field(default="INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$")
    log_format: str = Field(default="console", pattern="^(console|json)$")
    metrics_listen: Listen | None = None

    slack_bot_token: BotToken
    slack_signing_secret: SigningSecret | None = None
    slack_app_token: AppToken | None = None
    slack_socket_connections: int = Field(default=2, ge=1, le=10)  # Slack's page "Using Socket Mode": up to 10
    slack_team_id: str = Field(pattern=r"^T[A-Z0-9]{2,20}$")
    slack_audit_channel: str = Field(pattern=r"^[CG][A-Z0-9]{2,20}$")
    slack_admins: Words = ()
    slack_api_url: ApiUrl = "https://slack.com/api/"

    database_url: str = Field(default="sqlite:///passport.db", repr=False)  # may hold a password
    sealing_keys: Secrets = Field(min_length=1)

    ca_key_file: Path = Path("passport-ca.sealed")
    ca_kms_key: str | None = Field(default=None, pattern=KMS_KEY)
    saml_entity_id: str | None = None
    saml_key_file: Path
    saml_certificate_file: Path
    providers: Annotated[tuple[ProviderSettings, ...], AfterValidator(_distinct)] = Field(min_length=1)

    accounts: Annotated[tuple[AwsAccountSettings, ...], AfterValidator(_distinct)] = Field(min_length=1)
    document_prefix: str = Field(default="Passport-", pattern=r"^[A-Za-z0-9_.-]{3,60}$")
    inventory_every: Duration = timedelta(minutes=2)
    own_aws_credentials: bool = False

    rules: Annotated[tuple[RuleSettings, ...], AfterValidator(_distinct)] = Field(min_length=1)
    admins: Words = ()
    default_duration: Duration = timedelta(hours=1)
    max_duration: Duration = timedelta(hours=12)
    min_duration: Duration = timedelta(minutes=5)
    max_servers: int = Field(default=50, ge=1, le=1000)
    lapse_after: Duration = timedelta(minutes=30)
    link_lifetime: Duration = timedelta(hours=12)
    workstation_certificate_lifetime: WorkstationLifetime = timedelta(minutes=5)
    groups_max_age: Duration = timedelta(hours=12)
    exception_lifetime: Duration = timedelta(days=90)
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
        if (self.slack_signing_secret is None) == (self.slack_app_token is None):
            raise ValueError(
                "set either slack_signing_secret (Slack calls Passport) or slack_app_token (Socket Mode: Passport "
                "calls Slack), and not both"
            )
        known = {account.name for account in self.accounts} | {EVERYTHING}
        for rule in self.rules:
            if unknown := set(rule.accounts) - known:
                raise ValueError(f"the rule {rule.name} names the account {min(unknown)}, which [[accounts]] lacks")
        if not self.min_duration <= self.default_duration <= self.max_duration:
            raise ValueError("default_duration lies between min_duration and max_duration")
        return self

    @property
    def address(self) -> tuple[str, int]:
        """Where ``passport serve`` listens."""
        return host_and_port(self.listen)

    @property
    def home(self) -> str:
        """``public_url`` in its one form: what names this Passport among several."""
        return self.public_url.rstrip("/")

    def policy(self) -> Policy:
        """The policy that these settings write down."""
        return Policy(
            rules=tuple(rule.rule() for rule in self.rules),
            admins=frozenset(self.admins),
            default_duration=self.default_duration,
            max_duration=self.max_duration,
            min_duration=self.min_duration,
            max_servers=self.max_servers,
            lapse_after=self.lapse_after,
            link_lifetime=self.link_lifetime,
            groups_max_age=self.groups_max_age,
            exception_lifetime=self.exception_lifetime,
        )


def load() -> Settings:
    """Read the settings; raises SettingsError with one line."""
    path = Path(os.environ.get(CONFIG_VARIABLE, DEFAULT_CONFIG))
    if CONFIG_VARIABLE in os.environ and not path.is_file():
        raise SettingsError(f"{CONFIG_VARIABLE} names {path}, which is not a file. Mend the path.")
    for name in os.environ:
        known = name.removeprefix(_PREFIX).lower() in Settings.model_fields or name == CONFIG_VARIABLE
        if name.startswith(_PREFIX) and not known:
            raise SettingsError(f"The variable {name} names no setting. Check its spelling.")
    try:
        return Settings()
    except ValidationError as error:
        raise SettingsError(_first_problem(error)) from None
    except UnreadableVariableError as error:  # names the setting, and holds no value
        raise SettingsError(f"A variable is wrong: {error}. Write it as JSON, or better in {path}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        where = error if isinstance(error, tomllib.TOMLDecodeError) else "it is not UTF-8"
        raise SettingsError(f"{path} is not TOML: {where}. Mend that.") from None
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}.") from None


def _first_problem(error: ValidationError) -> str:
    """The first problem, by name and without the value, which may be a secret."""
    found: Any = error.errors(include_input=False, include_url=False)[0]
    path = ".".join(str(part) for part in found["loc"])
    if found["type"] == "missing":
        top = str(found["loc"][0])
        how = f"or the variable {_PREFIX}{top.upper()}" if len(found["loc"]) == 1 else "there"
        return f"The setting {path} is missing. Add it to passport.toml {how}; passport.example.toml explains it."
    if found["type"] == "extra_forbidden":
        return f"There is no setting {path}. Check its spelling against passport.example.toml."
    message = str(found["msg"]).removeprefix("Value error, ").rstrip(".")
    subject = f"The setting {path} is wrong" if path else "The settings contradict each other"
    return f"{subject}: {message}. See passport.example.toml."
