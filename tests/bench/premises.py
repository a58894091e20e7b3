"""``passport serve`` as a process of its own, in the sandbox's company without hosts."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import create_engine, func, select

from sandbox.company import Company
from sandbox.serving import Serving
from storage.engine import parse_url
from storage.rows import requests
from tests.bench.ground import Engine, Ground
from tests.bench.office import settle_in

SERVER = "web-1"


@contextmanager
def company(ground: Ground) -> Iterator[Company]:
    """Slack, AWS with one server, and the identity provider."""
    with Company(ground.new_folder()) as running:
        running.aws.add_server(SERVER, tags={"env": "prod"})
        yield running


def passport(ground: Ground, running: Company, engine: Engine) -> tuple[Serving, str]:
    """A Passport to be started, and the URL of its database, in which Ana and Ben are linked."""
    url = ground.database(engine)
    settle_in(url)
    serving = Serving(running, ground.new_folder(), database_url=url, instance=f"bench-{engine}")
    list_servers_seldom(serving.log.with_name("passport.toml"))
    return serving, url


def list_servers_seldom(config: Path) -> None:
    """As often as is the default: the sandbox's haste would be measured, too."""
    config.write_text(config.read_text().replace('inventory_every = "2s"', 'inventory_every = "2m"'))


def stored_requests(url: str) -> int:
    """How many requests the database has, read beside the server."""
    engine = create_engine(parse_url(url))
    with engine.connect() as connection:
        count = connection.scalar(select(func.count()).select_from(requests))
    engine.dispose()
    return count or 0


def resident_bytes(pid: int) -> int:
    """The process's memory."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(fields["VmRSS"].split()[0]) * 1024
