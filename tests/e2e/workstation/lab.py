"""A laptop with a key, a stand-in for Passport, and a stand-in for AWS's plugin."""

import os
import stat
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from sandbox.machine import Machine
from tests.e2e.workstation.stand_in import Answer, Call, StandIn, said

HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMbvRjr6W5dnNqkIuGsyZ9zXfu7rXo6e1O6q4cQ0aO2D"
PARAMETERS = '{"Target":"i-0a1b2c3d4e5f60718","DocumentName":"AWS-StartSSHSession","Parameters":{"portNumber":["22"]}}'
RESPONSE = '{"SessionId":"passport-1","StreamUrl":"tcp://127.0.0.1:9/x","TokenValue":"AAEsecretToken+/="}'

# What AWS's plugin does, as far as a stand-in for a stream goes: the real one speaks through a web socket.
PLUGIN = """\
#!{python} -IS
import json, os, socket, sys, threading
with open({log!r}, "a") as log:
    environment = dict(os.environ)
    log.write(json.dumps([sys.argv[1:], environment.get("AWS_SSM_START_SESSION_RESPONSE", "")]) + "\\n")
name, region, act, profile, parameters, endpoint = sys.argv[1:]
assert os.environ["AWS_EC2_METADATA_DISABLED"] == "true", "it would look for credentials there, for seconds"
assert (name, act, profile) == ("AWS_SSM_START_SESSION_RESPONSE", "StartSession", "")
response, document = json.loads(os.environ[name]), json.loads(parameters)["DocumentName"]
if document == "AWS-StartPortForwardingSession":
    print("\\nStarting session with SessionId: " + response["SessionId"])
    print("Port 54321 opened for sessionId " + response["SessionId"] + ".")
    print("Waiting for connections...", flush=True)
    sys.exit(0)
host, port = response["StreamUrl"].split("/")[2].split(":")
stream = socket.create_connection((host, int(port)))
stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
def send():
    while piece := os.read(0, 65536):
        stream.sendall(piece)
    stream.shutdown(socket.SHUT_WR)
threading.Thread(target=send, daemon=True).start()
while piece := stream.recv(65536):
    while piece:
        piece = piece[os.write(1, piece):]
os._exit(0)
"""


def keygen(*words: str) -> None:
    """Run ssh-keygen; raises when it fails."""
    subprocess.run(["ssh-keygen", "-q", *words], check=True, stdin=subprocess.DEVNULL, capture_output=True)


def public_of(key: Path) -> str:
    """``type base64`` of a key pair."""
    return " ".join(key.with_name(f"{key.name}.pub").read_text().split()[:2])


def fingerprint_of(key: Path) -> str:
    """``SHA256:…``."""
    done = subprocess.run(["ssh-keygen", "-l", "-f", f"{key}.pub"], check=True, capture_output=True, text=True)
    return done.stdout.split()[1]


class Lab:
    """Everything in one folder; ``site`` is the stand-in for Passport, ready for whatever is asked."""

    def __init__(self, folder: Path, *, sh: str = "", shell: str = "/bin/sh", home: str = "ana") -> None:
        self.folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir(parents=True)
        self.plugin_log = folder / "plugin.log"
        self.authority = folder / "ca"
        keygen("-t", "ed25519", "-N", "", "-f", str(self.authority))
        self.laptop = Machine(folder / home, path=[self.bin], sh=sh, shell=shell)
        self.home = self.laptop.home
        self.key = self.home / ".ssh" / "id_ed25519"
        keygen("-t", "ed25519", "-N", "", "-f", str(self.key))
        self.site = StandIn(folder, self.ready, [public_of(self.key)])
        self.fields: dict[str, str] = {}  # what to answer otherwise than usual
        self.host_keys = [HOST_KEY]
        self.lifetime = 300
        self.install_plugin()

    @property
    def base(self) -> Path:
        """Passport's folder on the laptop."""
        return self.home / ".ssh" / "passport"

    def install_plugin(self) -> None:
        """Put the plugin's stand-in on the path."""
        plugin = self.bin / "session-manager-plugin"
        plugin.write_text(PLUGIN.format(python=os.path.realpath("/usr/bin/python3"), log=str(self.plugin_log)))
        plugin.chmod(0o755)

    def install(self, *fingerprints: str) -> subprocess.CompletedProcess[str]:
        """The line of ``/passport setup``, as it is pasted."""
        named = " ".join(fingerprints or (fingerprint_of(self.key),))
        return self.laptop.run("/bin/sh", "-c", f"curl -fsSL {self.site.url}/workstation/install.sh | sh -s -- {named}")

    def connect(self, *words: str) -> subprocess.CompletedProcess[str]:
        """passport-connect, as a person or ssh calls it."""
        return self.laptop.run(str(self.base / "passport-connect"), *words)

    def ready(self, call: Call) -> Answer:
        """Access to anything."""
        if call.path == "certificate":
            return said("ready", *self._certificate(call).items(), *(("host_key", key) for key in self.host_keys))
        fields = {"region": "eu-west-1", "response": RESPONSE, "parameters": PARAMETERS, "request": "AR-7F3K"}
        fields["endpoint"] = "https://ssm.eu-west-1.amazonaws.com"
        if call.form["act"] == "rdp":
            forwarding = PARAMETERS.replace("AWS-StartSSHSession", "AWS-StartPortForwardingSession")
            fields |= {"parameters": forwarding, "user": "pp-7f3k", "message": "Your password: Show credentials."}
        return said("ready", *(fields | self.fields).items())

    def _certificate(self, call: Call) -> Mapping[str, str]:
        valid_before = int(time.time()) + self.lifetime
        fields = {
            "request": "AR-7F3K",
            "user": "pp-7f3k",
            "platform": "linux",
            "alias": "passport-i-0a1b2c3d4e5f60718",
            "port": "22",
            "until": str(valid_before + 3600),
            "certificate": self.certify(call.form["key"]),
            "valid_before": str(valid_before),
            "forwarding": "no",
        }
        return fields | self.fields

    def certify(self, public_key: str) -> str:
        """A certificate for pp-7f3k."""
        name = f"signed-{time.monotonic_ns()}"
        public = self.folder / f"{name}.pub"
        public.write_text(f"{public_key}\n")
        keygen("-s", str(self.authority), "-I", "passport:AR-7F3K:ana", "-n", "pp-7f3k", "-V", "+5m", str(public))
        return " ".join((self.folder / f"{name}-cert.pub").read_text().split()[:2])

    def files(self) -> dict[str, tuple[int, str]]:
        """What is in Passport's folder: mode and text of every file by its name."""
        return {
            str(path.relative_to(self.base)): (stat.S_IMODE(path.lstat().st_mode), path.read_text(errors="replace"))
            for path in sorted(self.base.rglob("*"))
            if path.is_file()
        }
