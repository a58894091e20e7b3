"""The PowerShell programs of Passport's documents: put together from the scripts, parameters taken first."""

from collections.abc import Sequence
from pathlib import Path

from provisioning.parameters import Parameter

SCRIPTS = Path(__file__).with_name("scripts")
SWEEPER = ("common", "removal", "sweep")


def program(parameters: Sequence[Parameter], modules: Sequence[str], *, carries_sweeper: bool = False) -> str:
    """The whole program as the server runs it; raises ValueError for a script that cannot be carried so."""
    carried = f"$Sweeper = @'\n{sweeper()}'@\n" if carries_sweeper else ""
    return take_parameters(parameters) + carried + "".join(module(name) for name in modules)


def sweeper() -> str:
    """What create leaves on the server for its task to run."""
    return "".join(module(name) for name in SWEEPER)


def module(name: str) -> str:
    """One script without its comments, for a document's room is small.

    Raises ValueError if Systems Manager or the string that carries it would read something in it.
    """
    text = (SCRIPTS / f"{name}.ps1").read_text(encoding="ascii")
    if "{{" in text:
        raise ValueError(f"{name}.ps1 holds two braces in a row, which Systems Manager expands")
    if any(line.startswith("'@") for line in text.splitlines()):
        raise ValueError(f"{name}.ps1 has a line that ends a here-string")
    kept = (line for line in text.splitlines(keepends=True) if line.strip() and not line.lstrip().startswith("#"))
    return "".join(kept)


def take_parameters(parameters: Sequence[Parameter]) -> str:
    """Lines that take each value from the environment, or from the text where an older agent put it.

    Such an agent puts the value between the quotes; AWS has matched it against the pattern by then, and no pattern
    admits a quote.
    """
    lines = []
    for each in parameters:
        lines.append(f"${each.name} = $env:SSM_{each.name}")
        lines.append(f"if ($null -eq ${each.name}) {{ ${each.name} = '{{{{ {each.name} }}}}' }}")
    checks = [f"    Test-Parameter -Name '{p.name}' -Value ${p.name} -Pattern '{p.pattern}'" for p in parameters]
    return "\n".join([*lines, "function Test-Parameters {", *checks, "}"]) + "\n"
