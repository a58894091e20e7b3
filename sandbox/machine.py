"""A person's own machine: a home that ssh, too, takes for theirs, in a mount namespace of its own; needs root.

ssh reads the home from the password file, whatever HOME says, so this machine has a password file of its own.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

_ENTER = """
mount --bind "$1" /etc/passwd || exit 125
[ -z "$2" ] || mount --bind "$2" "$(readlink -f /bin/sh)" || exit 125
shift 2
exec "$@"
"""


class Machine:
    """Runs commands as its person; ``sh`` is the program that is /bin/sh there, ``shell`` the login shell."""

    def __init__(
        self,
        home: Path,
        *,
        path: Sequence[Path] = (),
        sh: str = "",
        shell: str = "/bin/sh",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.home = home
        (home / ".ssh").mkdir(parents=True, exist_ok=True, mode=0o700)
        self._sh = sh
        self._passwd = home.parent / f"{home.name}.passwd"
        others = Path("/etc/passwd").read_text().splitlines()[1:]
        self._passwd.write_text("\n".join([f"root:x:0:0:{home.name}:{home}:{shell}", *others, ""]))
        self.environment = {
            "HOME": str(home),
            "USER": "root",
            "SHELL": shell,
            "PATH": ":".join([*(str(folder) for folder in path), "/usr/local/bin:/usr/bin:/bin"]),
            "LANG": "C.UTF-8",
            **(environment or {}),
        }

    def words(self, command: Sequence[str]) -> list[str]:
        """The words that run this command on the laptop."""
        unshare = ["unshare", "--mount", "--propagation", "private"]
        return [*unshare, "/bin/bash", "-c", _ENTER, "enter", str(self._passwd), self._sh, *command]

    def start(self, *command: str, **options: object) -> subprocess.Popen[str]:
        """Start a command; its output is collected as text."""
        return subprocess.Popen(  # type: ignore[call-overload,no-any-return]
            self.words(command),
            **{
                "env": self.environment,
                "cwd": self.home,
                "stdin": subprocess.DEVNULL,
                "stdout": subprocess.PIPE,
                "stderr": subprocess.PIPE,
                "text": True,
                **options,
            },
        )

    def run(self, *command: str, stdin: str = "", timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            self.words(command),
            env=self.environment,
            cwd=self.home,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
