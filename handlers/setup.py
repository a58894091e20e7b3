"""Setting a laptop up, once: a line to paste, with no secret in it."""

from access.errors import NotFoundError
from handlers import blocks
from handlers.replies import Reply
from handlers.surface import Surface
from handlers.turn import Turn

_NO_KEY = (
    "Register your public key first: /passport key add and the line of ~/.ssh/id_ed25519.pub. "
    "Then say /passport setup again."
)


class Setup:
    """``/passport setup``."""

    def __init__(self, surface: Surface) -> None:
        self._surface = surface

    def lines(self, turn: Turn) -> Reply:
        """A line for each system, naming the person's keys; raises NotFoundError where there is none."""
        keys = self._surface.keys.all(turn.caller)
        if not keys:
            raise NotFoundError(_NO_KEY)
        named = " ".join(key.fingerprint for key in reversed(keys))  # certificates are made for the newest first
        folder = f"{self._surface.home}/workstation"
        intro = (
            "Paste one line in a terminal on your laptop, once. There is no secret in it. It installs a small script "
            "and a line in `~/.ssh/config`; it wants AWS's Session Manager plugin."
        )
        after = "From then on, for whatever is open: `ssh web-1.passport`, scp, rsync, your editor. With your own key."
        seen = (
            blocks.section(intro),
            blocks.section("macOS, Linux, WSL:"),
            *blocks.code(f"curl -fsSL {folder}/install.sh | sh -s -- {named}"),
            blocks.section("Windows, in PowerShell:"),
            *blocks.code(f"& ([scriptblock]::Create((irm {folder}/install.ps1))) {named}"),
            blocks.context(after),
        )
        return Reply(sentence="Paste one of these lines in a terminal on your laptop, once.", blocks=seen)
