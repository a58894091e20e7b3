"""The workstation's pages: who gets a certificate and a tunnel, when, for which server, and who does not."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import requests

from access.audit import Kind
from access.model import RequestState
from access.ports import Store
from access.service.challenges import Challenges
from access.steps import Done, Waiting
from bot.workstation import site as workstation
from bot.workstation.limits import BURST
from handlers.audit_lines import TEMPLATES
from provisioning.ssh_certificate import read_certificate
from provisioning.ssh_wire import decode_base64
from tests.integration.aws_desk import REGION, AwsDesk, aws_desk
from tests.integration.workstation_lab import HOME_URL, Lab, Laptop, Replica, said
from tests.stores import run_together
from tests.unit.test_ssh_keys import ED25519

ACTS = ["certificate", "tunnel"]
ASK = "Ask in Slack: /passport request {} for 1h because …"


@pytest.fixture(scope="module")
def desk() -> Iterator[AwsDesk]:
    with pytest.MonkeyPatch.context() as patch, aws_desk(patch) as desk:
        yield desk


@pytest.fixture
def lab(desk: AwsDesk, store: Store) -> Lab:
    return Lab(desk, store)


@pytest.fixture
def replica(lab: Lab) -> Iterator[Replica]:
    with lab.serving() as replica:
        yield replica


@pytest.fixture
def ana(lab: Lab, replica: Replica) -> Laptop:
    laptop = Laptop(replica)
    lab.register(laptop)
    return laptop


def test_an_open_server_is_certified_for_minutes_through_the_tunnel_alone(lab: Lab, ana: Laptop) -> None:
    web = lab.server("web-1")
    request = lab.opened("web-1")
    answer = ana.ask("certificate", "web-1")
    body, _, _ = read_certificate(answer.pop("certificate")[0])
    now = int(lab.clock.now.timestamp())
    assert request.expires_at is not None
    assert answer == {
        "http": ["200"],
        "status": ["ready"],
        "request": [request.id],
        "user": [request.user_name],
        "platform": ["linux"],
        "alias": [f"passport-{web.instance_id}"],
        "port": ["22"],
        "until": [str(int(request.expires_at.timestamp()))],
        "valid_before": [str(now + 300)],
        "host_key": [ED25519],
        "forwarding": ["no"],
    }
    assert body.public_key == ana.line
    assert body.principals == (request.user_name,)
    assert (body.valid_after, body.valid_before) == (now - 60, now + 300)
    assert dict(body.critical_options) == {"source-address": "127.0.0.1/32,::1/128"}
    assert [name for name, _ in body.extensions] == ["permit-pty"]
    (event,) = lab.events(Kind.CERTIFICATE_ISSUED)
    assert (event.actor, event.request_id, event.server) == ("P-ana", request.id, request.servers[0].key)
    assert event.details["serial"] == str(body.serial)
    assert (event.details["fingerprint"], event.details["from"]) == (ana.fingerprint, ana.address)


def test_a_certificate_never_outlives_its_request(lab: Lab, ana: Laptop) -> None:
    lab.server("web-1")
    request = lab.opened("web-1", minutes=10)
    assert request.expires_at is not None
    lab.clock.now = request.expires_at - timedelta(seconds=90)
    answer = ana.ask("certificate", "web-1")
    body, _, _ = read_certificate(answer["certificate"][0])
    assert body.valid_before == int(request.expires_at.timestamp()) == int(answer["valid_before"][0])


def test_the_key_that_signs_is_one_that_the_server_trusts(lab: Lab, ana: Laptop) -> None:
    lab.server("web-1")
    lab.world.account.on_provision = lambda *_: opened_with(authorities=lab.world.authority.fingerprint)
    lab.opened("web-1")
    body, _, _ = read_certificate(ana.ask("certificate", "web-1")["certificate"][0])
    assert body.signature_key == decode_base64(lab.world.authority.public_key.split()[1])
    lab.server("old-1")
    lab.world.account.on_provision = lambda *_: opened_with(authorities="SHA256:another")
    lab.opened("old-1")
    assert "the key that my certificates were signed with has been replaced" in said(ana.ask("certificate", "old-1"))


def test_a_tunnel_is_what_the_grant_says(lab: Lab, ana: Laptop) -> None:
    lab.world.account.on_provision = lambda *_: opened_with(port="2222")
    web = lab.server("web-1")
    request = lab.opened("web-1")
    answer = ana.ask("tunnel", "web-1")
    assert answer["status"] == ["ready"] and answer["request"] == [request.id]
    assert (answer["region"], answer["endpoint"]) == ([REGION], [lab.double.url])
    (session,) = lab.open()
    stream_url = json.loads(answer["response"][0])["StreamUrl"]
    assert stream_url.startswith("ws://127.0.0.1:") and session.id in stream_url
    assert json.loads(answer["response"][0]) == {
        "SessionId": session.id,
        "StreamUrl": stream_url,
        "TokenValue": session.token,
    }
    asked = {"Target": web.instance_id, "DocumentName": "AWS-StartSSHSession", "Parameters": {"portNumber": ["2222"]}}
    assert json.loads(answer["parameters"][0]) == asked
    assert (
        session.server,
        int(lab.desk.calls("StartSession")[-1]["Parameters"]["portNumber"][0]),
        session.document,
    ) == (web, 2222, "AWS-StartSSHSession")
    assert session.reason == f"passport {request.id}.1 {HOME_URL} ana@example.com"
    (event,) = lab.events(Kind.TUNNEL_OPENED)
    assert event.details["session"] == session.id and event.server == request.servers[0].key
    assert session.token not in str(lab.events()) and session.token not in repr(lab.events())


def test_the_port_and_the_server_are_never_the_callers(lab: Lab, ana: Laptop) -> None:
    web, other = lab.server("web-1"), lab.server("db-2")
    lab.opened("web-1")
    form = ana.proof("tunnel", "web-1")
    more = {
        "port": "3306",
        "portNumber": "3306",
        "instance": other.instance_id,
        "document": "AWS-StartInteractiveCommand",
    }
    assert ana.send("tunnel", form | more | {"account": "other", "region": "us-east-1"})["status"] == ["ready"]
    (session,) = lab.open()
    assert (
        session.server,
        int(lab.desk.calls("StartSession")[-1]["Parameters"]["portNumber"][0]),
        session.document,
    ) == (web, 22, "AWS-StartSSHSession")


def test_windows_is_reached_by_a_forwarded_port_and_linux_by_ssh(lab: Lab, ana: Laptop) -> None:
    win = lab.server("win-1", platform="Windows")
    lab.server("web-1")
    request = lab.opened("win-1", "web-1")
    answer = ana.ask("rdp", "win-1")
    assert (answer["status"], answer["user"]) == (["ready"], [request.user_name])
    assert answer["message"] == [
        f"Your password is in Slack: press Show credentials in the message about {request.id}."
    ]
    (session,) = lab.open()
    assert (
        session.server,
        int(lab.desk.calls("StartSession")[-1]["Parameters"]["portNumber"][0]),
        session.document,
    ) == (win, 3389, "AWS-StartPortForwardingSession")
    parameters = json.loads(answer["parameters"][0])["Parameters"]
    assert parameters == {"portNumber": ["3389"], "localPortNumber": ["0"]}
    assert said(ana.ask("rdp", "web-1")) == "refused: web-1 does not run Windows. Run: ssh web-1.passport"
    for act in ACTS:
        assert said(ana.ask(act, "win-1")) == "refused: win-1 runs Windows. Run: passport-connect rdp win-1"
    assert len(lab.open()) == 1


@pytest.mark.parametrize("act", ACTS)
def test_too_early_it_waits_and_says_for_whom_and_the_same_proof_then_counts(lab: Lab, ana: Laptop, act: str) -> None:
    lab.server("web-1")
    request = lab.asked("web-1")
    form = ana.proof(act, "web-1")
    waiting = ana.send(act, form)
    assert (waiting["http"], waiting["retry_in"]) == (["200"], ["5"])
    assert (
        said(waiting) == f"wait: {request.id} waits for someone of payments-leads until {request.lapses_at:%H:%M} UTC."
    )
    lab.world.account.on_provision = lambda *_: Waiting(handle={"c": "1"}, retry_in=timedelta(seconds=2))
    lab.world.approve(request)
    lab.world.reconcile()
    assert said(ana.send(act, form)) == f"wait: {request.id} is approved, and web-1 is being opened."
    lab.world.account.on_provision = lambda *_: opened_with()
    lab.clock.forward(seconds=2)
    lab.world.reconcile()
    assert ana.send(act, form)["status"] == ["ready"]
    assert len(lab.events(Kind.CERTIFICATE_ISSUED, Kind.TUNNEL_OPENED)) == 1
    assert not lab.events(Kind.REFUSED)


@pytest.mark.parametrize("act", ACTS)
def test_a_proof_counts_once(lab: Lab, ana: Laptop, act: str) -> None:
    lab.server("web-1")
    lab.opened("web-1")
    form = ana.proof(act, "web-1")
    assert ana.send(act, form)["status"] == ["ready"]
    lab.double.calls.clear()
    replayed = ana.send(act, form)
    assert replayed["http"] == ["403"]
    assert said(replayed) == "refused: This proof was used before. Run the same command again."
    other = "tunnel" if act == "certificate" else "certificate"
    assert "does not fit" in said(ana.send(other, form | {"act": "tunnel"}))
    assert not lab.desk.calls("StartSession")
    (event,) = lab.events(Kind.REFUSED)
    assert "used before" in event.details["reason"] and event.actor == "P-ana"


@pytest.mark.parametrize("act", ACTS)
def test_of_two_at_once_one_counts_also_on_two_replicas(lab: Lab, ana: Laptop, act: str) -> None:
    lab.server("web-1")
    lab.opened("web-1")
    with lab.serving() as second:
        there = replace(ana, replica=second)
        form = ana.proof(act, "web-1")
        answers = run_together(*[lambda at=at: at.send(act, form) for at in (ana, there, ana, there)])  # type: ignore[misc]
    assert sorted(answer["status"][0] for answer in answers) == ["ready", "refused", "refused", "refused"]
    assert len(lab.events(Kind.CERTIFICATE_ISSUED, Kind.TUNNEL_OPENED)) == 1
    assert len(lab.open()) == (1 if act == "tunnel" else 0)  # the others' sessions were ended before they said so


@pytest.mark.parametrize("act", ACTS)
def test_strangers_learn_nothing_and_are_counted(lab: Lab, ana: Laptop, replica: Replica, act: str) -> None:
    lab.server("web-1")
    lab.opened("web-1")
    before = lab.events()
    eve = Laptop(replica)
    assert said(eve.ask(act, "web-1")).startswith("refused: I do not know this key. In Slack: /passport key add")
    stolen = eve.proof(act, "web-1") | {"key": ana.line}  # somebody else's public key
    assert "challenge is not mine for your key" in said(eve.send(act, stolen))
    theirs = eve.proof(act, "web-1", challenge=ana.challenge()) | {"key": ana.line}
    unproven = said(eve.send(act, theirs))
    assert unproven.startswith("refused: Your signature does not show that you hold this key: it is of another key.")
    assert lab.events() == before
    assert replica.strangers() == {"workstation: unknown key": 1, "workstation: wrong signature": 1}
    assert replica.refusals.flush(lab.store, lab.clock) == 2
    (event,) = lab.events(Kind.STRANGERS_REFUSED)
    assert event.details == {"workstation: unknown key": "1", "workstation: wrong signature": "1"}


@pytest.mark.parametrize(
    "stated",
    [
        {"act": "rdp"},
        {"act": "certificate\ntunnel"},
        {"home": "https://passport.example.org"},
        {"home": f"{HOME_URL}/"},
        {"host": "db-2"},
        {"host": "WEB-1"},
        {"challenge": "another"},
    ],
    ids=str,
)
def test_a_signature_for_something_else_is_none(lab: Lab, ana: Laptop, stated: dict[str, str]) -> None:
    lab.server("web-1")
    lab.server("db-2")
    lab.opened("web-1", "db-2")
    assert "it does not fit what was to be signed" in said(ana.ask("tunnel", "web-1", stated=stated))
    assert not lab.sessions()


def test_a_signature_for_another_purpose_is_none(lab: Lab, ana: Laptop) -> None:
    form = ana.proof("tunnel", "web-1")
    statement = f"passport-workstation-1\n{HOME_URL}\ntunnel\nweb-1\n{form['challenge']}\n"
    form["signature"] = ana.sign(statement.encode(), namespace="git")
    assert "it was not made for workstation@passport" in said(ana.send("tunnel", form))


def test_a_challenge_is_for_one_key_for_ten_minutes_and_of_this_passport(
    lab: Lab, ana: Laptop, replica: Replica
) -> None:
    lab.server("web-1")
    lab.opened("web-1")
    mine, other = ana.challenge(), Laptop(replica).challenge()
    not_mine = "refused: This challenge is not mine for your key. Run the same command again."
    assert said(ana.ask("certificate", "web-1", challenge=other)) == not_mine
    for wrong in (mine[:-1], f"{mine}=", mine[:-2] + ("AA" if mine[-2:] != "AA" else "BB"), "A" * 75, "A", "~._-"):
        assert said(ana.ask("certificate", "web-1", challenge=wrong)) == not_mine
    foreign = Challenges([b"k" * 32], clock=lab.clock, random_bytes=lambda count: b"r" * count)
    assert said(ana.ask("certificate", "web-1", challenge=foreign.issue(ana.fingerprint))) == not_mine
    lab.clock.forward(minutes=9, seconds=59)
    assert ana.ask("certificate", "web-1", challenge=mine)["status"] == ["ready"]
    late = ana.challenge()
    lab.clock.forward(minutes=10)
    assert "challenge has run out" in said(ana.ask("certificate", "web-1", challenge=late))


def test_the_last_letter_of_a_challenge_has_one_form(lab: Lab, ana: Laptop) -> None:
    lab.server("web-1")
    lab.opened("web-1")
    challenge = ana.challenge()
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    assert ana.ask("certificate", "web-1", challenge=challenge)["status"] == ["ready"]
    spare = [challenge[:-1] + letter for letter in alphabet if letter != challenge[-1]]
    assert {ana.ask("certificate", "web-1", challenge=each)["status"][0] for each in spare[:20]} == {"refused"}


@pytest.mark.parametrize("act", ACTS)
def test_another_person_has_nothing_there(lab: Lab, replica: Replica, act: str) -> None:
    lab.server("web-1")
    lab.opened("web-1")
    ben = Laptop(replica)
    lab.register(ben, "P-ben")
    assert said(ben.ask(act, "web-1")) == f"refused: You have no access to web-1. {ASK.format('web-1')}"
    (event,) = lab.events(Kind.REFUSED)
    assert (event.actor, event.actor_name) == ("P-ben", "Ben Ito")
    assert event.details["act"] == act and event.details["host"] == "web-1" and event.details["from"] == ben.address


def test_a_person_who_is_gone_or_whose_sign_in_ran_out_has_nothing(lab: Lab, ana: Laptop) -> None:
    lab.server("web-1")
    lab.opened("web-1")
    run_out = "refused: Your sign-in has run out. In Slack: /passport link, then run the same command again."
    assert ana.ask("tunnel", "web-1")["status"] == ["ready"]
    with lab.store.unit_of_work() as uow:
        (link,) = uow.people.links_of("P-ana")
        uow.people.save_link(replace(link, expires_at=lab.clock.now))
        uow.commit()
    assert said(ana.ask("tunnel", "web-1")) == run_out
    with lab.store.unit_of_work() as uow:
        uow.people.remove_link(link.slack_user)
        uow.commit()
    assert said(ana.ask("certificate", "web-1")) == run_out


def test_a_key_that_was_removed_opens_nothing(lab: Lab, ana: Laptop) -> None:
    lab.server("web-1")
    lab.opened("web-1")
    with lab.store.unit_of_work() as uow:
        uow.people.remove_key(ana.fingerprint)
        uow.commit()
    assert "I do not know this key" in said(ana.ask("tunnel", "web-1"))


@pytest.mark.parametrize("act", ACTS)
def test_a_request_bound_to_an_address_opens_from_there_alone(lab: Lab, ana: Laptop, act: str) -> None:
    lab.server("web-1")
    request = lab.opened("web-1", source_ip="203.0.113.7")
    assert ana.ask(act, "web-1")["status"] == ["ready"]
    elsewhere = replace(ana, address="198.51.100.9")
    assert said(elsewhere.ask(act, "web-1")) == (
        f"refused: {request.id} is bound to the address 203.0.113.7, and you come from 198.51.100.9. Connect from "
        "there, or ask anew in Slack: /passport request web-1 from 198.51.100.9 for 1h because …"
    )
    (event,) = lab.events(Kind.REFUSED)
    assert (event.request_id, event.details["from"]) == (request.id, "198.51.100.9")
    forged = replace(ana, address="203.0.113.7, 198.51.100.9")  # the caller wrote the first, the proxy the second
    assert "bound to the address" in said(forged.ask(act, "web-1"))
    mapped = replace(ana, address="::ffff:203.0.113.7")
    assert mapped.ask(act, "web-1")["status"] == ["ready"]


def test_a_forged_header_past_the_proxy_counts_for_nothing(lab: Lab, ana: Laptop) -> None:
    lab.server("web-1")
    lab.opened("web-1", source_ip="203.0.113.7")
    with lab.serving(proxies=()) as bare:  # nobody is trusted
        direct = replace(ana, replica=bare)
        headers = {"X-Real-IP": "203.0.113.7", "Forwarded": "for=203.0.113.7"}
        assert "you come from 127.0.0.1" in said(
            direct.send("tunnel", direct.proof("tunnel", "web-1"), headers=headers)
        )
    assert not lab.sessions()


@pytest.mark.parametrize("act", ACTS)
def test_after_the_end_there_is_nothing(lab: Lab, ana: Laptop, act: str) -> None:
    lab.server("web-1")
    request = lab.opened("web-1", minutes=10)
    form = ana.proof(act, "web-1")
    assert request.expires_at is not None
    lab.clock.now = request.expires_at
    over = f"refused: Your access by {request.id} ended at {request.expires_at:%H:%M} UTC. Ask anew in Slack:"
    assert said(ana.ask(act, "web-1")).startswith(over)  # before the reconciler has seen it
    lab.reconcile()
    assert lab.world.standing(request.id).request.state is RequestState.ENDED
    assert said(ana.ask(act, "web-1")).startswith(over)
    assert said(ana.send(act, form)).startswith("refused: This challenge has run out.")
    assert not lab.open()


def test_an_end_ends_the_tunnels_and_a_denial_is_told(lab: Lab, ana: Laptop) -> None:
    lab.server("web-1")
    request = lab.opened("web-1")
    for _ in range(3):
        assert ana.ask("tunnel", "web-1")["status"] == ["ready"]
    lab.end(request)
    lab.double.faults.fail("TerminateSession", 500, times=2)  # retried, like every removal
    lab.reconcile()
    lab.reconcile()
    assert not lab.open()
    ended = lab.world.standing(request.id)
    assert ended.request.state is RequestState.ENDED and ended.grants[0].proof["tunnel"] == "closed"
    assert f"Your access by {request.id} ended" in said(ana.ask("tunnel", "web-1"))


def test_an_end_between_the_start_and_the_answer_wins(lab: Lab, ana: Laptop, replica: Replica) -> None:
    lab.server("web-1")
    request = lab.opened("web-1")
    really = replica.started._called

    def ended_meanwhile(order: Any) -> Any:
        tunnel = really(order)
        lab.end(request)
        return tunnel

    replica.started._called = ended_meanwhile  # type: ignore[method-assign]
    answer = ana.ask("tunnel", "web-1")
    assert said(answer).startswith("refused: Your access") and "response" not in answer
    assert len(lab.sessions()) == 1 and not lab.open()
    assert not lab.events(Kind.TUNNEL_OPENED)


def test_only_what_is_in_the_request(lab: Lab, ana: Laptop) -> None:
    lab.server("web-1")
    db = lab.server("db-2")
    lab.opened("web-1")
    for host in ("db-2", db.instance_id, "web", "web-10", "passport"):
        assert said(ana.ask("tunnel", host)) == f"refused: You have no access to {host}. {ASK.format(host)}"
    assert not lab.sessions()
    assert len(lab.events(Kind.REFUSED)) == 5


def test_names_ids_and_what_is_ambiguous(lab: Lab, ana: Laptop) -> None:
    first, second = lab.server("Web-1"), lab.server("web-1", region="us-east-1")
    request = lab.opened(first.instance_id)
    assert ana.ask("certificate", "web-1")["alias"] == [f"passport-{first.instance_id}"]
    lab.opened(second.instance_id)
    sentence = said(ana.ask("certificate", "web-1"))
    assert sentence.startswith("refused: web-1 is the name of 2 servers that are open for you: ")
    assert all(f"{each.instance_id} (home {each.region})" in sentence for each in (first, second))
    assert "Say which: ssh i-" in sentence
    for each in (first, second):
        assert ana.ask("certificate", each.instance_id)["alias"] == [f"passport-{each.instance_id}"]
    lab.end(request)
    assert ana.ask("certificate", "web-1")["alias"] == [f"passport-{second.instance_id}"]


def test_an_id_is_never_a_name(lab: Lab, ana: Laptop) -> None:
    web = lab.server("web-1")
    lab.server(web.instance_id)  # somebody tagged another server so
    lab.opened("web-1", lab.world.inventory.servers[1].instance_id)
    assert ana.ask("certificate", web.instance_id)["alias"] == [f"passport-{web.instance_id}"]


def test_of_two_requests_for_a_server_the_one_that_ends_last_counts(lab: Lab, ana: Laptop) -> None:
    lab.server("web-1")
    longer = lab.opened("web-1", minutes=120)
    shorter = lab.opened("web-1", minutes=30)
    bound = lab.opened("web-1", minutes=180, source_ip="198.51.100.9")
    assert ana.ask("tunnel", "web-1")["request"] == [longer.id]
    assert replace(ana, address="198.51.100.9").ask("tunnel", "web-1")["request"] == [bound.id]
    lab.end(longer)
    assert ana.ask("tunnel", "web-1")["request"] == [shorter.id]


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({"key": []}, "The field key"),
        ({"challenge": []}, "The field challenge"),
        ({"challenge": "x" * 1001}, "The field challenge"),
        ({"challenge": "a b"}, "The field challenge"),
        ({"host": "web-1\nx"}, "The field host"),
        ({"host": "$(id)"}, "The field host"),
        ({"host": "WEB-1"}, "The field host"),
        ({"host": "-oProxyCommand=x"}, "The field host"),
        ({"host": "x" * 201}, "The field host"),
        ({"key": "ssh-ed25519"}, "the key itself is missing"),
        ({"key": "ssh-ed25519 AAAA\nssh-ed25519 BBBB"}, "one key at a time"),
        ({"key": "-----BEGIN OPENSSH PRIVATE KEY-----"}, "private key"),
        ({"signature": ""}, "The field signature"),
        ({"signature": "x" * 8193}, "The field signature"),
        ({"signature": "\udcff\0"}, "does not show"),
        ({"act": "shell"}, "The field act"),
        ({"act": ["tunnel", "rdp"]}, "The field act"),
        ({"host": ["web-1", "db-2"]}, "The field host"),
        ({"extra": "x" * 40_000}, "at once"),
    ],
    ids=str,
)
def test_hostile_bodies_are_refused_in_words(lab: Lab, ana: Laptop, form: dict[str, Any], words: str) -> None:
    good = ana.proof("tunnel", "web-1")
    answer = ana.post("tunnel", {name: _bytes(value) for name, value in (good | form).items()})
    assert answer["status"] == ["refused"] and words in answer["message"][0]
    assert answer["http"][0] in {"400", "403"}
    assert not lab.sessions() and not lab.events(Kind.REFUSED)


def test_other_kinds_of_bodies_and_methods(lab: Lab, replica: Replica) -> None:
    laptop = Laptop(replica)
    for body in (b"", b"\xff" * 500, b"{}", b"=&=&&;%zz%", b"key=" + b"A" * 100_000):
        assert laptop.post("challenge", body)["status"] == ["refused"]
    multipart = {"key": (None, laptop.fingerprint)}
    assert laptop.post("challenge", None, files=multipart)["status"] == ["ok"]
    assert requests.post(f"{replica.url}/workstation/other", timeout=10).status_code == 404
    assert requests.get(f"{replica.url}/workstation/tunnel", timeout=10).status_code == 404
    assert requests.get(f"{replica.url}/workstation/..%2fsite.py", timeout=10).status_code == 404


def test_what_a_server_says_cannot_add_a_line(lab: Lab, ana: Laptop) -> None:
    web = lab.server("web-1")
    evil = "web-1\nstatus=ready\r\x1b]0;x\x07\u2028certificate=evil"
    lab.world.inventory.servers = [replace(lab.world.inventory.servers[0], name=evil)]
    lab.opened(web.instance_id)
    lab.double.set_online(web, False)
    answer = ana.ask("tunnel", web.instance_id)
    assert set(answer) == {"http", "status", "message"} and answer["status"] == ["refused"]
    assert answer["message"][0].isprintable() and "is not connected to Systems Manager" in answer["message"][0]


def test_host_keys_that_are_none_never_leave(lab: Lab, ana: Laptop) -> None:
    for number, evil in enumerate(("@cert-authority * ssh-ed25519 AAAA", "ssh-ed25519 AAAA`id`", "")):
        lab.world.account.on_provision = lambda *_, evil=evil: opened_with(host_keys=evil)  # type: ignore[misc]
        lab.server(f"web-{number}")
        lab.opened(f"web-{number}")
        answer = ana.ask("certificate", f"web-{number}")
        assert set(answer) == {"http", "status", "message"} and answer["http"] == ["500"]


def test_throttling_is_waited_out_within_the_answer(lab: Lab, ana: Laptop) -> None:
    lab.server("web-1")
    lab.opened("web-1")
    lab.double.faults.throttle("StartSession", times=3)
    assert ana.ask("tunnel", "web-1")["status"] == ["ready"]
    assert len(lab.desk.calls("StartSession")) == 4 and len(lab.open()) == 1


def test_throttling_without_end_is_busy_and_the_proof_stays_good(lab: Lab, ana: Laptop) -> None:
    lab.server("web-1")
    lab.opened("web-1")
    with lab.serving(patience=timedelta(seconds=0.3)) as impatient:
        there = replace(ana, replica=impatient)
        lab.double.faults.throttle("StartSession")
        form = there.proof("tunnel", "web-1")
        answer = there.send("tunnel", form)
        assert (answer["http"], answer["status"], answer["retry_in"]) == (["503"], ["busy"], ["3"])
        lab.double.faults.clear()
        lab.double.faults.quotas = {}
        assert there.send("tunnel", form)["status"] == ["ready"]
    assert len(lab.open()) == 1


def test_trouble_of_aws_is_said(lab: Lab, ana: Laptop) -> None:
    web = lab.server("web-1")
    lab.opened("web-1")
    lab.double.faults.fail("StartSession", 400, times=1)
    assert said(ana.ask("tunnel", "web-1")).startswith(
        "refused: No tunnel to web-1: AWS does not let Passport's role call StartSession in home eu-west-1. "
        "An admin must allow it"
    )
    lab.double.faults.fail("StartSession", 500, times=1)
    assert said(ana.ask("tunnel", "web-1")).startswith("busy: No tunnel to web-1 yet: AWS has trouble of its own")
    lab.double.set_online(web, False)
    assert "The agent of web-1 is not connected to Systems Manager just now" in said(ana.ask("tunnel", "web-1"))
    lab.double.set_online(web, True)
    assert ana.ask("tunnel", "web-1")["status"] == ["ready"]


def test_a_lost_answer_leaves_a_session_that_the_removal_finds(lab: Lab, ana: Laptop) -> None:
    lab.server("web-1")
    request = lab.opened("web-1")
    lab.double.faults.take_then_timeout("StartSession")
    assert ana.ask("tunnel", "web-1")["status"] == ["busy"]
    assert len(lab.open()) == 1 and not lab.events(Kind.TUNNEL_OPENED)
    lab.end(request)
    lab.reconcile()
    assert not lab.open()


def test_orphans_are_found_ended_and_put_on_record_once(lab: Lab, ana: Laptop) -> None:
    lab.server("web-1")
    request = lab.opened("web-1")
    assert ana.ask("tunnel", "web-1")["status"] == ["ready"]
    (kept,) = lab.open()
    ssm = lab.desk.sessions.client("home", REGION, "ssm")
    target = request.servers[0].instance_id
    for grant_id in ("AR-ZZZZ.1", f"{request.id}.9"):
        ssm.start_session(
            Target=target, DocumentName="AWS-StartSSHSession", Reason=f"passport {grant_id} {HOME_URL} x@y"
        )
    ssm.start_session(
        Target=target, DocumentName="AWS-StartSSHSession", Reason="passport AR-ZZZZ.1 https://staging x@y"
    )
    assert lab.orphans().sweep() == 2
    assert [session.reason.split()[2] for session in lab.open()] == [HOME_URL, "https://staging"]
    assert lab.open()[0] is kept
    assert [event.request_id for event in lab.events(Kind.TUNNEL_ORPHANED)] == ["AR-ZZZZ", request.id]
    assert lab.orphans().sweep() == 0
    lab.double.faults.fail("DescribeSessions", 500)
    assert lab.orphans().sweep() == 0  # said in the log, and looked at again


def test_a_tunnel_that_outlives_a_done_route_is_an_orphan(lab: Lab, ana: Laptop) -> None:
    lab.server("web-1")
    request = lab.opened("web-1")
    lab.world.account.on_remove = lambda *_: Waiting(handle={}, retry_in=timedelta(hours=1))  # a silent agent
    lab.end(request)
    lab.reconcile()
    ssm = lab.desk.sessions.client("home", REGION, "ssm")
    reason = f"passport {request.id}.1 {HOME_URL} x@y"
    ssm.start_session(Target=request.servers[0].instance_id, DocumentName="AWS-StartSSHSession", Reason=reason)
    assert lab.orphans().sweep() == 1
    assert not lab.open()


def test_a_refusal_is_on_record_once_a_minute_however_often_a_script_asks(lab: Lab, ana: Laptop) -> None:
    for _ in range(5):
        assert "You have no access" in said(ana.ask("tunnel", "web-1"))
    assert len(lab.events(Kind.REFUSED)) == 1
    lab.clock.forward(minutes=1)
    ana.ask("tunnel", "web-1")
    assert len(lab.events(Kind.REFUSED)) == 2


def test_an_address_may_ask_so_often_unless_it_shows_who_it_is(lab: Lab, ana: Laptop, replica: Replica) -> None:
    lab.server("web-1")
    lab.opened("web-1")
    eve = Laptop(replica, address="198.51.100.66")
    answers = [eve.post("challenge", {"key": eve.fingerprint})["status"][0] for _ in range(BURST + 5)]
    assert answers == ["ok"] * BURST + ["busy"] * 5
    slower = eve.post("challenge", {"key": eve.fingerprint})
    assert (slower["http"], slower["retry_in"]) == (["503"], ["5"])
    assert "Too many calls" in slower["message"][0]
    lab.clock.forward(seconds=1)
    assert eve.post("challenge", {"key": eve.fingerprint})["status"] == ["ok"]
    for _ in range(BURST):
        assert ana.ask("certificate", "web-1")["status"] == ["ready"]


def test_the_scripts_come_with_the_address_in_them(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "passport-connect.sh").write_text("url='@PUBLIC_URL@'\n")
    (tmp_path / "secret").write_text("not one of ours")
    monkeypatch.setattr(workstation, "folder", lambda: tmp_path)
    with lab.serving() as replica:
        found = requests.get(f"{replica.url}/workstation/passport-connect.sh", timeout=10)
        assert (found.status_code, found.text) == (200, f"url='{HOME_URL}'\n")
        assert found.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert requests.get(f"{replica.url}/workstation/secret", timeout=10).status_code == 404


def test_every_new_event_has_its_words() -> None:
    assert "{who} opened a tunnel to {server}" in TEMPLATES[Kind.TUNNEL_OPENED]
    assert "certificate for {server}" in TEMPLATES[Kind.CERTIFICATE_ISSUED]


def opened_with(**details: str) -> Done:
    """What the account answers for a server that is open."""
    return Done(details={"host_keys": ED25519, "port": "22", **details})


def _bytes(value: str | list[str]) -> Any:
    return value if isinstance(value, list) else value.encode("utf-8", "surrogateescape")
