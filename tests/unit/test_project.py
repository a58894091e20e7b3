"""The files around the code say what is so."""

import configparser
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PRODUCT = {"access", "bot", "handlers", "identity", "provisioning", "storage"}
PINS = re.compile(r"(?m)^([A-Za-z0-9._-]+)==(\S+)((?: \\\n    --hash=sha256:[0-9a-f]{64})+)$")


def read(name: str) -> str:
    return (ROOT / name).read_text()


def pins(name: str) -> dict[str, str]:
    """The packages of a lock with their versions."""
    return {canonicalize_name(found[1]): found[2] for found in PINS.finditer(read(name))}


def project() -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads(read("pyproject.toml"))
    return found


# --- Locks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-dev.lock"])
def test_a_lock_is_pins_with_hashes_and_nothing_else(name: str) -> None:
    rest = [
        line for line in PINS.sub("", read(name)).splitlines() if line.strip() and not line.lstrip().startswith("#")
    ]
    assert rest == []
    assert len(pins(name)) > 20


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-dev.lock"])
def test_a_lock_names_no_address(name: str) -> None:
    for forbidden in ("://", "--index", "--extra-index", "--trusted-host", "--find-links", " @ ", "file:/"):
        assert forbidden not in read(name)


def test_both_locks_pin_the_same_versions() -> None:
    shared, developing = pins("requirements.lock"), pins("requirements-dev.lock")
    assert {name: developing.get(name) for name in shared} == shared


@pytest.mark.parametrize(("lock", "extras"), [("requirements.lock", []), ("requirements-dev.lock", ["dev"])])
def test_the_ranges_cover_what_is_locked(lock: str, extras: list[str]) -> None:
    listed = list(project()["project"]["dependencies"])
    for extra in extras:
        listed += project()["project"]["optional-dependencies"][extra]
    locked = pins(lock)
    for requirement in map(Requirement, listed):
        version = locked.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement} is not in {lock}"
        assert requirement.specifier.contains(version), f"{lock} has {requirement.name} {version}, not {requirement}"


def test_every_dependency_has_a_range() -> None:
    for requirement in map(Requirement, project()["project"]["dependencies"]):
        assert requirement.specifier, f"{requirement.name} has no range"


def test_what_must_carry_the_same_libxml2_is_pinned() -> None:
    pinned = [Requirement(text) for text in project()["project"]["dependencies"] if "==" in text]
    assert {requirement.name for requirement in pinned} == {"lxml", "xmlsec"}


# --- The image -----------------------------------------------------------------------------------------------------


def stages() -> list[str]:
    return re.split(r"(?m)^(?=FROM )", read("Dockerfile"))[1:]


def test_the_image_holds_the_product_and_nothing_else() -> None:
    copied = {
        source for line in re.findall(r"(?m)^COPY (?!--from)(.+) \S+$", read("Dockerfile")) for source in line.split()
    }
    assert copied == PRODUCT | {"requirements.lock", "pyproject.toml", "README.md"}
    assert all((ROOT / source).exists() for source in copied)


def test_the_image_installs_what_is_locked() -> None:
    assert "--require-hashes -r requirements.lock" in stages()[0]
    assert "pip install --no-cache-dir --no-deps ." in stages()[0]


def test_the_image_is_slim_and_does_not_run_as_root() -> None:
    last = stages()[-1]
    assert all(re.match(r"FROM python:3\.\d+-slim\b", stage) for stage in stages())
    users = re.findall(r"(?m)^USER (\S+)$", last)
    assert users == ["passport"]
    assert re.search(r"useradd .*--uid 10001\b.* passport", last)
    assert last.index("USER passport") < last.index("ENTRYPOINT")


def test_the_image_checks_its_own_health() -> None:
    last = stages()[-1]
    assert re.search(r"(?m)^HEALTHCHECK ", last)
    assert "http://127.0.0.1:8080/healthz" in last
    assert "PASSPORT_LISTEN=0.0.0.0:8080" in last
    assert "EXPOSE 8080" in last
    assert '@app.get("/healthz")' in read("bot/web.py")


