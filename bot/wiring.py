"""The only place that joins adapters to the rules' ports."""

import base64
import os
import secrets
import socket
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from access.errors import PassportError
from access.ports import IdentityStore
from bot.settings import ProviderSettings, Settings, SettingsError
from identity.providers import EMAIL_ATTRIBUTES, GROUP_ATTRIBUTES, NAME_ATTRIBUTES, IdentityProvider
from identity.stores.assertion import AssertionStore
from identity.stores.scim import ScimDirectory, ScimStore
from provisioning.aws import AwsAccount, Sessions
from storage.sealing import Sealer
from storage.unit_of_work import SqlStore

if TYPE_CHECKING:
    from identity.saml import ServiceProvider

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's base 32: no I, L, O or U to misread


def now() -> datetime:
    """The clock of a running Passport."""
    return datetime.now(UTC)


def new_token() -> str:
    """256 random bits, safe in an address."""
    return secrets.token_urlsafe(32)


def new_request_id(taken: int = 0) -> str:
    """A candidate: short enough to say aloud, and for a user name on any server.

    Four characters, of which there are a million; one more, up to eight, for every eight candidates ``taken``.
    """
    length = min(4 + taken // 8, 8)
    return "AR-" + "".join(_ALPHABET[byte % len(_ALPHABET)] for byte in secrets.token_bytes(length))


def instance_name(settings: Settings) -> str:
    """This process among its replicas; the same after a restart, so that it reclaims its own leases."""
    return settings.instance or socket.gethostname()


def open_store(settings: Settings, *, exclusive: bool = True) -> SqlStore:
    """The database; ``exclusive=False`` for a command beside the server. Raises SettingsError or StoreBusyError."""
    return SqlStore(settings.database_url, sealing=sealer(settings), exclusive=exclusive)


def sealer(settings: Settings) -> Sealer:
    """What seals secrets at rest; raises SettingsError."""
    keys = []
    for number, secret in enumerate(settings.sealing_keys):
        name, _, encoded = secret.get_secret_value().partition(":")
        try:
            keys.append((name, base64.b64decode(encoded, validate=True)))
        except ValueError:
            raise _wrong_key(number) from None
        if not encoded:  # the name would be the secret itself, and an error shows names
            raise _wrong_key(number)
    try:
        return Sealer(keys)
    except ValueError as error:
        raise SettingsError(f"The setting sealing_keys is wrong: {error}. {_MAKE_KEY}") from None


_MAKE_KEY = "Make one with: echo k1:$(openssl rand -base64 32)"


def _wrong_key(number: int) -> SettingsError:
    return SettingsError(f"The setting sealing_keys.{number} is wrong: it is not name:base64. {_MAKE_KEY}")


def sessions(settings: Settings, *, role: str | None = None) -> Sessions:
    """AWS, for every account of the settings; with ``role``, as that one of each account that names any."""
    accounts = aws_accounts(settings)
    if role:
        accounts = [
            replace(each, role_arn=f"{each.role_arn.partition(':role/')[0]}:role/{role}") if each.role_arn else each
            for each in accounts
        ]
    return Sessions(accounts, session_name=f"passport-{instance_name(settings)}")


def aws_accounts(settings: Settings) -> list[AwsAccount]:
    """The accounts as provisioning knows them."""
    return [
        AwsAccount(
            name=account.name,
            id=account.id,
            regions=account.regions,
            role_arn=account.role_arn,
            external_id=account.external_id.get_secret_value() if account.external_id else None,
            source_identity=account.source_identity,
            only_tagged=account.only_tagged,
        )
        for account in settings.accounts
    ]


def service_provider(settings: Settings) -> "ServiceProvider":
    """Passport towards its identity providers; raises SettingsError."""
    from identity.saml import ServiceProvider  # pysaml2 takes a third of a second, which most commands can spare

    try:
        return ServiceProvider(
            public_url=settings.public_url.rstrip("/"),
            entity_id=settings.saml_entity_id,
            signing_key_pem=_read(settings.saml_key_file, "saml_key_file"),
            signing_certificate_pem=_read(settings.saml_certificate_file, "saml_certificate_file"),
            providers=[_provider(provider) for provider in settings.providers],
            clock=now,
        )
    except (ValueError, TypeError, PassportError) as error:
        raise SettingsError(f"SAML cannot be set up: {error}. Check saml_key_file, saml_certificate_file and "
                            "each provider's metadata_file.") from None  # fmt: skip


def identity_stores(settings: Settings) -> dict[str, IdentityStore]:
    """Where each provider's people are looked up between sign-ins."""
    return {provider.name: _store(provider) for provider in settings.providers}


def check_database(store: SqlStore, settings: Settings) -> str:
    """Why the database cannot be used, as a sentence; "" when it can."""
    from storage.migrations import check

    try:
        check(settings.database_url)
        store.ping()
    except PassportError as error:
        return error.sentence
    return ""


def _provider(provider: ProviderSettings) -> IdentityProvider:
    return IdentityProvider(
        name=provider.name,
        metadata=_read(provider.metadata_file, f"metadata_file of the provider {provider.name}"),
        email_attributes=(provider.email_attribute,) if provider.email_attribute else EMAIL_ATTRIBUTES,
        name_attributes=(provider.name_attribute,) if provider.name_attribute else NAME_ATTRIBUTES,
        group_attributes=(provider.groups_attribute,) if provider.groups_attribute else GROUP_ATTRIBUTES,
    )


def _store(provider: ProviderSettings) -> IdentityStore:
    if provider.scim_url is None or provider.scim_token is None:
        return AssertionStore()
    return ScimStore(
        ScimDirectory(
            base_url=provider.scim_url,
            token=provider.scim_token.get_secret_value(),
            lookup_by=provider.scim_lookup_by,
        )
    )


def _read(path: Path, setting: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SettingsError(
            f"The file of the setting {setting} cannot be read: {path}: {os.strerror(error.errno or 0)}."
        ) from None
