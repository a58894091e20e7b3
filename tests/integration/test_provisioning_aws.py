"""AWS sessions: whose credentials, how long, how often a call is repeated, and what an error reads like."""

import contextlib
import re
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import boto3
import pytest
from botocore.config import Config
from botocore.credentials import DeferredRefreshableCredentials
from botocore.exceptions import ClientError, ReadTimeoutError
from moto.sts.models import sts_backends

from provisioning.assumed_roles import source_identity
from provisioning.aws import AwsAccount, Sessions
from provisioning.aws_errors import AwsError, translate
from sandbox.aws import EXTERNAL_ID, AwsDouble
from tests.integration.aws_desk import ACCOUNTS, FAR, HOME, OTHER, REGION


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch) -> Iterator[AwsDouble]:
    with AwsDouble() as made:
        for name, value in made.environment().items():
            monkeypatch.setenv(name, value)
        yield made


def who(sessions: Sessions, account: str, region: str = REGION) -> str:
    return str(sessions.call(account, region, "sts", "get_caller_identity")["Arn"])


def test_each_account_is_served_with_its_own_role_its_external_id_and_a_name(double: AwsDouble) -> None:
    sessions = Sessions(ACCOUNTS, session_name="passport of Ana")
    assert who(sessions, "home") == f"arn:aws:iam::{HOME}:user/passport"
    assert who(sessions, "other") == f"arn:aws:sts::{OTHER}:assumed-role/PassportServers/passport-of-Ana"
    (role,) = [role for backend in sts_backends[OTHER].values() for role in backend.assumed_roles]
    assert (role.external_id, role.session_name) == (EXTERNAL_ID, "passport-of-Ana")


def test_a_role_is_assumed_once_for_all_regions_services_and_threads(double: AwsDouble) -> None:
    sessions = Sessions(ACCOUNTS)
    with ThreadPoolExecutor(8) as pool:
        calls = [
            pool.submit(sessions.call, "other", region, "ssm", "describe_instance_information")
            for region in [REGION, FAR] * 8
        ]
        assert all(call.result()["InstanceInformationList"] == [] for call in calls)
    assert [call.operation for call in double.calls].count("AssumeRole") == 1


def test_there_is_one_client_per_account_region_and_service(double: AwsDouble) -> None:
    sessions = Sessions(ACCOUNTS)
    barrier = threading.Barrier(8)

    def take(_: int) -> object:
        barrier.wait()
        return sessions.client("home", REGION, "ssm")

    with ThreadPoolExecutor(8) as pool:
        assert len(set(map(id, pool.map(take, range(8))))) == 1
    assert sessions.client("home", FAR, "ssm") is not sessions.client("home", REGION, "ssm")


def test_credentials_are_renewed_before_they_run_out(double: AwsDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    sessions = Sessions(ACCOUNTS)
    who(sessions, "other")
    credentials = sessions._session("other").get_credentials()
    assert isinstance(credentials, DeferredRefreshableCredentials)
    first = credentials.get_frozen_credentials().access_key
    monkeypatch.setattr(credentials, "_expiry_time", datetime.now(UTC) + timedelta(minutes=5))
    who(sessions, "other")
    assert credentials.get_frozen_credentials().access_key != first


def test_credentials_that_aws_calls_expired_are_dropped(double: AwsDouble) -> None:
    sessions = Sessions(ACCOUNTS)
    before = sessions.client("other", REGION, "ssm")
    double.faults.fail("ListCommands", 400, code="ExpiredTokenException", times=2)
    with pytest.raises(AwsError, match=r"a new one is refused, too\. An admin must mend that") as error:
        sessions.call("other", REGION, "ssm", "list_commands")
    assert error.value.retryable
    assert sessions.client("other", REGION, "ssm") is not before
    assert sessions.call("other", REGION, "ssm", "list_commands")["Commands"] == []
    double.faults.fail("ListCommands", 400, code="ExpiredTokenException", times=1)
    with pytest.raises(AwsError, match=r"has run out\. I renew it and try again"):
        list(sessions.pages("other", REGION, "ssm", "list_commands", {}))


@pytest.mark.parametrize("once", [True, False])
def test_a_call_whose_credentials_have_just_run_out_goes_again_with_new_ones(double: AwsDouble, *, once: bool) -> None:
    """They were refused before anything was done, so this holds for what has no client token, too."""
    sessions = Sessions(ACCOUNTS)
    sessions.call("other", REGION, "ssm", "list_commands", once=once)
    double.faults.expire_credentials(OTHER)
    assert sessions.call("other", REGION, "ssm", "list_commands", once=once)["Commands"] == []
    assert [call.operation for call in double.calls].count("AssumeRole") == 2


def test_threads_whose_credentials_run_out_together_renew_them_once(double: AwsDouble) -> None:
    sessions = Sessions(ACCOUNTS)
    old = sessions.client("other", REGION, "ssm")
    sessions.call("other", REGION, "ssm", "list_commands")
    fresh = [sessions._forget("other", old) or sessions.client("other", REGION, "ssm") for _ in range(3)]
    assert fresh[0] is fresh[1] is fresh[2] is not old


NAMING = (ACCOUNTS[0], replace(ACCOUNTS[1], source_identity=True))
ANA, BEN = "ana@example.com", "ben@example.com"


def identities(double: AwsDouble, operation: str = "ListCommands") -> list[str]:
    return [call.source_identity for call in double.calls if call.operation == operation]


def test_what_is_done_for_a_person_bears_their_name_and_the_rest_passports_own(double: AwsDouble) -> None:
    double.trust_source_identity(OTHER)
    sessions = Sessions(NAMING)
    for person in (ANA, "", BEN, ANA):
        sessions.call("other", REGION, "ssm", "list_commands", person=person)
    assert identities(double) == [ANA, "", BEN, ANA]
    assert [call.operation for call in double.calls].count("AssumeRole") == 3  # Passport's own, Ana's and Ben's
    assert len(sessions._clients) == 1


def test_an_account_whose_settings_do_not_say_so_names_nobody(double: AwsDouble) -> None:
    sessions = Sessions(ACCOUNTS)
    for account in ("home", "other"):
        sessions.call(account, REGION, "ssm", "list_commands", person=ANA)
    assert identities(double) == ["", ""]


def test_persons_at_the_same_time_are_not_mixed_up(double: AwsDouble) -> None:
    double.trust_source_identity(OTHER)
    sessions, people = Sessions(NAMING), [f"p{number}@example.com" for number in range(6)]

    def ask(person: str) -> None:
        filters = [{"key": "DocumentName", "value": f"for-{person.partition('@')[0]}"}]
        sessions.call("other", REGION, "ssm", "list_commands", person=person, Filters=filters)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(ask, people * 5))
    for call in double.calls:
        if call.operation == "ListCommands":
            assert call.request["Filters"][0]["value"] == f"for-{call.source_identity.partition('@')[0]}"


