"""Calls of Systems Manager signed with Signature Version 4, for programs that start once an ssh: standard library."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import time


class UnreachableError(Exception):
    """Nobody answers at this address."""


def credentials(profile: str = "") -> dict[str, str]:
    """Keys, region and address from the environment and the profile's files, as AWS_… names; raises KeyError.

    The KeyError names a profile that is in no file.
    """
    found = dict(os.environ)
    name = profile or found.get("AWS_PROFILE")
    return found | _read_profile(name) if name else found


def _read_profile(name: str) -> dict[str, str]:
    import configparser

    files = configparser.RawConfigParser()
    home = os.path.expanduser("~/.aws")  # noqa: PTH111 - pathlib takes longer to start than the rest
    files.read([os.environ.get("AWS_CONFIG_FILE", f"{home}/config")])
    files.read([os.environ.get("AWS_SHARED_CREDENTIALS_FILE", f"{home}/credentials")])
    sections = [section for section in (f"profile {name}", name) if files.has_section(section)]
    if not sections:
        raise KeyError(name)
    values = {key.upper(): value for section in sections for key, value in files.items(section)}
    named = {"AWS_REGION": values.pop("REGION", ""), "AWS_ENDPOINT_URL": values.pop("ENDPOINT_URL", "")}
    return {key: value for key, value in {**values, **named}.items() if value}


def post(operation: str, request: dict[str, object], settings: dict[str, str]) -> tuple[int, dict[str, str]]:
    """One call: its HTTP status and answer; `settings` has url, region, key, secret and token."""
    import http.client

    scheme, _, rest = settings["url"].partition("://")
    address = rest.partition("/")[0]
    body = json.dumps(request).encode()
    kind = http.client.HTTPSConnection if scheme == "https" else http.client.HTTPConnection
    connection = kind(address, timeout=60)
    try:
        connection.request("POST", "/", body=body, headers=_signed(operation, body, address, settings))
        response = connection.getresponse()
        return response.status, json.loads(response.read() or b"{}")
    except (OSError, ValueError, http.client.HTTPException):
        raise UnreachableError(settings["url"]) from None
    finally:
        connection.close()


def _signed(operation: str, body: bytes, host: str, settings: dict[str, str]) -> dict[str, str]:
    """The request's headers with its signature."""
    now = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    headers = {
        "content-type": "application/x-amz-json-1.1",
        "host": host,
        "x-amz-date": now,
        "x-amz-target": f"AmazonSSM.{operation}",
    }
    if settings["token"]:
        headers["x-amz-security-token"] = settings["token"]
    names = ";".join(sorted(headers))
    lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
    canonical = f"POST\n/\n\n{lines}\n{names}\n{hashlib.sha256(body).hexdigest()}"
    scope = f"{now[:8]}/{settings['region']}/ssm/aws4_request"
    text = f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = ("AWS4" + settings["secret"]).encode()
    for part in (*scope.split("/"), text):
        key = hmac.digest(key, part.encode(), "sha256")
    credential = f"Credential={settings['key']}/{scope}, SignedHeaders={names}, Signature={key.hex()}"
    return {**headers, "authorization": f"AWS4-HMAC-SHA256 {credential}"}
