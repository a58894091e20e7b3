"""The log: every line about a request says so, in both styles, and no secret gets into it."""

import io
import json
import logging
import threading
from collections.abc import Callable, Iterator

import pytest

from access.about import about, named_in, request_at_work
from bot import logs
from handlers.after_ack import AfterAck

SEALING_KEY = "c2VhbGluZy1rZXktdGhhdC1pcy0zMi1ieXRlcy1sb25nIQ=="
SECRETS = ("correct-horse-battery", SEALING_KEY, 'with "quotes" inside', "short")
Start = Callable[..., io.StringIO]


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Sends the log to a text, and puts everything back afterwards."""
    root = logging.getLogger()
    names = ["", *logs.OURS]
    levels, handlers = {name: logging.getLogger(name).level for name in names}, root.handlers[:]

    def begin(style: str = "json", level: str = "INFO") -> io.StringIO:
        written = io.StringIO()
        monkeypatch.setattr("sys.stderr", written)
        logs.configure(level=level, style=style, secrets=SECRETS)
        return written

    yield begin
    root.handlers[:] = handlers
    for name in names:
        logging.getLogger(name).setLevel(levels[name])


def lines(written: io.StringIO) -> list[dict[str, str]]:
    return [json.loads(line) for line in written.getvalue().splitlines()]


def test_a_line_of_json_holds_who_said_what_and_when(start: Start) -> None:
    written = start()
    logging.getLogger("bot.serve").info("Passport listens on %s", "127.0.0.1:8080")
    (line,) = lines(written)
    assert line["message"] == "Passport listens on 127.0.0.1:8080"
    assert (line["level"], line["logger"], line["thread"]) == ("INFO", "bot.serve", threading.current_thread().name)
    assert line["time"].endswith("+00:00")
    assert "request_id" not in line


def test_what_is_said_while_at_work_on_a_request_carries_its_id(start: Start) -> None:
    written = start()
    log = logging.getLogger("provisioning.accounts")
    with about("AR-7F3K"):
        log.warning("the agent is silent")
        with about("no request at all"):
            log.warning("by the way")
    log.warning("nothing special")
    log.warning("AR-9XYZ: what Slack shall show of it is broken")
    assert [line.get("request_id") for line in lines(written)] == ["AR-7F3K", None, None, "AR-9XYZ"]


def test_the_id_goes_along_into_the_pool_after_the_ack(start: Start) -> None:
    written = start()
    after_ack = AfterAck(workers=1)
    with about("approve AR-7F3K"), after_ack.reserve() as place:
        place.run(lambda: logging.getLogger("handlers").warning("late"))
    after_ack.close()
    assert lines(written)[0]["request_id"] == "AR-7F3K"
    assert request_at_work() == ""


def test_people_read_the_id_once(start: Start) -> None:
    written = start(style="console")
    with about("AR-7F3K"):
        logging.getLogger("access").warning("the agent is silent")
        logging.getLogger("access").warning("removal of AR-7F3K is late")
    first, second = written.getvalue().splitlines()
    assert first.endswith(" WARNING access: AR-7F3K: the agent is silent")
    assert second.endswith(" WARNING access: removal of AR-7F3K is late")


@pytest.mark.parametrize("style", ["json", "console"])
def test_no_secret_is_written_not_even_from_an_exception(start: Start, style: str) -> None:
    written = start(style=style)
    log = logging.getLogger("bot")
    log.warning("the sealing key %s does not open it", SEALING_KEY)
    log.warning("Authorization: Bearer xoxb-123456789012-abcdefghij and xapp-1-A0PASSPORT-99-ff00")
    trouble = ValueError(f"cannot connect as passport:{SECRETS[0]}@db, {SECRETS[2]}")
    log.error("A turn failed", exc_info=trouble)
    text = written.getvalue()
    assert text.count(logs.HIDDEN) == 5
    for secret in ("correct-horse", SEALING_KEY, "quotes", "xoxb-1", "xapp-1"):
        assert secret not in text
    assert "A turn failed" in text
    assert "ValueError: cannot connect as passport:" in text


def test_libraries_speak_from_warning_on_even_when_passport_debugs(start: Start) -> None:
    written = start(level="DEBUG")
    for name in ("slack_sdk.web", "botocore.endpoint", "sqlalchemy.engine", "some.library", "handlers.gate"):
        logging.getLogger(name).debug("%s debugs", name)
        logging.getLogger(name).warning("%s warns", name)
    said = [line["message"] for line in lines(written)]
    assert [message for message in said if message.endswith("debugs")] == ["handlers.gate debugs"]
    assert len(said) == 6


def test_errors_only_means_errors_only(start: Start) -> None:
    written = start(level="ERROR")
    for name in ("some.library", "handlers.gate"):
        logging.getLogger(name).warning("a warning")
        logging.getLogger(name).error("an error")
    assert [line["message"] for line in lines(written)] == ["an error"] * 2


def test_a_message_over_two_lines_stays_one_line_of_json(start: Start) -> None:
    written = start()
    logging.getLogger("bot").warning("first\nsecond \u2028 third")
    assert lines(written)[0]["message"] == "first\nsecond \u2028 third"


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("AR-7F3K", "AR-7F3K"),
        ("AR-7F3K:shorter", "AR-7F3K"),
        ('{"id": "AR-T001"}', "AR-T001"),
        ("BAR-7F3K", ""),
        ("", ""),
    ],
)
def test_a_request_is_found_in_the_words_of_a_click(words: str, found: str) -> None:
    assert named_in(words) == found
