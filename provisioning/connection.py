"""What a person needs to log in: two small files, and a command per server.

Nothing that a server or a tag says becomes configuration on a laptop: host keys are parsed to type and base64,
and every other word is Passport's own or matches a strict pattern. A server's name is for people only.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from access.model import AccessRequest, Grant, GrantState
from provisioning.framing import parse_host_keys
from provisioning.ssh_certificate import key_type_of

_REQUEST_ID = re.compile(r"AR-[0-9A-Z]{4,8}")
_USER = re.compile(r"pp-[0-9a-z]{4,8}")
_INSTANCE_ID = re.compile(r"m?i-[0-9a-f]{8,17}")
_REGION = re.compile(r"[a-z]{2}(-[a-z]{2,12}){1,3}-[0-9]{1,2}")
_CERTIFICATE = re.compile(r"[a-z0-9@.-]{1,80} [A-Za-z0-9+/=]{1,16384}")
_PORT = re.compile(r"[1-9][0-9]{0,4}")

# Where ssh-keygen puts a key unless told otherwise.
_KEY_FILES: Mapping[str, str] = {
    "ssh-ed25519": "id_ed25519",
    "ecdsa-sha2-nistp256": "id_ecdsa",
    "ecdsa-sha2-nistp384": "id_ecdsa",
    "ecdsa-sha2-nistp521": "id_ecdsa",
    "ssh-rsa": "id_rsa",
    "sk-ssh-ed25519@openssh.com": "id_ed25519_sk",
    "sk-ecdsa-sha2-nistp256@openssh.com": "id_ecdsa_sk",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class SshTarget:
    """An open server as ssh needs it, each word checked."""

    instance_id: str
    alias: str  # what its host keys are known under on a laptop
    port: str
    host_keys: tuple[str, ...]  # ``type base64`` each


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerConnection:
    """How to reach one server; ``name`` is what people call it, and may hold anything."""

    name: str
    instance_id: str
    alias: str
    known_hosts: tuple[str, ...]  # lines
    port: str
    tunnel: str  # the ProxyCommand, for people with AWS credentials of their own
    command: str  # runs as it stands in sh, bash and zsh, once the files are there


@dataclass(frozen=True, kw_only=True, slots=True)
class Connection:
    """Everything that *Show credentials* shows."""

    request_id: str
    user: str
    key_file: str  # where their private key is believed to be
    certificate: str  # the file's text
    known_hosts: str  # the file's text
    install: str  # to be pasted into a shell: writes both files
    servers: tuple[ServerConnection, ...]


def connection(request: AccessRequest, grants: Sequence[Grant], certificate: str) -> Connection:
    """What to show for the active grants of a request.

    Raises ValueError for anything that does not belong on a laptop, FramingError for a host key that is none.
    """
    line = _matching(_CERTIFICATE, certificate)
    folder = f"$HOME/.ssh/passport/{_matching(_REQUEST_ID, request.id)}"
    key_file = f"$HOME/.ssh/{_KEY_FILES[key_type_of(line.partition(' ')[0])]}"
    active = [grant for grant in grants if grant.state is GrantState.ACTIVE]
    servers = tuple(_server(request, grant, folder, key_file) for grant in active)
    known_hosts = tuple(known for server in servers for known in server.known_hosts)
    return Connection(
        request_id=request.id,
        user=request.user_name,
        key_file=key_file,
        certificate=f"{line}\n",
        known_hosts="".join(f"{known}\n" for known in known_hosts),
        install=_install(folder, line, known_hosts),
        servers=servers,
    )


def ssh_target(grant: Grant) -> SshTarget:
    """What of a grant may reach a laptop; raises ValueError, FramingError."""
    instance_id = instance_of(grant)
    keys = parse_host_keys(grant.details.get("host_keys", "").split("\n"))
    return SshTarget(
        instance_id=instance_id,
        alias=f"passport-{instance_id}",
        port=_port(grant.details.get("port", "22")),
        host_keys=tuple(f"{key.kind} {key.blob}" for key in keys),
    )


def instance_of(grant: Grant) -> str:
    """The server's id; raises ValueError for what is none."""
    return _matching(_INSTANCE_ID, grant.server.instance_id)


def _server(request: AccessRequest, grant: Grant, folder: str, key_file: str) -> ServerConnection:
    target = ssh_target(grant)
    tunnel = (
        f"aws ssm start-session --target {target.instance_id} --document-name AWS-StartSSHSession "
        f"--parameters portNumber=%p --region {_matching(_REGION, grant.server.region)}"
    )
    return ServerConnection(
        name=grant.server.name,
        instance_id=target.instance_id,
        alias=target.alias,
        known_hosts=tuple(f"{target.alias} {key}" for key in target.host_keys),
        port=target.port,
        tunnel=tunnel,
        command=_command(request, target, tunnel, folder, key_file),
    )


def _command(request: AccessRequest, target: SshTarget, tunnel: str, folder: str, key_file: str) -> str:
    instance_id, port = target.instance_id, target.port
    # "$HOME" and not "~": ssh itself would take the home from the password file, the shell that wrote the files not.
    words = (
        "ssh",
        *(("-p", port) if port != "22" else ()),
        f'-i "{key_file}"',
        f'-o CertificateFile="{folder}/certificate"',
        f'-o UserKnownHostsFile="{folder}/known_hosts"',
        f"-o HostKeyAlias=passport-{instance_id}",
        "-o IdentitiesOnly=yes",
        "-o StrictHostKeyChecking=yes",
        "-o UpdateHostKeys=no",
        f'-o ProxyCommand="{tunnel}"',
        f"{_matching(_USER, request.user_name)}@{instance_id}",
    )
    return " ".join(words)


def _install(folder: str, certificate: str, known_hosts: Sequence[str]) -> str:
    """Shell lines in brackets, so that the umask and the folder are theirs alone; ``>|`` despite noclobber."""
    lines = " \\\n  ".join(f"'{known}'" for known in known_hosts)
    return (
        f'(umask 077 && mkdir -p "{folder}" && cd "{folder}" &&\n'
        f"printf '%s\\n' '{certificate}' >| certificate &&\n"
        f"printf '%s\\n' {lines} >| known_hosts)\n"
    )


def _port(text: str) -> str:
    port = _matching(_PORT, text)
    if int(port) > 65535:
        raise ValueError(f"{port} is no port")
    return port


def _matching(pattern: re.Pattern[str], text: str) -> str:
    if not pattern.fullmatch(text):
        raise ValueError(f"{text[:40]!r} does not belong into a command")
    return text
