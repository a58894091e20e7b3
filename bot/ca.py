"""``passport ca show | rotate``: the certificate authority's keys, and their change."""

import os
import pwd
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime

from access.authorities import FILE, Authority, AuthorityRole
from access.errors import InvalidInputError, NotFoundError, RefusedError
from access.service.rotating import AuthorityStanding, Hold, Operator, Rotating
from access.words import join_words
from bot import wiring
from bot.authority import AuthorityKeys, on_record
from bot.settings import Settings


def show(settings: Settings) -> int:
    """Every key, what it is for, and the servers that depend on it."""
    with _rotating(settings) as (rotating, _):
        found = rotating.standing()
    if not found:
        print("There is no key yet: `passport serve` makes it at its first start.")
    rotates = any(standing.authority.role is AuthorityRole.NEXT for standing in found)
    for standing in found:
        for line in _lines(standing, rotates=rotates):
            print(line)
    return 0


def rotate(settings: Settings) -> int:
    """Start a rotation; running processes notice at once."""
    with _rotating(settings) as (rotating, keys):
        with _made(keys) as new:
            made = rotating.start(new)
        holds = [hold for standing in rotating.standing() if standing.authority != made for hold in standing.only]
    print(f"The rotation has begun. The next key is {made.fingerprint}, in {_place(made)}.")
    print("Servers that are opened from now on trust both keys.")
    if holds:
        print(f"{_open_with_old(holds)} When they are closed: passport ca rotate --finish")
    else:
        print("No open server depends on the former key. Go on: passport ca rotate --finish")
    return 0


def finish(settings: Settings) -> int:
    """Finish the rotation; the former key is taken away."""
    with _rotating(settings) as (rotating, keys):
        for standing in rotating.standing():
            if standing.authority.role is AuthorityRole.NEXT:
                keys.find(standing.authority).prove()  # else nothing could be signed afterwards
        old = rotating.finish()
        keys.forget(old)
    print(f"The rotation is finished. {old.fingerprint} signs no more{_taken_away(old)}")
    return 0


def abort(settings: Settings) -> int:
    """Call the rotation off; the next key is taken away."""
    with _rotating(settings) as (rotating, keys):
        new = rotating.abort()
        keys.forget(new)
    print(f"The rotation is called off. {new.fingerprint} signs no more{_taken_away(new)}")
    return 0


def compromised(settings: Settings, reason: str) -> int:
    """Replace the key at once, and end all access that trusts it; raises InvalidInputError without a reason."""
    if not reason.strip():
        raise InvalidInputError('Say why: passport ca rotate --compromised "what happened"')
    with _rotating(settings) as (rotating, keys):
        with _made(keys) as new:
            ended = rotating.replace_at_once(new, reason=" ".join(reason.split()))
        found = rotating.standing()
        for standing in found:
            if standing.authority.role is AuthorityRole.RETIRED:
                keys.forget(standing.authority)
    print(f"Replaced. The key is {new.fingerprint}, in {_place(new)}; no other one signs any more.")
    what = "1 open request is" if len(ended) == 1 else f"{len(ended)} open requests are"
    print(f"{what} being ended; the servers forget the old key with them.")
    for standing in found:
        if standing.authority.role is AuthorityRole.RETIRED and standing.authority.place != FILE:
            print(f"Disable the old key in AWS: aws kms disable-key --key-id {standing.authority.place}")
    print("Watch it with: passport ca show")
    return 0


@contextmanager
def _rotating(settings: Settings) -> Iterator[tuple[Rotating, AuthorityKeys]]:
    """The use cases on a migrated database, beside a running server."""
    from storage.migrations import check

    check(settings.database_url)
    store = wiring.open_store(settings, exclusive=False)
    try:
        yield (
            Rotating(store, operator=Operator(name=operator_name()), clock=wiring.now),
            AuthorityKeys(settings, wiring.sealer(settings)),
        )
    finally:
        store.close()


@contextmanager
def _made(keys: AuthorityKeys) -> Iterator[Authority]:
    """A new key; what was made for nothing is taken away, unless it may be on record."""
    key, place = keys.make()
    new = on_record(key, place, AuthorityRole.NEXT, 1, clock=wiring.now)
    try:
        yield new
    except (RefusedError, NotFoundError):
        keys.forget(new)
        raise


def operator_name() -> str:
    """Who runs this command: the account behind sudo, or the process's own."""
    try:
        return os.environ.get("SUDO_USER") or pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # in a container
        return f"uid {os.getuid()}"


def _lines(standing: AuthorityStanding, *, rotates: bool) -> Iterator[str]:
    authority = standing.authority
    yield f"{authority.role.value:<8} {authority.fingerprint} since {_time(authority.since)}, in {_place(authority)}"
    if authority.role is AuthorityRole.RETIRED:
        yield f"         retired {_time(authority.changed_at)}; {_trusted(standing.trusting)}"
        return
    yield f"         {authority.public_key}"
    if authority.role is AuthorityRole.NEXT:
        yield "         signs for servers that were opened since then"
    elif not rotates:
        yield "         signs for every server"
    elif standing.only:
        yield f"         signs for what was open before. {_open_with_old(standing.only)}"
    else:
        yield "         no open server depends on it any more: passport ca rotate --finish"


def _open_with_old(holds: Sequence[Hold]) -> str:
    what = "1 open server trusts" if len(holds) == 1 else f"{len(holds)} open servers trust"
    return f"{what} only this one, the last until {_last(holds)}: {_named(holds)}."


def _trusted(holds: Sequence[Hold]) -> str:
    if not holds:
        return "no server trusts it any more"
    count = "1 server still trusts" if len(holds) == 1 else f"{len(holds)} servers still trust"
    return f"{count} it, and will not after {_last(holds)}: {_named(holds)}"


def _named(holds: Sequence[Hold]) -> str:
    return join_words([f"{hold.server} ({hold.request_id})" for hold in holds])


def _last(holds: Sequence[Hold]) -> str:
    return _time(max(hold.until for hold in holds if hold.until is not None))


def _taken_away(authority: Authority) -> str:
    if authority.place == FILE:
        return "; its file is taken away."
    return f". Disable it in AWS: aws kms disable-key --key-id {authority.place}"


def _place(authority: Authority) -> str:
    return "a sealed file" if authority.place == FILE else authority.place


def _time(instant: datetime) -> str:
    return f"{instant:%Y-%m-%d %H:%M} UTC"
