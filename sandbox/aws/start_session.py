"""A stand-in for AWS's command line that knows one thing: `aws ssm start-session` for ssh's ProxyCommand.

Written out as an executable by AwsDouble.install_cli. Standard library only: it starts once for every ssh.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import os
import random
import socket
import sys
import threading
import time
from typing import NoReturn
from urllib.parse import urlsplit

USAGE = """
usage: aws [options] <command> <subcommand> [<subcommand> ...] [parameters]
To see help text, you can run:

  aws help
  aws <command> help
  aws <command> <subcommand> help

aws: error: """
NO_CREDENTIALS = 'Unable to locate credentials. You can configure credentials by running "aws login".'
NO_REGION = 'You must specify a region. You can also configure your region by running "aws configure".'
OPTIONS = ("--target", "--document-name", "--parameters", "--reason", "--region", "--profile", "--endpoint-url")
TRIES = 5


def main(words: list[str]) -> int:
    """Start the session and carry ssh's bytes until either side has ended."""
    if words[:2] != ["ssm", "start-session"]:
        leave(252, USAGE + f"argument command: Found invalid choice {words[0]!r}" if words else USAGE)
    options = read_options(words[2:])
    settings = read_settings(options)
    request: dict[str, object] = {"Target": options["--target"]}
    for option, member in (("--document-name", "DocumentName"), ("--reason", "Reason")):
        if option in options:
            request[member] = options[option]
    if "--parameters" in options:
        request["Parameters"] = read_parameters(options["--parameters"])
    session = call("StartSession", request, settings)
    return carry(session)


def read_options(words: list[str]) -> dict[str, str]:
    """The options, given as two words or with =."""
    options: dict[str, str] = {}
    while words:
        word = words.pop(0)
        name, equals, value = word.partition("=")
        if name not in OPTIONS:
            leave(252, USAGE + f"Unknown options: {word}")
        if not equals:
            if not words:
                leave(252, USAGE + f"argument {name}: expected one argument")
            value = words.pop(0)
        options[name] = value
    if "--target" not in options:
        leave(252, USAGE + "the following arguments are required: --target")
    return options


def read_parameters(text: str) -> dict[str, list[str]]:
    """The shorthand `name=value,name=value`, or JSON."""
    if text.startswith("{"):
        try:
            found: dict[str, list[str]] = json.loads(text)
        except ValueError:
            leave(252, f"Error parsing parameter '--parameters': Invalid JSON: {text}")
        return found
    pairs = [part.partition("=") for part in text.split(",")]
    if not all(name and equals for name, equals, _ in pairs):
        leave(252, f"Error parsing parameter '--parameters': Expected: '=', received: 'EOF' for input:\n{text}")
    return {name: [value] for name, _, value in pairs}


def read_settings(options: dict[str, str]) -> dict[str, str]:
    """Address, region and keys: from the options, a profile or the environment."""
    found = dict(os.environ)
    if "--profile" in options or "AWS_PROFILE" in found:
        found |= read_profile(options.get("--profile") or found["AWS_PROFILE"])
    region = options.get("--region") or found.get("AWS_REGION") or found.get("AWS_DEFAULT_REGION")
    url = options.get("--endpoint-url") or found.get("AWS_ENDPOINT_URL_SSM") or found.get("AWS_ENDPOINT_URL")
    if not region:
        leave(253, NO_REGION)
    if not found.get("AWS_ACCESS_KEY_ID") or not found.get("AWS_SECRET_ACCESS_KEY"):
        leave(253, NO_CREDENTIALS)
    if not url:
        leave(255, "the sandbox's aws calls no real AWS: AWS_ENDPOINT_URL is missing")
    return {
        "url": url,
        "region": region,
        "key": found["AWS_ACCESS_KEY_ID"],
        "secret": found["AWS_SECRET_ACCESS_KEY"],
        "token": found.get("AWS_SESSION_TOKEN", ""),
    }


def read_profile(name: str) -> dict[str, str]:
    """A profile's keys and region, from the shared files."""
    import configparser

    files = configparser.RawConfigParser()
    home = os.path.expanduser("~/.aws")  # noqa: PTH111 - pathlib takes longer to start than the rest
    files.read([os.environ.get("AWS_CONFIG_FILE", f"{home}/config")])
    files.read([os.environ.get("AWS_SHARED_CREDENTIALS_FILE", f"{home}/credentials")])
    sections = [section for section in (f"profile {name}", name) if files.has_section(section)]
    if not sections:
        leave(255, f"The config profile ({name}) could not be found")
    values = {key.upper(): value for section in sections for key, value in files.items(section)}
    named = {"AWS_REGION": values.pop("REGION", ""), "AWS_ENDPOINT_URL": values.pop("ENDPOINT_URL", "")}
    return {key: value for key, value in {**values, **named}.items() if value}


def call(operation: str, request: dict[str, object], settings: dict[str, str]) -> dict[str, str]:
    """Call Systems Manager, patiently when it throttles."""
    attempt = 0
    while True:
        status, answer = post(operation, json.dumps(request).encode(), settings)
        if status == 200:
            return answer
        code = answer.get("__type", "Unknown").rpartition("#")[2]
        attempt += 1
        if (code != "ThrottlingException" and status < 500) or attempt == TRIES:
            message = answer.get("message") or answer.get("Message", "")
            leave(254, f"\nAn error occurred ({code}) when calling the {operation} operation: {message}")
        time.sleep(random.random() * 2**attempt)


def post(operation: str, body: bytes, settings: dict[str, str]) -> tuple[int, dict[str, str]]:
    """One signed request."""
    url = urlsplit(settings["url"])
    headers = signed(operation, body, url.netloc, settings)
    kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
    connection = kind(url.netloc, timeout=60)
    try:
        connection.request("POST", "/", body=body, headers=headers)
        response = connection.getresponse()
        return response.status, json.loads(response.read() or b"{}")
    except (OSError, ValueError, http.client.HTTPException):
        leave(255, f'\nCould not connect to the endpoint URL: "{settings["url"]}/"')
    finally:
        connection.close()


def signed(operation: str, body: bytes, host: str, settings: dict[str, str]) -> dict[str, str]:
    """The request's headers with its Signature Version 4."""
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


def carry(session: dict[str, str]) -> int:
    """Join standard input and output with the session's stream."""
    url = urlsplit(session["StreamUrl"])
    stream = socket.create_connection((url.hostname or "", url.port or 0))
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    stream.sendall(f"{session['SessionId']} {session['TokenValue']}\n".encode())
    threading.Thread(target=send_input, args=(stream,), daemon=True).start()
    try:
        while piece := stream.recv(1 << 16):
            while piece:
                piece = piece[os.write(1, piece) :]
    except OSError:
        pass
    sys.stdout.flush()
    os._exit(0)  # the thread may sit in a read of standard input


def send_input(stream: socket.socket) -> None:
    """Send what ssh says, until it says no more."""
    try:
        while piece := os.read(0, 1 << 16):
            stream.sendall(piece)
        stream.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def leave(code: int, message: str) -> NoReturn:
    """Say why on standard error and exit as AWS's own does."""
    sys.stderr.write(message + "\n")
    sys.exit(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
