"""The person's own public keys."""

from access.errors import InvalidInputError
from handlers.replies import Reply
from handlers.surface import Surface
from handlers.turn import Turn
from handlers.understood import AddKey, RemoveKey


class PublicKeys:
    """``/passport key add``, ``list`` and ``remove``."""

    def __init__(self, surface: Surface) -> None:
        self._surface = surface

    def add(self, turn: Turn, wanted: AddKey) -> Reply:
        """Register a key."""
        key = self._surface.parse_key(wanted.line)
        added = self._surface.keys.add(turn.caller, line=key.line, fingerprint=key.fingerprint)
        return Reply.plain(f"Your key {added.fingerprint} is registered. Certificates are made for your newest key.")

    def list(self, turn: Turn) -> Reply:
        """Show them."""
        keys = self._surface.keys.all(turn.caller)
        if not keys:
            return Reply.plain("You have no key yet. Add one: /passport key add ssh-ed25519 AAAA…")
        lines = [f"{key.fingerprint}  {key.line.split()[0]}, added {key.added_at:%d %b %Y %H:%M} UTC" for key in keys]
        return Reply.plain("\n".join(["Your keys, the newest last:", *lines]))

    def remove(self, turn: Turn, wanted: RemoveKey) -> Reply:
        """Forget one."""
        if not wanted.fingerprint:
            raise InvalidInputError("Say which: /passport key remove and its fingerprint; /passport key list shows it.")
        key = self._surface.keys.remove(turn.caller, wanted.fingerprint)
        return Reply.plain(f"The key {key.fingerprint} is forgotten. Certificates made for it end as planned.")