def test_the_sessions_of_persons_are_kept_in_bounded_number(double: AwsDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("provisioning.assumed_roles.MOST_PERSONS", 2)
    double.trust_source_identity(OTHER)
    sessions = Sessions(NAMING)
    for person in (ANA, BEN, ANA, "cleo@example.com", ANA, BEN):
        sessions.call("other", REGION, "ssm", "list_commands", person=person)
    assert identities(double)[-2:] == [ANA, BEN]
    assert [call.operation for call in double.calls].count("AssumeRole") == 4  # Ben was the longest unused


def test_a_persons_session_that_has_run_out_is_renewed_with_their_name(double: AwsDouble) -> None:
    double.trust_source_identity(OTHER)
    sessions = Sessions(NAMING)
    sessions.call("other", REGION, "ssm", "list_commands", once=True, person=ANA)
    double.faults.expire_credentials(OTHER)
    sessions.call("other", REGION, "ssm", "list_commands", once=True, person=ANA)
    assert identities(double) == [ANA, ANA]


def test_a_role_that_does_not_trust_the_name_says_what_its_policy_lacks(double: AwsDouble) -> None:
    with pytest.raises(AwsError, match="needs sts:SetSourceIdentity") as error:
        Sessions(NAMING).call("other", REGION, "ssm", "list_commands", person=ANA)
    assert not error.value.retryable


@pytest.mark.parametrize(
    "person", ["ana@example.com", "ana o'hara@example.com", "ana\n$(id)@x", "aws:root", "é@x", "", "a", "x" * 300]
)
def test_a_source_identity_is_one_that_aws_takes(person: str) -> None:
    named = source_identity(person)
    assert re.fullmatch(r"[\w+=,.@-]{2,64}", named, re.ASCII)
    assert not named.lower().startswith("aws")
    assert named == source_identity(person)


def test_two_persons_never_have_one_source_identity() -> None:
    people = ["ana@example.com", "ana b@x", "ana-b@x", "ana'b@x", "y" * 70, "y" * 71, "aws:b@x"]
    assert len({source_identity(person) for person in people}) == len(people)


def test_reads_are_repeated_and_what_has_no_token_is_not(double: AwsDouble) -> None:
    sessions = Sessions(ACCOUNTS)
    double.faults.fail("ListCommands", 500, times=1)
    assert sessions.call("home", REGION, "ssm", "list_commands")["Commands"] == []
    double.faults.fail("ListCommands", 500, times=1)
    with pytest.raises(AwsError):
        sessions.call("home", REGION, "ssm", "list_commands", once=True)


def test_an_account_that_is_not_the_settings_one_is_noticed(double: AwsDouble) -> None:
    sessions = Sessions([AwsAccount(name="home", id=OTHER, regions=(REGION,)), ACCOUNTS[1]])
    sessions.confirm_account("other")
    with pytest.raises(AwsError, match=f"are of AWS account {HOME}, and the settings say {OTHER}") as error:
        sessions.confirm_account("home")
    assert not error.value.retryable


def test_aws_that_is_not_there_may_have_taken_the_call_and_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very-secret")
    with pytest.raises(AwsError) as error:
        Sessions(ACCOUNTS).call("home", REGION, "ssm", "list_commands", once=True)
    assert error.value.sentence == "AWS does not answer in home eu-west-1. I try again by myself."
    assert error.value.retryable
    assert not error.value.answered
    assert "very-secret" not in repr(error.value)


def test_missing_credentials_have_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, "/nonexistent")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(AwsError, match="finds no AWS credentials for home eu-west-1") as error:
        Sessions(ACCOUNTS).call("home", REGION, "ssm", "list_commands")
    assert error.value.retryable