def test_the_distribution_is_what_the_image_copies() -> None:
    found = project()["tool"]["setuptools"]["packages"]["find"]["include"]
    assert {pattern.rstrip("*") for pattern in found} == PRODUCT
    assert project()["project"]["scripts"] == {"passport": "bot.__main__:main"}


@pytest.mark.parametrize(
    ("package", "suffixes"),
    [("bot", {".html"}), ("provisioning", {".sh", ".ps1"}), ("storage", {".mako"})],
)
def test_files_that_are_no_modules_are_shipped(package: str, suffixes: set[str]) -> None:
    patterns = project()["tool"]["setuptools"]["package-data"][package]
    shipped = {path for pattern in patterns for path in (ROOT / package).glob(pattern)}
    needed = {path for path in (ROOT / package).rglob("*") if path.suffix in suffixes}
    assert needed
    assert needed <= shipped


# --- Imports -------------------------------------------------------------------------------------------------------


def contracts() -> list[dict[str, str]]:
    parser = configparser.ConfigParser()
    parser.read(ROOT / ".importlinter")
    return [dict(parser[name]) for name in parser.sections() if name.startswith("importlinter:contract:")]


def words(text: str) -> set[str]:
    return set(text.replace("|", " ").split())


def forbidden() -> Iterator[tuple[set[str], set[str]]]:
    for contract in contracts():
        if contract["type"] == "forbidden":
            yield words(contract["source_modules"]), words(contract["forbidden_modules"])


def test_the_house_has_its_layers() -> None:
    [layers] = [contract["layers"] for contract in contracts() if contract["type"] == "layers"]
    rows = [line.split() for line in layers.strip().splitlines()]
    assert rows == [["bot"], ["handlers", "|", "identity", "|", "provisioning", "|", "storage"], ["access"]]


def test_the_sandbox_and_the_product_know_nothing_of_each_other() -> None:
    assert ({"sandbox"}, PRODUCT) in list(forbidden())
    assert (PRODUCT, {"sandbox"}) in list(forbidden())


@pytest.mark.parametrize(
    ("library", "at_home"),
    [
        ("boto3", {"provisioning", "bot"}),
        ("sqlalchemy", {"storage", "bot"}),
        ("saml2", {"identity", "bot"}),
        ("slack_sdk", {"handlers", "bot"}),
    ],
)
def test_a_library_lives_in_one_place(library: str, at_home: set[str]) -> None:
    [kept_out] = [sources for sources, libraries in forbidden() if library in libraries]
    assert kept_out | at_home >= PRODUCT


# --- Slack's manifest and the README -------------------------------------------------------------------------------


def test_the_manifest_points_at_what_is_served() -> None:
    manifest: dict[str, Any] = yaml.safe_load(read("app_manifest.yml"))
    urls = set(re.findall(r"https://\S+", yaml.safe_dump(manifest)))
    assert urls == {"https://passport.example.com/slack/events"}
    assert '@app.post("/slack/events")' in read("bot/web.py")


def places() -> list[str]:
    """The paths in the README's table "Where does X happen"."""
    table = read("README.md").split("## Where does X happen")[1].split("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("|")][2:]
    return [path for row in rows for path in re.findall(r"`([^`]+)`", row.split("|")[2])]


def test_the_table_of_the_readme_names_places_that_exist() -> None:
    assert len(places()) >= 15
    assert [path for path in places() if not (ROOT / path).exists()] == []


def test_the_table_of_the_readme_leads_into_every_package() -> None:
    assert {path.split("/")[0] for path in places()} == PRODUCT | {"sandbox", "deploy"}


def test_links_of_the_documents_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_commands_of_the_readme_exist() -> None:
    targets = set(re.findall(r"(?m)^([a-z]+):", read("Makefile")))
    assert set(re.findall(r"(?m)(?:`|^)make ([a-z]+)", read("README.md"))) <= targets
    assert {"demo", "test", "check"} <= targets


def test_what_a_commit_must_pass_is_what_ci_runs() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    assert "make check" in script
    assert "make test" in script
    assert "| tail" not in script
