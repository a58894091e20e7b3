"""The written grammar: what is understood, and which word an error points at."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from access.errors import InvalidInputError
from access.model import RouteName
from handlers.grammar import MAX_TEXT, parse
from handlers.operands import parse_address, parse_request_id
from handlers.typed import typed
from handlers.understood import About, AddKey, Exempt, Parsed, Plain, RemoveKey, Revoke, Unexempt
from sandbox.slack.mrkdwn import escape, escape_command

FULL = Parsed(
    servers=("web-1", "db-2"),
    duration=timedelta(hours=2),
    source_ip="203.0.113.7",
    route=RouteName.SESSION_MANAGER,
    reason="INC-123: disk full",
)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("request web-1 db-2 for 2h from 203.0.113.7 via session_manager because INC-123: disk full", FULL),
        ("REQUEST web-1, db-2 VIA Session-Manager FROM 203.0.113.7 FOR 2 hours BECAUSE INC-123: disk full", FULL),
        ("request for 1 h 60 min web-1 from 203.0.113.7 and db-2 because INC-123: disk full", FULL),
        ("  request\n web-1,db-2 for 120m, from 203.0.113.7, because   INC-123: disk full \n", FULL),
        ("request", Parsed()),
        ("request web-1 because", Parsed(servers=("web-1",))),
        ("request because it is down", Parsed(reason="it is down")),
        ("request tag:role=web web-1 web-1 because x", Parsed(servers=("tag:role=web", "web-1"), reason="x")),
        ('request "my server" because x', Parsed(servers=("my server",), reason="x")),
        ("request “my server”, ‘the other’ because x", Parsed(servers=("my server", "the other"), reason="x")),
        (
            r'request "say \"hi\" \\ there" because x',
            Parsed(servers=(r"say \"hi\" \\ there".replace('\\"', '"').replace("\\\\", "\\"),), reason="x"),
        ),
        ('request "because" "for" "2h" because x', Parsed(servers=("because", "for", "2h"), reason="x")),
        ("request a because don't “stop” because y", Parsed(servers=("a",), reason="don't “stop” because y")),
        ("request a because it&amp;#39;s &lt;here&gt;", Parsed(servers=("a",), reason="it&#39;s <here>")),
        ("request a because ask <@U1|ben> in <#C1|ops>", Parsed(servers=("a",), reason="ask @ben in #ops")),
        ("request a because <!here> <!subteam^S1|@leads>", Parsed(servers=("a",), reason="@here @leads")),
        (
            "request <http://web-1.example.com|web-1.example.com> because x",
            Parsed(servers=("web-1.example.com",), reason="x"),
        ),
        (
            "request a because see <https://x.example/?a=1&amp;b=2>",
            Parsed(servers=("a",), reason="see https://x.example/?a=1&b=2"),
        ),
        ("request a from 2001:DB8::7 because x", Parsed(servers=("a",), source_ip="2001:db8::7", reason="x")),
        ("request a from 10.1.2.3 because x", Parsed(servers=("a",), source_ip="10.1.2.3", reason="x")),
        ("", Plain(verb="help")),
        ("  Help ", Plain(verb="help")),
        ("LIST", Plain(verb="list")),
        ("whoami", Plain(verb="whoami")),
        ("unlink", Plain(verb="unlink")),
        ("link", Plain(verb="link")),
        ("key list", Plain(verb="key list")),
        ("key add ssh-ed25519 AAAA it's \"mine", AddKey(line="ssh-ed25519 AAAA it's \"mine")),
        ("key add ssh-ed25519 AAAA <mailto:a@b.example|a@b.example>", AddKey(line="ssh-ed25519 AAAA a@b.example")),
        ("key remove SHA256:abc", RemoveKey(fingerprint="SHA256:abc")),
        ("status ar-7f3k", About(verb="status", request_id="AR-7F3K")),
        ("cancel 7F3K", About(verb="cancel", request_id="AR-7F3K")),
        ("done", About(verb="done", request_id="")),
        ("done 7f3k", About(verb="done", request_id="AR-7F3K")),
        ("revoke 7f3k because “wrong” server", Revoke(request_id="AR-7F3K", reason="“wrong” server")),
        ("revoke 7f3k", Revoke(request_id="AR-7F3K", reason="")),
        (
            "exception <@U0ANA|ana> <mailto:ana@corp.example|ana@corp.example> because two domains",
            Exempt(user_id="U0ANA", email="ana@corp.example", reason="two domains"),
        ),
        ("exception REMOVE <@U0ANA|ana> because she left", Unexempt(user_id="U0ANA", reason="she left")),
    ],
)
def test_is_understood(text: str, found: object) -> None:
    assert parse(text) == found


@pytest.mark.parametrize(
    ("text", "says", "field"),
    [
        ("request web-1 fro 2h because x", "I do not understand “fro” (word 3). Did you mean “for”?", "servers"),
        ("request web-1 form 1.2.3.4", "“form” (word 3). Did you mean “from”?", "servers"),
        ("request web-1 becuase x", "“becuase” (word 3). Did you mean “because”?", "servers"),
        ("request web-1 2h because x", "“2h” (word 3) looks like a length of time: say for 2h.", "duration"),
        ("request web-1 203.0.113.7", "(word 3) looks like an address: say from 203.0.113.7.", "source_ip"),
        ("request web-1 for because x", "After “for” say how long: for 2h.", "duration"),
        ("request web-1 for a while because x", "“a” (word 4) is not a length of time.", "duration"),
        ("request web-1 for 999999d999999d999999dx", "is not a length of time", "duration"),
        ("request web-1 for 1h for 2h because x", "You say “for” twice, again as word 5.", ""),
        ("request web-1 from because x", "After “from” say your IP address", "source_ip"),
        ("request web-1 from 0.0.0.0", "nobody comes from there", "source_ip"),
        ("request web-1 from 224.0.0.1", "nobody comes from there", "source_ip"),
        ("request web-1 from 169.254.169.254", "nobody comes from there", "source_ip"),
        ("request web-1 from ::1", "nobody comes from there", "source_ip"),
        ("request web-1 from ::ffff:127.0.0.1", "nobody comes from there", "source_ip"),
        ("request web-1 from 255.255.255.255", "nobody comes from there", "source_ip"),
        ("request web-1 from 2001:db8::1%eth0", "names a network card", "source_ip"),
        ("request web-1 via tunnel", "I know no route “tunnel” (word 4).", "route"),
        ('request "web-1 because x', "The quote that word 2 opens is never closed.", ""),
        ('request "web-1"x because x', "After the closing quote of word 2 leave a space.", ""),
        ('request "" because x', "Word 2 is empty quotes.", "servers"),
        ("request web\u200b-1", "holds invisible characters", "servers"),
        ("status", "Say which request: /passport status AR-7F3K", "id"),
        ("status AR-7F3K now", "I do not understand “now” (word 3).", ""),
        ("status AR-" + "7" * 20, "is no request id", "id"),
        ("revoke because x", "Say which request", "id"),
        ("revoke 7f3k wrong", "I do not understand “wrong” (word 3). Say because", "reason"),
        ("link now please", "I do not understand “now” (word 2). Say just: /passport link", ""),
        ("key", "Say /passport key add", ""),
        ("key rotate", "I do not understand “rotate” (word 2).", ""),
        ("exception @ana a@b.example because x", "Say whom, as a mention", ""),
        ("exception &lt;@U0ANA&gt; a@b.example because x", "Say whom, as a mention", ""),
        ("exception <@U0ANA> nobody because x", "which email address", "email"),
        ("exception <@U0ANA> a@b.example", "Say why.", "reason"),
        ("exception remove", "Say whom, as a mention", ""),
        ("exception remove ana because x", "/passport exception remove @somebody because …", ""),
        ("exception remove <@U0ANA>", "Say why.", "reason"),
        ("exception remove <@U0ANA> a@b.example because x", "Say because", "reason"),
        ("rekwest web-1", "Did you mean /passport request?", ""),
        ("xyzzy", "I do not know “xyzzy” (word 1). /passport help shows", ""),
        ("x" * (MAX_TEXT + 1), "characters long", ""),
    ],
)
def test_an_error_points_at_the_word(text: str, says: str, field: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        parse(text)
    assert says in caught.value.sentence
    assert caught.value.field == field


def refusal(act: Callable[[], object]) -> str:
    """The sentence that it ends with, "" for none; any other exception fails the test."""
    try:
        act()
    except InvalidInputError as error:
        return error.sentence or "(an empty sentence)"
    return ""


@given(st.text(max_size=300))
@example("request \\")
@example('request "\\')
@example("request <")
@example("key remove \u2028")
def test_nothing_but_a_sentence_is_ever_raised(text: str) -> None:
    for verb in ("", "request ", "revoke ", "key ", "exception ", "request a for ", "request a from ", "status "):
        sentence = refusal(lambda line=verb + text: parse(line))  # type: ignore[misc]
        assert sentence != "(an empty sentence)"
        assert len(sentence) < 400


WORDS = [
    "request",
    "for",
    "2h",
    "from",
    "1.2.3.4",
    "via",
    "because",
    "“",
    '"',
    "'",
    "<@U1|a>",
    "<",
    "web-1",
    ",",
    "key",
    "add",
]


@given(st.lists(st.sampled_from([*WORDS, " ", "\n", "&lt;"]), max_size=20))
def test_nothing_but_a_sentence_is_raised_for_near_misses(pieces: list[str]) -> None:
    assert refusal(lambda: parse("request " + " ".join(pieces))) != "(an empty sentence)"


letters = st.characters(categories=("L", "N", "P", "Sm", "Sc"), exclude_characters='"“”„‟\\{')
names = st.one_of(
    st.text(alphabet="abcdefghijklmnopqrstuvwxyz0123456789-._:=/", min_size=1, max_size=40),
    st.text(alphabet=st.one_of(letters, st.just(" ")), min_size=1, max_size=40).filter(str.strip),
)
addresses = st.one_of(st.none(), st.sampled_from(["203.0.113.7", "10.0.0.5", "2001:db8::7"]))
durations = st.one_of(st.none(), st.integers(1, 999_999).map(lambda seconds: timedelta(seconds=seconds)))
reasons = st.text(max_size=200).map(str.strip)


@given(
    servers=st.lists(names, max_size=5, unique=True),
    duration=durations,
    source_ip=addresses,
    reason=reasons,
    quote=st.sampled_from(['""', "“”", "„“"]),
)
@settings(max_examples=200)
def test_what_is_written_is_read_back(
    servers: list[str], duration: timedelta | None, source_ip: str | None, reason: str, quote: str
) -> None:
    wanted = Parsed(servers=tuple(servers), duration=duration, source_ip=source_ip, reason=reason)
    clauses = [f"for {int(duration.total_seconds())}s"] if duration else []
    clauses += [f"from {source_ip}"] if source_ip else []
    quoted = [f"{quote[0]}{name}{quote[1]}" for name in servers]
    line = " ".join(["request", *quoted, *clauses, *([f"because {reason}"] if reason else [])])
    assert parse(escape(line)) == wanted


@given(st.text(alphabet="abc <>&;|@#!.:/ \n\"“'", max_size=80))
def test_typed_text_comes_back_from_slacks_own_escapes(text: str) -> None:
    assert typed(escape(text)) == text


@pytest.mark.parametrize(
    "text", ["see https://x.example/a?b=1&c=2", "web-1.example.com", "a@b.example", "@ana #ops @here", "a < b & c > d"]
)
def test_what_slack_links_is_the_text_again(text: str) -> None:
    ids = {"@ana": "U0ANA", "#ops": "C0OPS"}
    assert typed(escape_command(text, ids)) == text


def test_request_ids_are_read_in_any_case() -> None:
    assert [parse_request_id(text) for text in ("AR-7F3K", "ar-7f3k", " 7f3k ")] == ["AR-7F3K"] * 3
    for text in ("", "AR-", "7F-3K", "AR-7F3K'; --", "٣٣٣٣", "AR-AR-7F3K"):
        with pytest.raises(InvalidInputError):
            parse_request_id(text)


@given(st.text(max_size=60))
def test_an_address_is_one_or_a_sentence(text: str) -> None:
    assert refusal(lambda: parse_address(parse_address(text))) != "(an empty sentence)"
