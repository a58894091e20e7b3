"""The zip for people who cannot install the script: an ssh configuration for one request, and no secret."""

import io
import re
import zipfile
from collections.abc import Iterator, Sequence
from datetime import datetime

from access.model import AccessRequest, Grant
from access.words import join_words
from provisioning.connection import Connection, ServerConnection, connection

_TYPED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")  # what may stand for a server in ssh_config
_README = """\
Passport, request {request_id}: {servers}, until {until:%Y-%m-%d %H:%M} UTC.

1. Unpack this where you like, and open a terminal in the folder {folder}.
2. ssh -F config {first}

It needs the AWS command line, its Session Manager plugin, and your own AWS credentials that may call
ssm:StartSession. If your private key is not {key_file}, change the IdentityFile lines in the file config.
scp and sftp take -F config, too.

There is no private key and no password in here, and the certificate is worth nothing without your key. When the
access has ended, delete the folder.
"""


def bundle(request: AccessRequest, grants: Sequence[Grant], certificate: str) -> bytes:
    """The zip for the Linux servers that are open.

    Raises ValueError for anything that does not belong on a laptop, FramingError for a host key that is none.
    """
    open_here = [grant for grant in grants if grant.server.platform != "windows"]
    if not open_here or request.expires_at is None:
        raise ValueError(f"{request.id} has no server that ssh reaches")
    made = connection(request, open_here, certificate)
    names = [_name(server, made) for server in made.servers]
    folder = f"passport-{made.request_id}"
    readme = _README.format(
        request_id=made.request_id,
        servers=join_words(names),
        until=request.expires_at,
        folder=folder,
        first=names[0],
        key_file=_home(made),
    )
    files = {
        "config": "\n".join(_config(made, names)),
        "certificate": made.certificate,
        "known_hosts": made.known_hosts,
        "README.txt": readme.replace("\n", "\r\n"),  # Windows' older editors show nothing else as lines
    }
    return _zipped(folder, files, request.expires_at)


def _config(made: Connection, names: Sequence[str]) -> Iterator[str]:
    """Paths are relative: ssh is called in the folder, wherever that is."""
    for server, name in zip(made.servers, names, strict=True):
        yield f"Host {name}"
        yield f"    User {made.user}"
        yield f"    Port {server.port}"
        yield f"    HostKeyAlias {server.alias}"
        yield f"    ProxyCommand {server.tunnel}"
        yield ""
    yield "Host *"
    yield f"    IdentityFile {_home(made)}"
    yield "    CertificateFile certificate"
    yield "    UserKnownHostsFile known_hosts"
    yield "    GlobalKnownHostsFile /dev/null"
    yield "    IdentitiesOnly yes"
    yield "    StrictHostKeyChecking yes"
    yield "    UpdateHostKeys no"
    yield ""


def _home(made: Connection) -> str:
    return made.key_file.replace("$HOME", "~")


def _name(server: ServerConnection, made: Connection) -> str:
    """Its own, where that can be typed and no other has it; else its id."""
    alone = sum(server.name.lower() == other.name.lower() for other in made.servers) == 1
    return server.name if alone and _TYPED.fullmatch(server.name) else server.instance_id


def _zipped(folder: str, files: dict[str, str], at: datetime) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            entry = zipfile.ZipInfo(f"{folder}/{name}", date_time=at.timetuple()[:6])
            entry.external_attr = 0o100600 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, text)
    return held.getvalue()
