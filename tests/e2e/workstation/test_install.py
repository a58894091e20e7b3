"""Setting a laptop up and taking it away again: which key is found, and what becomes of ~/.ssh/config."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.workstation.lab import Lab, fingerprint_of, keygen, public_of
from tests.e2e.workstation.stand_in import FILES

pytestmark = pytest.mark.hosts

LINE = "Include passport/config"


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = Lab(tmp_path)
    with made.site:
        yield made


@contextmanager
def agent_of(lab: Lab, *keys: Path) -> Iterator[str]:
    """A real ssh-agent that holds these keys."""
    socket = str(lab.folder / "agent.sock")
    with subprocess.Popen(["ssh-agent", "-D", "-a", socket], stdout=subprocess.DEVNULL) as agent:
        try:
            for key in keys:
                words = ["ssh-add", "-q", str(key)]
                for _ in range(50):
                    done = subprocess.run(words, env={"SSH_AUTH_SOCK": socket}, capture_output=True, check=False)
                    if done.returncode == 0:
                        break
                assert done.returncode == 0, done.stderr
            yield socket
        finally:
            agent.terminate()


def options(lab: Lab, host: str) -> dict[str, str]:
    """What ssh would do for a host, the first of each option."""
    done = lab.laptop.run("ssh", "-G", host)
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = {}
    for line in done.stdout.splitlines():
        name, _, value = line.partition(" ")
        found.setdefault(name, value)
    return found


def test_a_key_only_in_an_agent_signs_and_is_offered(lab: Lab) -> None:
    key = lab.folder / "elsewhere"
    keygen("-t", "ed25519", "-N", "", "-f", str(key))
    lab.site.registered = [public_of(key)]
    with agent_of(lab, lab.key, key) as socket:
        lab.laptop.environment["SSH_AUTH_SOCK"] = socket
        done = lab.install(fingerprint_of(key))
        assert "in your agent" in done.stdout
        key.unlink()
        assert options(lab, "web-1.passport")["identityfile"] == "~/.ssh/passport/keys/1.pub"
        assert lab.site.proven("certificate")[0].form["key"] == public_of(key)
    assert lab.site.problems == []


def test_the_agent_that_ssh_config_names_is_used(lab: Lab) -> None:
    key = lab.folder / "elsewhere"
    keygen("-t", "ed25519", "-N", "", "-f", str(key))
    lab.site.registered = [public_of(key)]
    with agent_of(lab, key) as socket:
        (lab.home / ".ssh/config").write_text(f"Host *\n  IdentityAgent {socket}\n")
        assert lab.install(fingerprint_of(key)).returncode == 0
        assert lab.connect("prepare", "web-1.passport").returncode == 0


def test_a_key_that_ssh_config_names_is_found_wherever_it_is(lab: Lab) -> None:
    folder = lab.folder / "my keys"
    folder.mkdir()
    key = folder / "work"
    keygen("-t", "ed25519", "-N", "", "-f", str(key))
    lab.site.registered = [public_of(key)]
    (lab.home / ".ssh/config").write_text(f'Host *\n  IdentityFile "{key}"\n')
    fingerprint = fingerprint_of(key)
    key.with_suffix(".pub").unlink()  # the private half says its fingerprint, too
    assert lab.install(fingerprint).returncode == 0
    assert lab.connect("prepare", "web-1.passport").returncode == 0
    assert lab.site.proven("certificate")[0].form["key"] == lab.files()["keys/1.pub"][1].strip()


def test_a_key_that_is_not_here_is_said_and_nothing_changes(lab: Lab) -> None:
    done = lab.install("SHA256:" + "A" * 43)
    assert done.returncode == 1
    assert done.stderr.startswith("Passport: None of your registered keys is on this laptop: SHA256:AAAA")
    assert "/passport key add" in done.stderr
    assert not (lab.home / ".ssh/config").exists()


@pytest.mark.parametrize("given", ["", "MD5:00:11", "SHA256:short", "'SHA256:$(touch x)'", "SHA256:" + "A" * 44])
def test_what_is_no_fingerprint_is_refused(lab: Lab, given: str) -> None:
    done = lab.laptop.run("/bin/sh", "-c", f"curl -fsSL {lab.site.url}/workstation/install.sh | sh -s -- {given}")
    assert done.returncode == 1
    assert "/passport setup shows the" in done.stderr
    assert not lab.base.exists()


def test_a_new_config_is_private_and_the_line_stands_once(lab: Lab) -> None:
    for _ in range(2):
        assert lab.install().returncode == 0
    config = lab.home / ".ssh/config"
    assert config.read_text() == f"{LINE}\n"
    assert config.stat().st_mode & 0o777 == 0o600


def test_a_config_that_is_there_keeps_its_text_mode_and_place(lab: Lab) -> None:
    config = lab.home / ".ssh/config"
    dotfiles = lab.folder / "dotfiles"
    text = f"# mine\nHost old\n  User me\n{LINE}\nHost *\n  StrictHostKeyChecking no"
    dotfiles.write_text(text)
    dotfiles.chmod(0o640)
    config.symlink_to(dotfiles)
    assert lab.install().returncode == 0
    assert config.is_symlink()
    assert dotfiles.read_text() == f"{LINE}\n# mine\nHost old\n  User me\nHost *\n  StrictHostKeyChecking no\n"
    assert dotfiles.stat().st_mode & 0o777 == 0o640
    assert (lab.home / ".ssh/config.before-passport").read_text() == text
    assert lab.connect("uninstall").returncode == 0
    assert dotfiles.read_text() == "# mine\nHost old\n  User me\nHost *\n  StrictHostKeyChecking no\n"
    assert not lab.base.exists()
    assert lab.key.exists()


def test_nothing_further_down_weakens_it(lab: Lab) -> None:
    (lab.home / ".ssh/config").write_text(
        "Host *\n  StrictHostKeyChecking no\n  UserKnownHostsFile /dev/null\n  User root\n  UpdateHostKeys yes\n"
        "  HostKeyAlias other\n  ProxyCommand nc evil 22\n  ForwardAgent yes\n  ForwardX11 yes\n  HostName evil\n"
        "  IdentitiesOnly no\n  VerifyHostKeyDNS yes\n  GlobalKnownHostsFile /tmp/x\n  KnownHostsCommand /bin/true\n"
        "  CanonicalizeHostname always\n  PreferredAuthentications password\n  ProxyJump evil\n"
    )
    assert lab.install().returncode == 0
    found = options(lab, "web-1.passport")
    assert found["stricthostkeychecking"] == "true"
    assert found["userknownhostsfile"] == f"{lab.base}/hosts/web-1.known_hosts"
    assert found["globalknownhostsfile"] == "/dev/null"
    assert found["hostkeyalias"] == "passport-i-0a1b2c3d4e5f60718"
    assert found["user"] == "pp-7f3k"
    assert found["proxycommand"] == f"'{lab.base}/passport-connect' tunnel '%n'"
    assert (found["forwardagent"], found["forwardx11"], found["updatehostkeys"]) == ("no", "no", "false")
    assert (found["identitiesonly"], found["verifyhostkeydns"]) == ("yes", "false")
    assert found["preferredauthentications"] == "publickey"
    assert found["canonicalizehostname"] == "false"
    assert found.get("knownhostscommand", "none") == "none"
    assert found["certificatefile"] == "~/.ssh/passport/hosts/web-1.certificate"


def test_forwarding_only_where_policy_gives_it(lab: Lab) -> None:
    lab.install()
    lab.fields = {"forwarding": "yes"}
    (lab.home / ".ssh/config").write_text(f"{LINE}\nHost *\n  ForwardAgent yes\n")
    assert options(lab, "web-1.passport")["forwardagent"] == "yes"


def test_other_hosts_run_nothing_of_passports(lab: Lab) -> None:
    lab.install()
    done = lab.laptop.run("ssh", "-v", "-G", "web-1.example.com")
    assert "passport-connect" not in done.stdout
    assert "Executing" not in done.stderr
    assert lab.site.calls == []


@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash", "/usr/bin/fish", "/bin/tcsh", "/bin/zsh", "/bin/mksh"])
def test_any_login_shell_runs_it_and_hostile_names_run_nothing(tmp_path: Path, shell: str) -> None:
    lab = Lab(tmp_path, shell=shell, home="josé=Ana @work; (Ruiz)")
    with lab.site:
        assert (done := lab.install()).returncode == 0, done.stderr
        assert options(lab, "Web-1.passport")["user"] == "pp-7f3k"
        done = lab.laptop.run("ssh", "-o", "BatchMode=yes", "web-1.passport", "true")
        assert lab.plugin_log.exists(), done.stderr
        before = len(lab.site.calls)
        for name in (
            "x';touch stolen;'",
            "`touch stolen`",
            "$(touch stolen)",
            "x\\",
            "!!",
            "a b",
            "x'$(touch stolen)'",
        ):
            lab.laptop.run("ssh", "-o", "BatchMode=yes", f"{name}.passport", "true")
        assert len(lab.site.calls) == before
        assert not (lab.home / "stolen").exists()
    assert lab.site.problems == []


def test_the_files_are_ascii() -> None:
    """A shell in another locale, or an older PowerShell, reads other bytes its own way."""
    assert [file.name for file in FILES.iterdir() if not file.read_bytes().isascii()] == []


def test_half_a_download_does_nothing(lab: Lab) -> None:
    whole = lab.laptop.run("curl", "-fsSL", f"{lab.site.url}/workstation/install.sh").stdout
    for part in (0.3, 0.7, 0.95):
        lab.laptop.run("/bin/sh", "-s", "--", fingerprint_of(lab.key), stdin=whole[: int(len(whole) * part)])
        assert not lab.base.exists()


def test_a_home_that_ssh_config_cannot_hold_is_refused(tmp_path: Path) -> None:
    lab = Lab(tmp_path, home="o'brien")
    with lab.site:
        done = lab.install()
    assert done.returncode == 1
    assert "characters that ssh_config cannot hold" in done.stderr
    assert not lab.base.exists()


def test_a_short_name_only_where_programs_of_ones_own_are(lab: Lab) -> None:
    own = lab.home / ".local/bin"
    own.mkdir(parents=True)
    lab.laptop.environment["PATH"] += f":{own}"
    lab.install()
    assert lab.laptop.run("passport-connect", "--help").returncode == 0
    assert lab.laptop.run("/bin/sh", "-c", "cd .ssh && sh passport/passport-connect status").stdout.startswith(
        "Passport: "
    )
    (own / "passport-connect").write_text("#!/bin/sh\n# somebody else's\n")
    lab.install()
    assert "somebody else's" in (own / "passport-connect").read_text()
    lab.connect("uninstall")
    assert (own / "passport-connect").exists()
