"""Getting a certificate: the real script, ssh-keygen and curl, under every shell; and what a hostile server can do."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.workstation.lab import HOST_KEY, Lab, fingerprint_of, keygen, public_of
from tests.e2e.workstation.stand_in import Answer, said

pytestmark = pytest.mark.hosts

SHELLS = {
    "dash": "",
    "bash": "/bin/bash",
    "busybox": "/bin/busybox",
    "mksh": "/bin/mksh",
    "yash": "/usr/bin/yash",
    "zsh": "/bin/zsh",
}
WAITS = said("wait", ("retry_in", "1"), ("message", "AR-7F3K waits for someone of payments-leads until 03:30 UTC."))


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = Lab(tmp_path)
    with made.site:
        done = made.install()
        assert done.returncode == 0, done.stderr
        yield made


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_installs_prepares_and_opens_a_tunnel(tmp_path: Path, shell: str) -> None:
    lab = Lab(tmp_path, sh=SHELLS[shell])
    with lab.site:
        assert (done := lab.install()).returncode == 0, done.stderr
        done = lab.connect("prepare", "web-1.passport")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        lab.connect("tunnel", "web-1.passport")
        listed = lab.connect("status").stdout
        assert lab.connect("uninstall").returncode == 0
    assert lab.site.problems == []
    assert [call.path for call in lab.site.calls] == ["challenge", "certificate", "challenge", "tunnel"]
    assert lab.plugin_log.read_text().count("\n") == 1
    assert "web-1.passport: AR-7F3K, certificate for " in listed
    assert not lab.base.exists()


def test_what_is_written_is_private_and_says_only_what_was_checked(lab: Lab) -> None:
    lab.connect("prepare", "Web_1.Prod.passport")
    assert lab.site.proven("certificate")[0].form["host"] == "web_1.prod"
    files = lab.files()
    assert {mode for name, (mode, _) in files.items() if name not in {"keys/1", "passport-connect"}} == {0o600}
    assert {path.stat().st_mode & 0o777 for path in (lab.base, lab.base / "hosts", lab.base / "keys")} == {0o700}
    assert files["hosts/web_1.prod.conf"][1].split("\n") == [
        "Match originalhost web_1.prod.passport",
        "    User pp-7f3k",
        "    Port 22",
        "    HostKeyAlias passport-i-0a1b2c3d4e5f60718",
        "    IdentityFile ~/.ssh/passport/keys/1",
        "    CertificateFile ~/.ssh/passport/hosts/web_1.prod.certificate",
        "    UserKnownHostsFile ~/.ssh/passport/hosts/web_1.prod.known_hosts",
        "    ForwardAgent no",
        "    ForwardX11 no",
        "",
    ]
    assert files["hosts/web_1.prod.known_hosts"][1] == f"passport-i-0a1b2c3d4e5f60718 {HOST_KEY}\n"
    assert not list(lab.base.glob("work.*"))


def test_a_good_certificate_is_used_again_and_one_that_ends_is_renewed(lab: Lab) -> None:
    lab.connect("prepare", "web-1.passport")
    lab.connect("prepare", "web-1.passport")
    assert len(lab.site.proven("certificate")) == 1
    lab.lifetime = 50  # less than a minute: the next ssh asks anew
    (lab.base / "hosts/web-1.until").write_text(f"{int(time.time()) + 59} AR-7F3K\n")
    lab.connect("prepare", "web-1.passport")
    lab.connect("prepare", "web-1.passport")
    assert len(lab.site.proven("certificate")) == 3


def test_many_at_once_ask_once(lab: Lab) -> None:
    slow = lab.ready
    lab.site.rules.answer = lambda call: Answer(body=slow(call).body, after=0.5, uses_up=True)
    running = [lab.laptop.start(str(lab.base / "passport-connect"), "prepare", "web-1.passport") for _ in range(6)]
    assert [(each.wait(60), each.communicate()[1]) for each in running] == [(0, "")] * 6
    assert len(lab.site.proven("certificate")) == 1
    assert not list((lab.base / "hosts").glob(".*.turn"))


def test_a_killed_run_holds_nobody_up(lab: Lab) -> None:
    for holder in ("999999999\n", None):  # a process that is gone, and one that died before it could write
        turn = lab.base / "hosts/.web-1.turn"
        turn.mkdir()
        if holder:
            (turn / "holder").write_text(holder)
        assert lab.connect("prepare", "web-1.passport").returncode == 0
        assert not turn.exists()
        (lab.base / "hosts/web-1.until").unlink()


def test_too_early_it_waits_says_for_whom_once_and_uses_the_same_proof(lab: Lab) -> None:
    other = said("wait", ("retry_in", "1"), ("message", "AR-7F3K is being opened."))
    left = [WAITS, WAITS, Answer(body="<h1>oops</h1>", code=502), other]
    lab.site.rules.answer = lambda call: left.pop(0) if left else lab.ready(call)
    # The glitch in the middle is waited out for ten seconds; here a shorter sleep stands for it.
    (lab.bin / "sleep").write_text("#!/bin/sh\nexec /bin/sleep 0.1\n")
    (lab.bin / "sleep").chmod(0o755)
    done = lab.connect("prepare", "web-1.passport")
    assert done.returncode == 0
    said_lines = done.stderr.splitlines()
    assert said_lines[0] == "Passport: AR-7F3K waits for someone of payments-leads until 03:30 UTC."
    assert said_lines[1].startswith(f"Passport: {lab.site.url} did not answer as Passport does (HTTP 502).")
    assert said_lines[2:] == ["Passport: AR-7F3K is being opened."]
    asked = lab.site.proven("certificate")
    assert len(asked) == 5
    assert len({call.form["challenge"] for call in asked}) == 1
    assert len({call.form["signature"] for call in asked}) == 1


TROUBLE: dict[str, tuple[Answer, str]] = {
    "refused": (
        said("refused", ("message", "You have no access to web-1. Ask in Slack: /passport request web-1"), code=403),
        "Passport: You have no access to web-1. Ask in Slack: /passport request web-1\n",
    ),
    "refused without a word": (
        said("refused", code=403),
        "Passport: You have no access to web-1. Ask in Slack: /passport request web-1 for 1h because ...\n",
    ),
    "html": (
        Answer(body="<!doctype html><h1>Internal Server Error</h1>", code=500),
        "did not answer as Passport does (HTTP 500). Try again in a minute; if it stays, tell your Passport admin.\n",
    ),
    "nothing": (Answer(body="", code=200), "did not answer as Passport does (HTTP 200)."),
    "a status of tomorrow": (said("sideways"), "did not answer as Passport does (HTTP 200)."),
    "too much": (Answer(body="status=ready\n" + "x" * 200_000), "I cannot reach http://127.0.0.1:"),
}


@pytest.mark.parametrize("trouble", TROUBLE)
def test_each_trouble_is_a_sentence_and_an_end(lab: Lab, trouble: str) -> None:
    answer, sentence = TROUBLE[trouble]
    lab.site.answers(answer)
    before = lab.files()
    done = lab.connect("prepare", "web-1.passport")
    assert done.returncode == 1
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1
    assert lab.files() == before


def test_nobody_at_home_is_a_sentence(lab: Lab) -> None:
    lab.site.__exit__()
    done = lab.connect("prepare", "web-1.passport")
    assert done.returncode == 1
    assert done.stderr.startswith(f"Passport: I cannot reach {lab.site.url}: Failed to connect to 127.0.0.1")
    assert done.stderr.endswith("Are you online, or is a VPN missing?\n")


def test_slowness_is_a_sentence(lab: Lab) -> None:
    lab.site.answers(Answer(body="", after=3))
    # Patience is 40 seconds; here a shorter one stands for it.
    (lab.bin / "curl").write_text('#!/bin/sh\nexec /usr/bin/curl "$@" --max-time 1\n')
    (lab.bin / "curl").chmod(0o755)
    done = lab.connect("prepare", "web-1.passport")
    assert done.returncode == 1
    assert done.stderr.startswith(f"Passport: I cannot reach {lab.site.url}: Operation timed out after 1")
    assert done.stderr.count("\n") == 1


def test_busy_is_waited_for(lab: Lab) -> None:
    left = [said("busy", ("retry_in", "1"), ("message", "Many tunnels are being opened."), code=503)]
    lab.site.rules.answer = lambda call: left.pop(0) if left else lab.ready(call)
    done = lab.connect("prepare", "web-1.passport")
    assert (done.returncode, done.stderr) == (0, "Passport: Many tunnels are being opened.\n")


def test_a_refusal_takes_away_what_was_prepared(lab: Lab) -> None:
    lab.lifetime = 30
    lab.connect("prepare", "web-1.passport")
    assert (lab.base / "hosts/web-1.conf").exists()
    lab.site.answers(said("refused", ("message", "It is over."), code=403))
    assert lab.connect("prepare", "web-1.passport").returncode == 1
    assert list((lab.base / "hosts").iterdir()) == []


UNUSABLE = "Passport: Passport's answer is not one I can use, so I wrote nothing. Tell your Passport admin.\n"
HOSTILE = {
    "user": ["root", "pp-7f3k\\nProxyCommand touch {x}", "pp-7f3k'", "pp-$(touch {x})", "pp-7f3k ProxyCommand", "pp-7F3K", ""],
    "alias": ["*", "passport-*", "passport-i-0a1b2c3d4e5f6071;", "web-1", "passport-i-0a1b2c3d\tx", "@cert-authority *", ""],
    "port": ["0", "65536", "22 ", "22`touch {x}`", "-1", "99999999999999999999", ""],
    "request": ["AR-7F3K/../../x", "../x", "", "AR-7F3K\x0bx"],
    "valid_before": ["soon", "", "-5", "99999999999999999999999", "$(touch {x})"],
    "certificate": [
        "",
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMbvRjr6W5dnNqkIuGsyZ9zXfu7rXo6e1O6q4cQ0aO2D",
        "ssh-ed25519-cert-v01@openssh.com AAAA\rProxyCommand",
        "ssh-ed25519-cert-v01@openssh.com AAAA comment",
        "ssh-ed25519-cert-v01@openssh.com `touch {x}`",
    ],
    "forwarding": ["maybe", "", "yes\tx"],
    "host_key": [
        "",
        f"@cert-authority * {HOST_KEY}",
        f"{HOST_KEY} comment",
        "ssh-ed25519 $(touch {x})",
        "ssh-dss AAAAB3NzaC1kc3M=",
        "ssh-ed25519 AAAA\x00AAAA\tx",
        "*",
    ],
}  # fmt: skip


@pytest.mark.parametrize("field", HOSTILE)
def test_hostile_values_are_refused_and_nothing_is_written(lab: Lab, field: str) -> None:
    stolen = lab.folder / "stolen"
    before = lab.files()
    for value in HOSTILE[field]:
        hostile = value.replace("{x}", str(stolen)).replace("\\n", "\\\n")
        lab.host_keys = [HOST_KEY, hostile] if field == "host_key" else [HOST_KEY]
        lab.fields = {} if field == "host_key" else {field: hostile}
        done = lab.connect("prepare", "web-1.passport")
        assert done.returncode == 1, hostile
        assert done.stderr == UNUSABLE
        assert lab.files() == before
        assert not stolen.exists()


@pytest.mark.parametrize("shell", SHELLS)
def test_hostile_values_are_refused_in_every_shell(tmp_path: Path, shell: str) -> None:
    lab = Lab(tmp_path, sh=SHELLS[shell])
    with lab.site:
        assert lab.install().returncode == 0
        for field, value in (("user", "pp-$(id)"), ("alias", "*"), ("port", "99999"), ("certificate", "x AAAA'")):
            lab.fields = {field: value}
            assert lab.connect("prepare", "web-1.passport").returncode == 1, field
        lab.fields = {}
        lab.host_keys = [f"@cert-authority * {HOST_KEY}"]
        assert lab.connect("prepare", "web-1.passport").returncode == 1
        assert list((lab.base / "hosts").iterdir()) == []


TUNNEL = {
    "region": ["", "eu-west-1; touch {x}", "--help", "EU-WEST-1"],
    "response": ["", "$(touch {x})", '{"a": "\x1b[2J"}', "{" + "x" * 20_000 + "}", '{"TokenValue": "é"}'],
    "parameters": ["", "--help", '{"a"'],
    "endpoint": ["", "https://evil.example/?x=$(touch {x})", "http://ssm.example", "file:///etc/passwd"],
}


def test_a_hostile_tunnel_starts_no_plugin(lab: Lab) -> None:
    stolen = lab.folder / "stolen"
    lab.connect("prepare", "web-1.passport")
    for field, value in [(field, value) for field, values in TUNNEL.items() for value in values]:
        lab.fields = {field: value.replace("{x}", str(stolen))}
        done = lab.connect("tunnel", "web-1.passport")
        assert (done.returncode, done.stdout) == (1, ""), value
        assert done.stderr == "Passport: Passport's answer is not one I can use. Tell your Passport admin.\n"
        assert not lab.plugin_log.exists()
        assert not stolen.exists()


def test_a_message_cannot_drive_the_terminal(lab: Lab) -> None:
    lab.site.answers(said("refused", ("message", "No\x1b[2J\x07 access\r\x7f\u0085\u009b31m: ask Zoë"), code=403))
    assert lab.connect("prepare", "web-1.passport").stderr == "Passport: No[2J access31m: ask Zoë\n"


def test_a_hostile_challenge_is_not_signed(lab: Lab) -> None:
    for challenge in ("", "a b", "$(id)", "x" * 1001, "a\x0bb"):
        lab.site.rules.challenge = said("ok", ("challenge", challenge))
        done = lab.connect("prepare", "web-1.passport")
        assert done.returncode == 1
        assert "did not answer as Passport does" in done.stderr
    assert lab.site.proven("certificate") == []


NO_NAMES = (
    "",
    "../x.passport",
    "-x.passport",
    "a b.passport",
    "$(id).passport",
    "x'.passport",
    "é.passport",
    "x" * 201,
)


@pytest.mark.parametrize("act", ["prepare", "tunnel", "rdp"])
def test_a_name_that_is_none_is_refused_before_anything_else(lab: Lab, act: str) -> None:
    for name in NO_NAMES:
        done = lab.connect(act, name)
        sentence = "Passport: That is no name of a server. Say it like this: web-1.passport\n"
        assert (done.returncode, done.stderr) == (1, sentence), name
    assert lab.site.calls == []


def test_a_tunnel_of_another_request_forgets_the_certificate_of_the_old_one(lab: Lab) -> None:
    lab.connect("prepare", "web-1.passport")
    lab.fields = {"request": "AR-9ZZZ"}
    done = lab.connect("tunnel", "web-1.passport")
    assert (done.returncode, done.stderr) == (
        1,
        "Passport: web-1 is open by another request now. Run the same command again.\n",
    )
    assert not lab.plugin_log.exists()
    assert lab.connect("prepare", "web-1.passport").returncode == 0
    lab.connect("tunnel", "web-1.passport")  # the plugin's stand-in finds no stream behind this one
    assert lab.plugin_log.exists()


def test_nothing_of_the_session_is_in_an_argv_or_left_on_the_disk(lab: Lab) -> None:
    lab.connect("prepare", "web-1.passport")
    trace = lab.folder / "argv"
    for program in ("curl", "sed", "tr", "cat", "rm", "mktemp", "date", "ssh-keygen"):
        (lab.bin / program).write_text(f'#!/bin/sh\necho "$0 $*" >>{trace}\nexec /usr/bin/{program} "$@"\n')
        (lab.bin / program).chmod(0o755)
    lab.connect("tunnel", "web-1.passport")
    ((argv, environment),) = [json.loads(line) for line in lab.plugin_log.read_text().splitlines()]
    assert "AAEsecretToken" in environment
    assert "AAEsecretToken" not in " ".join(argv)
    seen = trace.read_text()
    assert "curl" in seen
    assert "AAEsecretToken" not in seen
    assert "BEGIN SSH SIGNATURE" not in seen
    assert not [name for name, (_, text) in lab.files().items() if "AAEsecretToken" in text or "SSH SIGNATURE" in text]


def test_without_the_plugin_it_says_where_to_get_it(lab: Lab) -> None:
    (lab.bin / "session-manager-plugin").unlink()
    done = lab.connect("prepare", "web-1.passport")
    assert done.returncode == 1
    assert done.stderr.startswith(
        "Passport: AWS's session-manager-plugin is missing on this laptop. Install it: https://"
    )
    assert lab.site.calls == []


def test_a_key_that_cannot_sign_is_said(lab: Lab) -> None:
    lab.key.unlink()
    done = lab.connect("prepare", "web-1.passport")
    assert done.returncode == 1
    assert done.stderr.startswith("Passport: None of your keys could sign: ")
    assert "ssh-add" in done.stderr


def test_a_security_key_is_announced_before_it_blinks(lab: Lab) -> None:
    (lab.base / "keys/1.pub").write_text("sk-ssh-ed25519@openssh.com AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29t\n")
    lab.key.unlink()
    said_lines = lab.connect("prepare", "web-1.passport").stderr.splitlines()
    assert said_lines[0] == "Passport: Touch your security key: it proves to Passport that you are you."
    assert said_lines[1].startswith("Passport: None of your keys could sign: ")


def test_the_next_key_signs_where_the_first_cannot(lab: Lab) -> None:
    other = lab.home / ".ssh/id_work"
    keygen("-t", "ecdsa", "-N", "", "-f", str(other))
    lab.site.registered.append(public_of(other))
    assert lab.install(fingerprint_of(lab.key), fingerprint_of(other)).returncode == 0
    lab.key.unlink()
    assert lab.connect("prepare", "web-1.passport").returncode == 0
    assert lab.site.proven("certificate")[0].form["key"] == public_of(other)
    assert "IdentityFile ~/.ssh/passport/keys/2\n" in lab.files()["hosts/web-1.conf"][1]


def test_a_curlrc_cannot_weaken_it(lab: Lab) -> None:
    (lab.home / ".curlrc").write_text(f"output = {lab.folder}/elsewhere\ninsecure\n")
    assert lab.connect("prepare", "web-1.passport").returncode == 0
    assert not (lab.folder / "elsewhere").exists()


def test_a_redirect_is_not_followed(lab: Lab) -> None:
    lab.site.answers(Answer(body="", code=302))
    done = lab.connect("prepare", "web-1.passport")
    assert done.returncode == 1
    assert "did not answer as Passport does (HTTP 302)" in done.stderr


def test_rdp_opens_a_port_and_says_what_to_open(lab: Lab) -> None:
    done = lab.connect("rdp", "win-1")
    assert done.returncode == 0, done.stderr
    assert lab.site.proven("tunnel")[0].form["act"] == "rdp"
    said_lines = done.stderr.splitlines()
    assert said_lines[0] == "Passport: Your password: Show credentials."
    assert "127.0.0.1:54321" in said_lines[1] and "as pp-7f3k" in said_lines[1]
    file = (lab.base / "hosts/win-1.rdp").read_bytes()
    assert file.startswith(b"full address:s:127.0.0.1:54321\r\nusername:s:pp-7f3k\r\n")
    assert b"password" not in file
    assert done.stdout == ""


def test_help(lab: Lab) -> None:
    for words, code in ((("--help",), 0), (("help",), 0), ((), 2), (("frobnicate",), 2)):
        done = lab.connect(*words)
        assert done.returncode == code
        assert "passport-connect uninstall" in (done.stdout if code == 0 else done.stderr)


def test_stopping_a_wait_leaves_nothing(lab: Lab) -> None:
    lab.site.answers(WAITS)
    running = lab.laptop.start(str(lab.base / "passport-connect"), "prepare", "web-1.passport", start_new_session=True)
    _until(lambda: bool(lab.site.proven("certificate")))
    os.killpg(running.pid, signal.SIGTERM)
    assert running.wait(30) == 143
    running.communicate()
    assert not list(lab.base.glob("work.*"))
    assert list((lab.base / "hosts").iterdir()) == []


def test_a_wait_ends_when_ssh_is_gone(lab: Lab) -> None:
    lab.site.answers(WAITS)
    script = f"'{lab.base}/passport-connect' prepare web-1.passport & echo $!; exec sleep 100"
    parent = lab.laptop.start("/bin/sh", "-c", script)
    assert parent.stdout
    child = int(parent.stdout.readline())
    _until(lambda: bool(lab.site.proven("certificate")))
    parent.kill()
    parent.wait(30)
    _until(lambda: not Path(f"/proc/{child}").exists() or _is_zombie(child))
    parent.communicate()
    assert list((lab.base / "hosts").iterdir()) == []


def _is_zombie(pid: int) -> bool:
    return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()


def _until(what: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not what():
        assert time.monotonic() < end, "it did not happen within 30 s"
        time.sleep(0.05)
