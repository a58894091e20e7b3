"""A stand-in for Passport's workstation endpoint: strict about what it is sent, and saying whatever a test wants."""

import http.server
import secrets
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import parse_qsl

FILES = Path(__file__).parents[3] / "bot" / "workstation" / "files"
FIELDS = {
    "challenge": {"key"},
    "certificate": {"key", "host", "challenge", "signature"},
    "tunnel": {"key", "host", "act", "challenge", "signature"},
}


@dataclass(frozen=True, kw_only=True)
class Call:
    """A request that was well-formed and, where it must be, really signed."""

    path: str
    form: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What to say to one call."""

    body: str | bytes
    code: int = 200
    after: float = 0
    uses_up: bool = False


def said(status: str, *fields: tuple[str, str], code: int = 200) -> Answer:
    """An answer of the protocol."""
    lines = [f"status={status}", *(f"{name}={value}" for name, value in fields)]
    return Answer(body="\n".join([*lines, ""]), code=code, uses_up=status == "ready")


@dataclass
class Rules:
    """What a test wants: ``answer`` is asked for every proven call; ``challenge`` overrides that answer."""

    answer: Callable[[Call], Answer]
    challenge: Answer | None = None


class StandIn:
    """Serves the files and the protocol on loopback; what was wrong with a call is in ``problems``."""

    def __init__(self, folder: Path, answer: Callable[[Call], Answer], registered: Sequence[str]) -> None:
        self.calls: list[Call] = []
        self.problems: list[str] = []
        self.rules = Rules(answer=answer)
        self.registered = list(registered)
        self._folder = folder
        self._challenges: dict[str, tuple[str, float]] = {}
        self._lock = threading.Lock()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            disable_nagle_algorithm = True
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer._serve_file(self)

            def do_POST(self) -> None:
                outer._serve_post(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answers(self, *answers: Answer) -> None:
        """Say these in turn, the last for ever after."""
        left = list(answers)

        def next_answer(_call: Call) -> Answer:
            return left.pop(0) if len(left) > 1 else left[0]

        self.rules.answer = next_answer

    def proven(self, path: str) -> list[Call]:
        """The signed calls of one path."""
        return [call for call in self.calls if call.path == path]

    def _serve_file(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        name = handler.path.removeprefix("/workstation/")
        if name not in {path.name for path in FILES.iterdir()}:
            _send(handler, Answer(body="no such file", code=404))
            return
        _send(handler, Answer(body=(FILES / name).read_text().replace("@PUBLIC_URL@", self.url)))

    def _serve_post(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        path = handler.path.removeprefix("/workstation/")
        text = handler.rfile.read(int(handler.headers["Content-Length"])).decode()
        pairs = parse_qsl(text, strict_parsing=True, keep_blank_values=True)
        form = dict(pairs)
        problem = ""
        if handler.headers["Content-Type"] != "application/x-www-form-urlencoded":
            problem = "not a form"
        elif path not in FIELDS or set(form) != FIELDS[path] or len(form) != len(pairs):
            problem = f"{path} with the fields {sorted(form)}"
        elif path != "challenge":
            problem = self._unproven(path, form)
        if problem:
            self.problems.append(problem)
            _send(handler, said("refused", ("message", f"Malformed: {problem}."), code=400))
            return
        call = Call(path=path, form=form)
        self.calls.append(call)
        answer = self._challenge(form["key"]) if path == "challenge" else self.rules.answer(call)
        if answer.uses_up:
            with self._lock:
                self._challenges.pop(form.get("challenge", ""), None)
        _send(handler, answer)

    def _challenge(self, fingerprint: str) -> Answer:
        if self.rules.challenge:
            return self.rules.challenge
        challenge = secrets.token_urlsafe(60)
        with self._lock:
            self._challenges[challenge] = (fingerprint, time.monotonic())
        return said("ok", ("challenge", challenge))

    def _unproven(self, path: str, form: dict[str, str]) -> str:
        with self._lock:
            fingerprint, _ = self._challenges.get(form["challenge"], ("", 0.0))
        if not fingerprint:
            return "an unknown challenge"
        acts = {"certificate": {"certificate"}, "tunnel": {"tunnel", "rdp"}}
        if form.get("act", "certificate") not in acts[path]:
            return f"the act {form['act']} at {path}"
        if form["key"] not in self.registered:
            return "an unknown key"
        if fingerprint not in _keygen(["-l", "-f", "/dev/stdin"], form["key"]).stdout:
            return "a challenge of another key"
        return self._verify(form)

    def _verify(self, form: dict[str, str]) -> str:
        name = secrets.token_hex(8)
        signers, signature = self._folder / f"{name}.signers", self._folder / f"{name}.sig"
        signers.write_text(f'person namespaces="workstation@passport" {form["key"]}\n')
        signature.write_text(form["signature"])
        lines = ("passport-workstation-1", self.url, form.get("act", "certificate"), form["host"], form["challenge"])
        words = ["-Y", "verify", "-f", str(signers), "-I", "person", "-n", "workstation@passport", "-s", str(signature)]
        done = _keygen(words, "".join(f"{line}\n" for line in lines))
        return "" if done.returncode == 0 else f"a wrong signature: {done.stdout}{done.stderr}"


def _keygen(words: list[str], text: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["ssh-keygen", *words], input=text, capture_output=True, text=True, check=False)


def _send(handler: http.server.BaseHTTPRequestHandler, answer: Answer) -> None:
    time.sleep(answer.after)
    body = answer.body if isinstance(answer.body, bytes) else answer.body.encode()
    handler.send_response(answer.code)
    handler.send_header("Content-Type", "text/plain; charset=utf-8")
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)
