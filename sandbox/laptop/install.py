"""Puts the stand-ins into a folder for the PATH of a person's shell."""

from __future__ import annotations

import sys
from pathlib import Path

_ROOT = Path(__file__).parents[2]
# Without site packages and the caller's PYTHON… variables: it starts in half the time.
_PROGRAM = """#!{python} -IS
import sys

sys.path.insert(0, {root!r})
from sandbox.laptop.{module} import main

sys.exit(main(sys.argv[1:]))
"""


def install(folder: Path) -> Path:
    """Write `aws` and `session-manager-plugin`; answers the path of the former."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, module in (("session-manager-plugin", "plugin"), ("aws", "aws_command")):
        program = folder / name
        program.write_text(_PROGRAM.format(python=sys.executable, root=str(_ROOT), module=module))
        program.chmod(0o755)
    return folder / "aws"
