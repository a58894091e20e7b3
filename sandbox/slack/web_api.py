"""The Web API: tokens, scopes, arguments, faults and limits around every method."""

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from sandbox.slack.faults import Faults, RateLimitedError, RateLimits
from sandbox.slack.views import Views
from sandbox.slack.wire import Json, SlackError
from sandbox.slack.workspace import Workspace

_JSON_FIELDS = frozenset({"blocks", "view", "metadata"})  # JSON text when the body is a form


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """One call of the Web API, as it was taken and answered; the token is not kept."""

    method: str
    arguments: Json = field(repr=False)
    answer: Json = field(repr=False)

    @property
    def ok(self) -> bool:
        """Whether Slack said ok."""
        return bool(self.answer.get("ok"))

    @property
    def error(self) -> str | None:
        """Slack's error code, if any."""
        return self.answer.get("error")


@dataclass(frozen=True, kw_only=True, slots=True)
class Tokens:
    """The app's tokens and the scopes they carry."""

    bot: str = field(repr=False)
    app: str = field(repr=False)
    scopes: frozenset[str]

    def require(self, *scopes: str) -> None:
        """Raise SlackError `missing_scope` unless the bot token has one of these."""
        if scopes and not self.scopes.intersection(scopes):
            provided = ",".join(sorted(self.scopes))
            raise SlackError("missing_scope", needed=",".join(scopes), provided=provided)


@dataclass(frozen=True, kw_only=True, slots=True)
class Office:
    """What the methods work on."""

    workspace: Workspace
    views: Views
    tokens: Tokens
    make_socket_url: Callable[[], str]


Run = Callable[[Office, Json], Json]


@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    """A method of the Web API: what it needs and what it does."""

    run: Run
    scope: str | None = None
    required: frozenset[str] = frozenset()
    optional: frozenset[str] = frozenset()
    app_token: bool = False


def method(
    run: Run, *, scope: str | None = None, required: str = "", optional: str = "", app_token: bool = False
) -> Method:
    """A method, its arguments given as words."""
    return Method(
        run=run,
        scope=scope,
        required=frozenset(required.split()),
        optional=frozenset(optional.split()),
        app_token=app_token,
    )


class WebApi:
    """Answers calls; every call is kept in `calls`."""

    def __init__(
        self, office: Office, methods: Mapping[str, Method], faults: Faults, limits: RateLimits | None
    ) -> None:
        self._office = office
        self._methods = methods
        self._faults = faults
        self._limits = limits
        self._lock = threading.Lock()
        self._calls: list[Call] = []

    @property
    def calls(self) -> list[Call]:
        """Every call so far."""
        with self._lock:
            return list(self._calls)

    def answer(self, name: str, content_type: str, body: bytes, bearer: str | None) -> Json:
        """Answer one call; raises RateLimitedError or BrokenAnswerError where Slack's answer is no JSON."""
        arguments: Json = {}
        answer: Json = {"ok": False, "error": "no_answer"}  # kept when the answer never comes
        try:
            arguments = _arguments(content_type, body)
            given = arguments.pop("token", None)
            self._faults.before(name)
            if self._limits is not None:
                self._limits.check(name, str(arguments.get("channel", "")))
            answer = {"ok": True, **self._run(name, arguments, bearer or given)}
        except SlackError as error:
            answer = error.answer()
        except RateLimitedError:
            answer = {"ok": False, "error": "ratelimited"}
            raise
        finally:
            self._keep(Call(method=name, arguments=arguments, answer=answer))
        self._faults.after(name)
        return answer

    def take_response(self, use: Callable[[], tuple[int, Json]], body: bytes) -> tuple[int, Json]:
        """Take a post to a response_url, with the same faults as a call named `response_url`."""
        status = 500
        answer: Json = {"ok": False, "error": "no_answer"}
        try:
            self._faults.before("response_url")
            status, answer = use()
        except SlackError as error:
            status, answer = 400, error.answer()
        finally:
            self._keep(Call(method="response_url", arguments=_readable(body), answer=answer))
        self._faults.after("response_url")
        return status, answer

    def _run(self, name: str, arguments: Json, token: str | None) -> Json:
        found = self._methods.get(name)
        if found is None:
            raise SlackError("unknown_method", req_method=name)
        self._check_token(found, token)
        _check_arguments(found, arguments)
        return found.run(self._office, arguments)

    def _check_token(self, found: Method, token: str | None) -> None:
        tokens = self._office.tokens
        if not token:
            raise SlackError("not_authed")
        if token not in (tokens.bot, tokens.app):
            raise SlackError("invalid_auth")
        if (token == tokens.app) != found.app_token:
            raise SlackError("not_allowed_token_type")
        if found.scope:
            tokens.require(found.scope)

    def _keep(self, call: Call) -> None:
        with self._lock:
            self._calls.append(call)
        with self._office.workspace.changed:
            self._office.workspace.changed.notify_all()


def _readable(body: bytes) -> Json:
    try:
        found = json.loads(body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _arguments(content_type: str, body: bytes) -> Json:
    kind = content_type.partition(";")[0].strip()
    if kind == "application/json":
        return _json_arguments(body)
    if kind not in ("application/x-www-form-urlencoded", ""):
        raise SlackError("invalid_post_type")
    arguments: Json = dict(parse_qsl(body.decode(), keep_blank_values=True))
    for name in _JSON_FIELDS & arguments.keys():
        arguments[name] = _parsed(name, arguments[name])
    return arguments


def _json_arguments(body: bytes) -> Json:
    try:
        arguments = json.loads(body or b"{}")
    except ValueError:
        raise SlackError("invalid_json") from None
    if not isinstance(arguments, dict):
        raise SlackError("json_not_object")
    arguments.pop("token", None)  # Slack reads no token from a JSON body
    for name in _JSON_FIELDS & arguments.keys():
        if isinstance(arguments[name], str):
            arguments[name] = _parsed(name, arguments[name])
    return arguments


def _parsed(name: str, text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        raise SlackError(f"invalid_{name}_format" if name == "blocks" else "invalid_arguments") from None


def _check_arguments(found: Method, arguments: Json) -> None:
    known = found.required | found.optional | {"team_id"}  # Bolt's client sends the team with every call
    missing = sorted(name for name in found.required if arguments.get(name) in (None, ""))
    unknown = sorted(arguments.keys() - known)
    messages = [f"[ERROR] missing required field: {name}" for name in missing]
    messages += [f"[ERROR] invalid additional property: {name}" for name in unknown]
    if messages:
        raise SlackError("invalid_arguments", *messages)
