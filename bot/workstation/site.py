"""The pages for laptops: ``/workstation/…``, in a lane of their own."""

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import TypeVar

from flask import Flask, Response, abort, request
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from access.errors import InvalidInputError, PassportError, SignInNeededError, UnavailableError
from access.service.challenges import StaleChallengeError
from access.service.choosing import NotYet
from access.service.connecting import CERTIFICATE, RDP, TUNNEL, Connecting, Proof, UnprovenError
from bot.workstation import answers
from bot.workstation.answers import Answer
from bot.workstation.limits import AddressLimit, Lane
from provisioning.framing import FramingError
from provisioning.ssh_keys import parse_public_key
from provisioning.ssh_signature import MOST_CHARACTERS

MOST_BYTES = 32_768  # of one request: two of the largest fields
FILES = (
    "install.sh",
    "install.ps1",
    "passport-connect.sh",
    "passport-connect.ps1",
    "ssh_config",
    "ssh_config_windows",
)
PLACEHOLDER = "@PUBLIC_URL@"
TOO_MUCH = "I do not read that much at once. Install the script anew: /passport setup"

_HOST = re.compile(r"[a-z0-9][a-z0-9._-]{0,199}")
_CHALLENGE = re.compile(r"[A-Za-z0-9._~=-]{1,1000}")
_ANYTHING = re.compile(rf"[\s\S]{{1,{MOST_CHARACTERS}}}")
_FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")

_log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Workstation:
    """What these pages need."""

    home: str  # public_url, as it stands in statements
    connecting: Connecting
    lane: Lane
    limit: AddressLimit
    count_stranger: Callable[[str], None]


def register(app: Flask, workstation: Workstation) -> None:
    """Add the pages to the site."""
    scripts = _scripts(workstation.home)

    @app.get("/workstation/<name>")
    def script(name: str) -> Response:
        if name not in scripts:
            abort(404)
        return _response((200, scripts[name]))

    acts: Mapping[str, Callable[[], Answer]] = {
        "challenge": partial(_challenge, workstation),
        "certificate": partial(_certificate, workstation),
        "tunnel": partial(_tunnel, workstation),
    }

    @app.post("/workstation/<name>")
    def act(name: str) -> Response:
        if name not in acts:
            abort(404)
        request.max_content_length = request.max_form_memory_size = MOST_BYTES
        return _response(_answer(workstation, acts[name]))


def _answer(workstation: Workstation, act: Callable[[], Answer]) -> Answer:
    """The act's answer; whatever is the matter is said in the form that the script reads."""
    try:
        workstation.limit.take(_address())
        with workstation.lane.entered():
            return act()
    except PassportError as error:
        if isinstance(error, UnprovenError):
            workstation.count_stranger(error.reason)
        return answers.failed(error)
    except RequestEntityTooLarge:
        return answers.failed(InvalidInputError(TOO_MUCH))
    except HTTPException:
        raise
    except Exception:  # noqa: BLE001 - the script needs an answer that it can read
        _log.exception("A workstation could not be answered")
        return answers.broken()


def _challenge(workstation: Workstation) -> Answer:
    fingerprint = _field("key", _FINGERPRINT)
    return answers.challenged(workstation.connecting.challenge(fingerprint))


def _certificate(workstation: Workstation) -> Answer:
    found = _known(workstation, workstation.connecting.certificate, _proof(CERTIFICATE))
    if isinstance(found, NotYet):
        return answers.waits(found)
    try:
        return answers.issued(found)
    except (ValueError, FramingError):  # what a server said of itself: it does not reach a laptop
        _log.exception("%s: no answer", found.choice.grant.id)
        return answers.broken()


def _tunnel(workstation: Workstation) -> Answer:
    act = _field("act", re.compile(f"{TUNNEL}|{RDP}"))
    found = _known(workstation, workstation.connecting.tunnel, _proof(act))
    return answers.waits(found) if isinstance(found, NotYet) else answers.opened(found, act)


def _known(workstation: Workstation, use: Callable[[Proof], T], proof: Proof) -> T:
    """What the use case answers; the calls of whoever proved who they are do not count against their address."""
    try:
        found = use(proof)
    except (UnprovenError, StaleChallengeError, SignInNeededError, UnavailableError):
        raise
    except PassportError:
        workstation.limit.give_back(proof.address, 1)
        raise
    workstation.limit.give_back(proof.address, 2)  # this call, and the one for the challenge
    return found


def _proof(act: str) -> Proof:
    """What the caller says; raises InvalidInputError."""
    challenge, host = _field("challenge", _CHALLENGE), _field("host", _HOST)
    key = parse_public_key(_field("key", _ANYTHING))
    return Proof(
        act=act,
        key=key.line,
        fingerprint=key.fingerprint,
        host=host,
        challenge=challenge,
        signature=_field("signature", _ANYTHING),
        address=_address(),
    )


def _field(name: str, pattern: re.Pattern[str]) -> str:
    """The one field of that name; raises InvalidInputError."""
    values = request.form.getlist(name)
    if len(values) != 1 or not pattern.fullmatch(values[0]):
        raise InvalidInputError(
            f"The field {name} is missing, or not as it should be. Install the script anew: /passport setup", field=name
        )
    return values[0]


def _address() -> str:
    """Where the call comes from, as ``bot.proxies`` has found it."""
    return request.remote_addr or ""


def folder() -> Traversable:
    """Where the scripts are."""
    return files("bot.workstation") / "files"


def _scripts(home: str) -> Mapping[str, str]:
    """The files as laptops get them. The settings let no character into ``home`` that a shell would act upon."""
    found = [(name, folder() / name) for name in FILES]
    return {name: file.read_text("utf-8").replace(PLACEHOLDER, home) for name, file in found if file.is_file()}


def _response(answer: Answer) -> Response:
    status, text = answer
    return Response(text, status=status, content_type="text/plain; charset=utf-8")
