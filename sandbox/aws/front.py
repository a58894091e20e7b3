"""The one address of the sandbox's AWS: Systems Manager is answered here, everything else goes on to moto."""

from __future__ import annotations

import http.client
import json
import socket
import sys
import threading
import traceback
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl

from sandbox.aws import kms
from sandbox.aws.callers import Caller, Scope, caller_of, scope_of
from sandbox.aws.errors import AnswerLostError, AwsError
from sandbox.aws.faults import Faults
from sandbox.aws.gate import Gate
from sandbox.aws.roles import Roles
from sandbox.aws.systems_manager import SystemsManager

TARGET = "AmazonSSM."
EXPIRED = "ExpiredTokenException"
DENIED = "AccessDeniedException"
THROTTLED = "ThrottlingException"
FAILED = "InternalServerError"
# How the services that answer in XML call these.
IN_XML = {
    ("ec2", EXPIRED): (400, "RequestExpired"),
    ("sts", EXPIRED): (403, "ExpiredToken"),
    ("ec2", DENIED): (403, "UnauthorizedOperation"),
    ("sts", DENIED): (403, "AccessDenied"),
    ("ec2", THROTTLED): (503, "RequestLimitExceeded"),
    ("sts", THROTTLED): (400, "Throttling"),
    ("ec2", FAILED): (500, "InternalError"),
    ("sts", FAILED): (500, "InternalFailure"),
}
NOT_PASSED_ON = {"connection", "transfer-encoding", "content-length", "keep-alive", "server", "date"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """One call that the sandbox's AWS got; of moto's services only who called what service."""

    operation: str
    account: str
    region: str
    request: dict[str, Any] = field(repr=False)
    source_identity: str = ""  # whom the caller's session names


class Front:
    """An HTTP server on loopback; start() it, and stop() it."""

    def __init__(self, *, ssm: SystemsManager, gate: Gate, faults: Faults, roles: Roles, moto: tuple[str, int]) -> None:
        self.calls: list[Call] = []
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.desk = _Desk(ssm=ssm, gate=gate, faults=faults, roles=roles, moto=moto, calls=self.calls)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def start(self) -> None:
        """Listen."""
        self._thread.start()

    def stop(self) -> None:
        """Listen no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@dataclass(frozen=True, kw_only=True, slots=True)
class _Desk:
    """What every connection needs."""

    ssm: SystemsManager
    gate: Gate
    faults: Faults
    roles: Roles
    moto: tuple[str, int]
    calls: list[Call]

    def systems_manager(self, operation: str, authorization: str, body: bytes) -> dict[str, Any]:
        """Answer a call of Systems Manager; raise AwsError or AnswerLostError."""
        scope = scope_of(authorization)
        caller = self._caller(scope)
        if scope is not None and scope.service != "ssm":
            raise AwsError("InvalidSignatureException", "Credential should be scoped to correct service: 'ssm'.")
        request = _parsed(body)
        self.calls.append(self._call(operation, caller, scope, request))
        self.faults.before(operation, caller.account, caller.region)
        self.gate.check(f"ssm:{operation}", caller, request)
        answer = self.ssm.answer(operation, caller, request)
        if self.faults.loses_answer(operation):
            raise AnswerLostError
        return answer

    def kms(self, operation: str, authorization: str, body: bytes) -> None:
        """See whether moto may answer a call of KMS; raise AwsError."""
        scope = scope_of(authorization)
        caller = self._caller(scope)
        request = _parsed(body)
        self.calls.append(self._call(operation, caller, scope, request))
        self.faults.before(operation, caller.account, caller.region)
        self.gate.check(f"kms:{operation}", caller, request)
        kms.refuse(operation, caller, request)

    def note(self, operation: str, authorization: str, body: bytes) -> None:
        """Write down a call of moto's; raises AwsError where it fails, or comes from credentials that may not do it."""
        scope = scope_of(authorization)
        try:
            caller = self._caller(scope)
        except AwsError as error:
            if error.code == EXPIRED:
                raise
            return  # moto says so itself
        self.calls.append(self._call(operation, caller, scope, {}))
        self.faults.before(operation, caller.account, caller.region)
        assert scope is not None  # or there were no caller
        self.gate.check(f"{scope.service}:{operation}", caller, _request(body))

    def _call(self, operation: str, caller: Caller, scope: Scope | None, request: dict[str, Any]) -> Call:
        named = self.roles.named_by(scope.access_key) if scope else ""
        return Call(
            operation=operation, account=caller.account, region=caller.region, request=request, source_identity=named
        )

    def _caller(self, scope: Scope | None) -> Caller:
        caller = caller_of(scope)
        if scope is not None and self.faults.has_expired(scope.access_key, caller.account):
            raise AwsError(EXPIRED, "The security token included in the request is expired")
        return caller


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    desk: _Desk

    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002 - socketserver's
        """A client that hangs up is its own business; anything else is a mistake of the sandbox."""
        if not isinstance(sys.exception(), OSError):
            traceback.print_exc()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def setup(self) -> None:
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().setup()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        authorization, target = self.headers.get("Authorization", ""), self.headers.get("X-Amz-Target", "")
        try:
            if target.startswith(TARGET):
                self._systems_manager(target.removeprefix(TARGET), authorization, body)
            elif target.startswith(kms.TARGET):
                self._kms(target.removeprefix(kms.TARGET), authorization, body)
            else:
                self._moto(_operation(target, body), authorization, body)
        except AnswerLostError:
            self.close_connection = True

    do_GET = do_PUT = do_DELETE = do_HEAD = do_POST  # noqa: N815 - http.server's names

    def _systems_manager(self, operation: str, authorization: str, body: bytes) -> None:
        try:
            self._say(200, self.server.desk.systems_manager(operation, authorization, body))
        except AwsError as error:
            self._say(error.status, {"__type": error.code, "message": error.message, "Message": error.message})

    def _kms(self, operation: str, authorization: str, body: bytes) -> None:
        try:
            self.server.desk.kms(operation, authorization, body)
        except AwsError as error:
            self._say(error.status, {"__type": error.code, "message": error.message})
        else:
            self._pass_on(operation, body, "", lambda answer: kms.mend(operation, answer))

    def _moto(self, operation: str, authorization: str, body: bytes) -> None:
        try:
            self.server.desk.note(operation, authorization, body)
            identity = self.server.desk.roles.check(operation, body)
        except AwsError as error:
            scope = scope_of(authorization)
            service = scope.service if scope else "sts"
            if service not in {"ec2", "sts"}:
                self._say(error.status, {"__type": error.code, "message": error.message})
                return
            status, code = IN_XML.get((service, error.code), (error.status, error.code))
            inner = f"<Error><Code>{code}</Code><Message>{error.message}</Message></Error>"
            ec2 = f"<Response><Errors>{inner}</Errors><RequestID>{uuid.uuid4()}</RequestID></Response>"
            sts = f"<ErrorResponse>{inner}<RequestId>{uuid.uuid4()}</RequestId></ErrorResponse>"
            self._write(status, "text/xml", (ec2 if service == "ec2" else sts).encode())
        else:
            self._pass_on(operation, body, identity)

    def _say(self, status: int, answer: dict[str, Any]) -> None:
        self._write(status, "application/x-amz-json-1.1", json.dumps(answer).encode())

    def _write(self, status: int, kind: str, text: bytes) -> None:
        self.send_response_only(status)
        self.send_header("Content-Type", kind)
        self.send_header("x-amzn-RequestId", str(uuid.uuid4()))
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def _pass_on(
        self, operation: str, body: bytes, identity: str, mend: Callable[[bytes], bytes] = lambda answer: answer
    ) -> None:
        onward = http.client.HTTPConnection(*self.server.desk.moto, timeout=60)
        try:
            onward.request(self.command, self.path, body=body, headers=dict(self.headers.items()))
            answer = onward.getresponse()
            text = mend(answer.read())
        finally:
            onward.close()
        if identity:  # before the client has its key
            self.server.desk.roles.remember(identity, text)
        if self.server.desk.faults.loses_answer(operation):
            raise AnswerLostError
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in NOT_PASSED_ON:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        """Say nothing on stderr."""


def _operation(target: str, body: bytes) -> str:
    found = [part[7:] for part in body.decode(errors="replace").split("&") if part.startswith("Action=")]
    return found[0] if found else target.rpartition(".")[2]


def _request(body: bytes) -> dict[str, Any]:
    """What moto's services are asked: JSON, or a form."""
    if body.lstrip().startswith(b"{"):
        return _parsed(body)
    return dict(parse_qsl(body.decode(errors="replace"), keep_blank_values=True))


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        request = json.loads(body or b"{}")
    except ValueError:
        raise AwsError("SerializationException", "the body is not JSON") from None
    if not isinstance(request, dict):
        raise AwsError("SerializationException", "the body is not an object")
    return request
