"""What *Show credentials* says of Windows servers: user, password, and the way to their Remote Desktop."""

from collections.abc import Iterator, Sequence

from access.model import Grant
from access.service.showing import Credentials
from handlers import blocks, mrkdwn
from handlers.blocks import Block
from handlers.phrases import names, on_laptop, shown
from handlers.surface import Forward

MOST_DESKTOPS = 100  # some seven a block: more would leave no room for the other servers
FIRST_LOCAL_PORT = 13389  # of the laptop; one further for each server, so that several can be open together


def desktops(found: Credentials, forward: Forward | None) -> Iterator[Block]:
    """The Windows servers, up to MOST_DESKTOPS; ``forward`` is for people with AWS credentials of their own."""
    if not found.desktops:
        return
    until = mrkdwn.clock(found.request.expires_at or found.request.submitted_at)
    servers = [grant.server for grant in found.desktops]
    yield blocks.section(
        f"*{names(servers)}* by Remote Desktop as `{found.request.user_name}` until {until}, each with its password. "
        "On a laptop that is set up (once: `/passport setup`) the command opens it:"
    )
    yield from blocks.packed(_ways(found, found.desktops[:MOST_DESKTOPS], forward))


def _ways(found: Credentials, grants: Sequence[Grant], forward: Forward | None) -> list[str]:
    return [_way(found, grant, forward, FIRST_LOCAL_PORT + number) for number, grant in enumerate(grants)]


def _way(found: Credentials, grant: Grant, forward: Forward | None, local_port: int) -> str:
    name = f"*{shown(grant.server.name, 60)}*"
    if grant.id not in found.passwords:
        return f"{name}: its password cannot be opened. Ask anew: `/passport request`"
    # A code block of its own, so that it is copied whole.
    lines = [f"{name}: `{on_laptop(grant.server)}`", blocks.fenced(found.passwords[grant.id])]
    if forward is not None:
        lines += [f"Or forward `localhost:{local_port}` yourself:", blocks.fenced(forward(grant, local_port))]
    return "\n".join(lines)