@pytest.mark.parametrize(
    ("code", "status", "retryable", "answered", "words"),
    [
        ("ThrottlingException", 400, True, True, "go slower"),
        ("RequestLimitExceeded", 503, True, True, "go slower"),
        ("ExpiredToken", 403, True, True, "I renew it"),
        ("InternalServerError", 500, True, False, "trouble of its own"),
        ("ServiceUnavailable", 503, True, False, "trouble of its own"),
        ("AccessDenied", 403, False, True, "does not let Passport's role call SendCommand"),
        ("UnauthorizedOperation", 403, False, True, "does not let Passport's role call SendCommand"),
        ("InvalidClientTokenId", 403, False, True, "does not know Passport's credentials"),
        ("InvalidDocument", 400, False, True, "`passport documents publish`"),
        ("InvalidParameters", 400, False, True, "`passport documents publish`"),
        ("SomethingNew", 400, False, True, r"refuses SendCommand in home eu-west-1 \(SomethingNew\)"),
    ],
)
def test_every_refusal_has_a_sentence_and_says_whether_to_try_again(
    code: str, status: int, *, retryable: bool, answered: bool, words: str
) -> None:
    refusal = ClientError(
        {"Error": {"Code": code, "Message": "secret words"}, "ResponseMetadata": {"HTTPStatusCode": status}},  # type: ignore[typeddict-item]
        "SendCommand",
    )
    with pytest.raises(AwsError, match=words) as error:
        raise translate(refusal, where="home eu-west-1")
    assert (error.value.retryable, error.value.answered) == (retryable, answered)
    assert "secret words" not in error.value.sentence


def test_a_read_that_times_out_may_have_been_taken() -> None:
    error = translate(ReadTimeoutError(endpoint_url="http://x"), where="home eu-west-1")
    assert error.retryable
    assert not error.answered


def test_a_region_that_is_silent_holds_up_a_few_threads_only_and_is_asked_again_later(
    double: AwsDouble,
) -> None:
    hours, asked = [0.0], list[socket.socket]()
    sentence = "AWS does not answer in home eu-west-1. I try again by myself."
    timeout, spared = f"ReadTimeoutError {sentence}", f"NotAsked {sentence}"
    sessions = Sessions(ACCOUNTS, monotonic=lambda: hours[0])
    real = sessions.client("home", FAR, "ssm", once=True)

    def list_agents() -> str:
        try:
            sessions.call("home", REGION, "ssm", "describe_instance_information", once=True)
        except AwsError as error:
            return f"{error.code} {error.sentence}"
        return "answered"

    with _mute(asked) as mute:
        silent = boto3.client(
            "ssm",
            region_name=REGION,
            endpoint_url=f"http://127.0.0.1:{mute.getsockname()[1]}",
            config=Config(read_timeout=0.2, retries={"total_max_attempts": 1}),
        )
        sessions._clients["home", REGION, "ssm", True] = silent
        assert [list_agents() for _ in range(5)] == [timeout] * 3 + [spared] * 2
        assert len(asked) == 3
        hours[0] += 6
        assert [list_agents() for _ in range(2)] == [timeout, spared]
        assert sessions.call("home", FAR, "ssm", "describe_instance_information", once=True), "others go on"
    sessions._clients["home", REGION, "ssm", True] = real  # it answers again
    hours[0] += 6
    assert [list_agents() for _ in range(3)] == ["answered"] * 3


@contextlib.contextmanager
def _mute(taken: list[socket.socket]) -> Iterator[socket.socket]:
    """A server that takes every call and answers none; nobody hangs up before its end."""

    def take_all() -> None:
        with contextlib.suppress(OSError):
            while True:
                taken.append(server.accept()[0])

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=take_all)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown(socket.SHUT_RDWR)  # close() alone would not wake who waits in accept()
            thread.join()
            for call in taken:
                call.close()
