"""What a single setting may be: types that check and read it. Their errors say what a right one is like."""

import ipaddress
import re
from datetime import timedelta
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, SecretStr
from pydantic_settings import NoDecode

from access.words import parse_duration
from provisioning import sudo_commands


def host_and_port(listen: str) -> tuple[str, int]:
    """``host:port`` in two; raises ValueError."""
    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise ValueError('it is a host and a port, like "127.0.0.1:8080"')
    return host.strip("[]"), int(port)


def _duration(value: object) -> object:
    if isinstance(value, timedelta):  # a default
        return value
    if not isinstance(value, str):
        raise ValueError('write a duration like "30m", "2h" or "1h30m", in quotes')  # noqa: TRY004 - for pydantic
    try:
        return parse_duration(value)
    except ValueError:
        raise ValueError(f'write a duration like "30m", "2h" or "1h30m", not {value!r}') from None


def _minutes(value: timedelta) -> timedelta:
    if not timedelta(minutes=2) <= value <= timedelta(hours=1):  # laptops fetch a new one a minute before the end
        raise ValueError("it lies between 2m and 1h")
    return value


def _words(value: object) -> object:
    """A list, also from a variable, where it is written with commas."""
    return [word.strip() for word in value.split(",") if word.strip()] if isinstance(value, str) else value


def _listen(listen: str) -> str:
    host_and_port(listen)
    return listen


def _network(word: str) -> str:
    try:
        ipaddress.ip_network(word, strict=False)
    except ValueError:
        raise ValueError(f"{word!r} is no address, and no network like 10.0.0.0/8") from None
    return word


def _public_url(url: str) -> str:
    """Nothing in it but what may stand in a shell script: laptops are given one that holds it."""
    urlsplit(url)  # says best what is wrong with brackets
    if not re.fullmatch(r"https?://[A-Za-z0-9._-]+(:[0-9]+)?/?|https?://\[[0-9A-Fa-f:.]+\](:[0-9]+)?/?", url):
        raise ValueError('it is the address people reach Passport at, like "https://passport.example.com"')
    if not _is_secure(url):
        raise ValueError("it begins with https:// (http:// only on loopback)")
    return url


def _api_url(url: str) -> str:
    if not _is_secure(url) or not url.endswith("/"):
        raise ValueError('it is like "https://slack.com/api/" or "https://slack-gov.com/api/", slash included')
    return url


def _scim_url(url: str) -> str:
    if not _is_secure(url):
        raise ValueError("it begins with https:// (http:// only on loopback)")
    return url


def _is_secure(url: str) -> bool:
    parts = urlsplit(url)
    host = parts.hostname or ""
    return bool(host) and (parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(host)))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _bot_token(token: SecretStr) -> SecretStr:
    if not re.fullmatch(r"xoxb-[A-Za-z0-9-]{8,}", token.get_secret_value()):
        raise ValueError("it begins with xoxb- (in Slack: OAuth & Permissions)")
    return token


def _app_token(token: SecretStr) -> SecretStr:
    if not re.fullmatch(r"xapp-[A-Za-z0-9-]{8,}", token.get_secret_value()):
        raise ValueError("it begins with xapp- (in Slack: Basic Information, App-Level Tokens)")
    return token


def _signing_secret(secret: SecretStr) -> SecretStr:
    if not re.fullmatch(r"[0-9a-f]{32,}", secret.get_secret_value()):  # anybody could sign with an empty one
        raise ValueError("it has 32 hexadecimal digits (in Slack: Basic Information)")
    return secret


def _sudo(value: object) -> object:
    """All, none, or named commands; each is refused with its reason."""
    if isinstance(value, bool):
        return value
    if not isinstance(value, list | tuple) or not all(isinstance(command, str) for command in value):
        raise ValueError('it is true, false, or a list of commands like ["/usr/bin/systemctl restart nginx"]')
    if not 1 <= len(value) <= sudo_commands.MOST_COMMANDS:
        raise ValueError(f"name 1 to {sudo_commands.MOST_COMMANDS} commands, or write false")
    for command in value:
        if why := sudo_commands.objection(command):
            raise ValueError(why)
    return tuple(dict.fromkeys(value))


Duration = Annotated[timedelta, BeforeValidator(_duration)]
Sudo = Annotated[bool | tuple[str, ...], BeforeValidator(_sudo)]
WorkstationLifetime = Annotated[timedelta, BeforeValidator(_duration), AfterValidator(_minutes)]
Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_words)]
Networks = Annotated[tuple[Annotated[str, AfterValidator(_network)], ...], NoDecode, BeforeValidator(_words)]
Secrets = Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(_words)]
Listen = Annotated[str, AfterValidator(_listen)]
PublicUrl = Annotated[str, AfterValidator(_public_url)]
ApiUrl = Annotated[str, AfterValidator(_api_url)]
ScimUrl = Annotated[str, AfterValidator(_scim_url)]
BotToken = Annotated[SecretStr, AfterValidator(_bot_token)]
AppToken = Annotated[SecretStr, AfterValidator(_app_token)]
SigningSecret = Annotated[SecretStr, AfterValidator(_signing_secret)]
