"""A stand-in for AWS's command line that knows one thing: `aws ssm start-session`."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from typing import NoReturn

from sandbox.data_channel.versions import is_after
from sandbox.laptop.calls import UnreachableError, credentials, post

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
PLUGIN = "session-manager-plugin"
RESPONSE_NAME = "AWS_SSM_START_SESSION_RESPONSE"
LAST_WITHOUT_ENVIRONMENT = "1.2.497.0"
NO_PLUGIN = (
    "\nSessionManagerPlugin is not found. Please refer to SessionManager Documentation here: "
    "http://docs.aws.amazon.com/console/systems-manager/session-manager-plugin-not-found"
)


def main(words: list[str]) -> int:
    """Start the session and let the plugin carry it."""
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
    return hand_over(session, request, settings)


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
    try:
        found = credentials(options.get("--profile", ""))
    except KeyError as error:
        leave(255, f"The config profile ({error.args[0]}) could not be found")
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
        "profile": options.get("--profile", ""),
        "region": region,
        "key": found["AWS_ACCESS_KEY_ID"],
        "secret": found["AWS_SECRET_ACCESS_KEY"],
        "token": found.get("AWS_SESSION_TOKEN", ""),
    }


def call(operation: str, request: dict[str, object], settings: dict[str, str]) -> dict[str, str]:
    """Call Systems Manager, patiently when it throttles."""
    attempt = 0
    while True:
        try:
            status, answer = post(operation, request, settings)
        except UnreachableError:
            leave(255, f'\nCould not connect to the endpoint URL: "{settings["url"]}/"')
        if status == 200:
            return answer
        code = answer.get("__type", "Unknown").rpartition("#")[2]
        attempt += 1
        if (code != "ThrottlingException" and status < 500) or attempt == TRIES:
            message = answer.get("message") or answer.get("Message", "")
            leave(254, f"\nAn error occurred ({code}) when calling the {operation} operation: {message}")
        time.sleep(random.random() * 2**attempt)


def hand_over(session: dict[str, str], request: dict[str, object], settings: dict[str, str]) -> int:
    """Let the plugin carry the session, as StartSessionCaller does in awscli/customizations/sessionmanager.py."""
    response = {name: session[name] for name in ("SessionId", "TokenValue", "StreamUrl")}
    try:
        version = subprocess.run([PLUGIN, "--version"], check=True, capture_output=True, text=True).stdout.strip()
        environment, first = dict(os.environ), json.dumps(response)
        if is_after(version, LAST_WITHOUT_ENVIRONMENT):
            environment[RESPONSE_NAME], first = first, RESPONSE_NAME
        words = [settings["region"], "StartSession", settings["profile"], json.dumps(request), settings["url"]]
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP):  # they are the plugin's to answer
            signal.signal(number, signal.SIG_IGN)
        status = subprocess.run([PLUGIN, first, *words], env=environment, check=False).returncode
    except FileNotFoundError:
        call("TerminateSession", {"SessionId": session["SessionId"]}, settings)
        leave(255, NO_PLUGIN)
    if status != 0:
        leave(255, f"Command {[PLUGIN, first, *words]} returned non-zero exit status {status}.")
    return 0


def leave(code: int, message: str) -> NoReturn:
    """Say why on standard error and exit as AWS's own does."""
    sys.stderr.write(message + "\n")
    sys.exit(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
