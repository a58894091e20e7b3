"""Setting a laptop up: the line to paste, and what is said of servers once `ssh web-1.passport` works."""

import shlex
from collections.abc import Iterator

import pytest

from access.audit import Kind
from handlers import ids, phrases
from storage.unit_of_work import SqlStore
from tests.integration.slack_stage import MAX, TOWN, Stage, stage
from tests.integration.test_slack_clicks import KEY
from tests.unit.test_ssh_keys import ED25519
from tests.values import ANA, BEN, a_server


@pytest.fixture
def on(sqlite_store: SqlStore) -> Iterator[Stage]:
    with stage(sqlite_store) as found:
        yield found


def code(plain: str, begins: str) -> str:
    return next(line for line in plain.splitlines() if line.startswith(begins))


def fingerprints(on: Stage) -> list[str]:
    return [line.split()[0] for line in on.say("key list").plain.splitlines() if line.startswith("SHA256:")]


def test_setup_names_the_keys_newest_first_in_a_line_for_each_system(on: Stage) -> None:
    on.say(f"key add {KEY}")
    on.say(f"key add {ED25519}")
    newest_first = fingerprints(on)[::-1]
    assert len(newest_first) == 2
    plain = on.say("setup").plain
    posix = code(plain, "curl ")
    assert shlex.split(posix) == [
        *("curl", "-fsSL", "https://passport.example.com/workstation/install.sh"),
        *("|", "sh", "-s", "--"),
        *newest_first,
    ]
    windows = code(plain, "& ")
    assert windows == (
        "& ([scriptblock]::Create((irm https://passport.example.com/workstation/install.ps1))) "
        + " ".join(newest_first)
    )
    assert "ssh web-1.passport" in plain


def test_setup_is_seen_by_nobody_else(on: Stage) -> None:
    on.say(f"key add {KEY}")
    on.say("setup")
    assert on.slack.person(BEN.user_id).ephemerals() == []
    assert on.slack.messages(TOWN) == []


def test_setup_without_a_key_says_how_to_add_one(on: Stage) -> None:
    plain = on.say("setup").plain
    assert "/passport key add" in plain
    assert "curl" not in plain


def test_setup_needs_a_sign_in_and_no_more_words(on: Stage) -> None:
    assert "Sign in" in on.say("setup", MAX.user_id).plain
    assert "Say just: /passport setup" in on.say("setup now").plain


def test_help_and_a_typo_lead_to_it(on: Stage) -> None:
    assert "/passport setup" in on.say("help").plain
    assert "Did you mean /passport setup?" in on.say("setpu").plain


def ready(on: Stage, *names: str) -> str:
    on.say(f"key add {KEY}")
    on.slack.reload(ANA.user_id)
    request = on.world.submit(*names)
    on.world.approve(request)
    on.world.reconcile()
    return request.id


def shown(on: Stage, request_id: str, who: str = ANA.user_id) -> str:
    message = on.direct(ids.CREDENTIALS_SHOW, request_id, who)
    assert on.slack.person(who).click(message, ids.CREDENTIALS_SHOW).ok
    return on.told(who)[-1]


def test_credentials_are_what_to_type_and_no_certificate_is_signed(on: Stage) -> None:
    request_id = ready(on, "web-1", "db-2")
    plain = shown(on, request_id)
    assert "ssh web-1.passport\nssh db-2.passport" in plain
    assert "/passport setup" in plain
    assert "aws ssm" not in plain
    assert "cert-v01" not in plain
    assert Kind.CREDENTIALS_SHOWN not in on.world.kinds(request_id)


def test_credentials_of_somebody_else_are_refused_and_on_record(on: Stage) -> None:
    request_id = ready(on, "web-1")
    assert "its credentials are theirs alone" in shown(on, request_id, BEN.user_id)
    assert Kind.REFUSED in on.world.kinds(request_id)


def test_credentials_after_the_end_open_nothing(on: Stage) -> None:
    request_id = ready(on, "web-1")
    on.world.clock.forward(days=1)
    assert "is not active" in shown(on, request_id)


def test_what_is_typed_is_never_more_than_a_name(on: Stage) -> None:
    """A tag may hold anything: what cannot be typed safely is called by its id."""
    for name in ("web 1", "web-1; rm -rf ~", "`id`", "$(id)", "-oProxyCommand=id", "wéb", "x" * 300):
        server = a_server(name)
        on.world.inventory.servers.append(server)
        assert f"ssh {server.instance_id}.passport" in shown(on, ready(on, name)), name


def test_the_case_of_a_name_is_nothing_and_windows_is_reached_by_remote_desktop() -> None:
    assert phrases.on_laptop(a_server("Web_1.Prod")) == "ssh web_1.prod.passport"
    assert phrases.on_laptop(a_server("WIN-1", platform="windows")) == "passport-connect rdp win-1"
