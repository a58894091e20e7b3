"""What import-linter cannot say: `access` imports nothing outside the standard library."""

import ast
import sys
from pathlib import Path

ACCESS = Path(__file__).parents[2] / "access"


def test_access_imports_only_the_standard_library_and_itself() -> None:
    allowed = sys.stdlib_module_names | {"access"}
    for path in ACCESS.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}: relative import"
                names = [node.module or ""]
            for name in names:
                assert name.split(".")[0] in allowed, f"{path} imports {name}"
