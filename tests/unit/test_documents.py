"""The documents: valid, small enough, published once, and their parameters proof against a real shell."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from moto import mock_aws

from access.errors import InvalidInputError
from provisioning.documents import (
    MOST_BYTES,
    SCRIPTS,
    Document,
    DocumentsClient,
    Finding,
    Problem,
    check,
    create_document,
    documents,
    linux_documents,
    publish,
    remove_document,
    sweeper_program,
)
from provisioning.parameters import ATTEMPT, CREATE_ONLY, REQUEST_ID, USER_NAME, Parameter

ED25519 = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAbQ6kKZAa3YLcDNc1ZXMIyrvbO+h5ZhBAF1Kzv/bYFs"
P256 = (
    "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBClZ+e7AvQiTHcXDmk36QhOJBA"
    "//uK2MmueGSPBy/ekZXPZQEu0gZUenxEHh99m+sJvKhdhLjun5RP+x08fj3h0="
)
GOOD = {
    "RequestId": "AR-7F3K",
    "Attempt": "1",
    "UserName": "pp-7f3k",
    "NotAfter": "1795230488",
    "Sudo": "all",
    "CaPublicKey": ED25519,
    "CaGeneration": "3",
    "Forwarding": "no",
    "Metadata": "closed",
    "KeepHome": "0",
    "UidFirst": "200000",
    "UidLast": "524287",
}
TABLE = {parameter.name: parameter for parameter in (REQUEST_ID, ATTEMPT, USER_NAME, *CREATE_ONLY)}
SHELLCHECK = str(Path(sys.executable).with_name("shellcheck"))
SHELLS = [["sh"], ["bash", "--posix"], ["busybox", "sh"], ["mksh"], ["yash", "-o", "posixlycorrect"]]


@pytest.mark.parametrize("file", sorted(SCRIPTS.glob("*.sh")), ids=lambda file: file.name)
def test_shellcheck_finds_nothing(file: Path) -> None:
    done = subprocess.run([SHELLCHECK, "-s", "sh", str(file)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell[0])
@pytest.mark.parametrize(
    "program",
    [*(document.script for document in linux_documents()), sweeper_program()],
    ids=["create", "remove", "probe", "sweep"],
)
def test_the_whole_programs_parse(program: str, shell: list[str]) -> None:
    done = subprocess.run([*shell, "-n"], input=program, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    "program",
    [*(document.script for document in linux_documents()), sweeper_program()],
    ids=["create", "remove", "probe", "sweep"],
)
def test_the_whole_programs_have_every_function_that_they_call(program: str) -> None:
    defined = re.compile(r"^([a-z_0-9]+)\(\) [{(]", re.MULTILINE)
    known = {name for file in SCRIPTS.glob("*.sh") for name in defined.findall(file.read_text())}
    unquoted = re.sub(r"'[^'\n]*'", "", program)
    called = {name for name in known if re.search(rf"(?<![\w$./-]){name}(?![\w=()-])", unquoted)}
    assert called
    assert called - set(defined.findall(program)) == set()


@pytest.mark.parametrize("document", linux_documents(), ids=lambda document: document.name)
def test_a_document_is_what_systems_manager_takes(document: Document) -> None:
    content = json.loads(document.content)
    assert content["schemaVersion"] == "2.2"
    assert len(document.content.encode()) <= MOST_BYTES
    step = content["mainSteps"][0]
    assert step["action"] == "aws:runShellScript"
    assert "\n".join(step["inputs"]["runCommand"]) + "\n" == document.script
    for name, declared in content["parameters"].items():
        assert declared["type"] == "String"
        assert declared["interpolationType"] == "ENV_VAR"
        assert declared["allowedPattern"] == TABLE[name].pattern
        assert declared["allowedPattern"].startswith("^")
        assert declared["allowedPattern"].endswith("$")
        assert "default" not in declared or re.fullmatch(declared["allowedPattern"], declared["default"])
    expanded = re.findall(r"\{\{.*?\}\}", document.script)
    assert expanded == [f"{{{{ {name} }}}}" for name in content["parameters"]]


def test_the_content_is_the_same_each_time() -> None:
    assert [document.content_hash for document in documents()] == [document.content_hash for document in documents()]
    assert create_document("Other-").name == "Other-CreateUser"


def test_good_values_pass_and_defaults_are_filled_in() -> None:
    assert create_document().values(GOOD) == {name: [value] for name, value in GOOD.items()}
    sent = remove_document().values({"RequestId": "AR-7F3K", "UserName": "pp-7f3k"})
    assert sent["Attempt"] == ["1"]
    both = create_document().values({**GOOD, "CaPublicKey": f"{ED25519},{P256}"})
    assert both["CaPublicKey"] == [f"{ED25519},{P256}"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(
            ("RequestId", value)
            for value in ("", "AR-", "AR-7f3k", "AR-7F3K\n", "AR-7F3K;id", "AR-123456789", "{{ x }}")
        ),
        *(
            ("UserName", value)
            for value in ("root", "pp-", "pp-7F3K", "pp-7f3k\n", "pp-../..", "pp-123456789", "pp-７f3k")
        ),
        *(("NotAfter", value) for value in ("0", "-1795230488", "1795230488.5", "١٧٩٥٢٣٠٤٨٨", "999999999")),
        *(("Sudo", value) for value in ("ALL", "none\nall", "")),
        *(
            ("CaPublicKey", value)
            for value in (f"{ED25519} x", f"cert-authority {ED25519}", ED25519[:-1], f"{ED25519},")
        ),
        *(("CaGeneration", value) for value in ("0", "-1", "1.5", "1\n", "1234567890", "")),
        *(("UidFirst", value) for value in ("0", "1000", "999")),
        ("Unknown", "x"),
    ],
)
def test_bad_values_are_refused_before_they_are_sent(name: str, value: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        create_document().values({**GOOD, name: value})
    assert refused.value.field == name


def test_a_missing_value_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="UserName"):
        remove_document().values({"RequestId": "AR-7F3K"})


# -- a real shell ------------------------------------------------------------------------------------------------

HOSTILE = st.one_of(
    st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), max_size=40),
    st.sampled_from(
        [
            *("$(touch canary)", "`touch canary`", "'; touch canary; '", '"; touch canary; "', "x\ntouch canary\n"),
            *("${IFS}touch${IFS}canary", "$(( a[$(touch canary)] ))", "\\$(touch canary)", "-e", "--", "-n x", "%s%n"),
            *("*", "/*", "~root", "{{ ssm:secret }}", "\u202eroot", "'$(touch canary)'", "x'$(touch canary)", "!!"),
        ]
    ),
)
NAMES = st.sampled_from(sorted(TABLE))


@st.composite
def near_misses(draw: st.DrawFn) -> tuple[str, str]:
    """A parameter and something that is almost, exactly, or not at all right for it."""
    name = draw(NAMES)
    right = draw(st.from_regex(TABLE[name].pattern, fullmatch=True, alphabet=st.characters(codec="ascii")))
    bad = draw(HOSTILE)
    return name, draw(st.sampled_from([right, right + bad, bad + right, right.rstrip("\n") + "\n", bad]))


@pytest.fixture(scope="module")
def workshop() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp())
    yield folder
    shutil.rmtree(folder)


def _checking_program(folder: Path) -> str:
    """The create document's first part: it takes the parameters, checks them, and says what it took."""
    head = create_document().script.split("SHARED=")[0]
    common = (SCRIPTS / "common.sh").read_text()
    said = "\n".join(f"printf '%s\\0' \"${parameter.variable}\" >&4" for parameter in TABLE.values())
    return f"{head}{common}\ncd '{folder}'\nexec 4>taken\nbegin_answer create\ncheck_parameters\n{said}\nend_answer\n"


def _run(program: str, environment: dict[str, str], folder: Path, shell: list[str]) -> tuple[str, list[str]]:
    (folder / "script").write_text(program)
    done = subprocess.run(
        [*shell, str(folder / "script")],
        env={"PATH": os.environ["PATH"], **environment},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert not (folder / "canary").exists()
    return done.stdout, (folder / "taken").read_text().split("\0")[:-1]


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell[0])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=near_misses())
def test_the_script_checks_what_arrives_in_the_environment(
    workshop: Path, shell: list[str], case: tuple[str, str]
) -> None:
    name, value = case
    environment = {f"SSM_{each}": good for each, good in {**GOOD, name: value}.items()}
    output, taken = _run(_checking_program(workshop), environment, workshop, shell)
    if _passes(TABLE[name], value):
        assert output == "passport:1:create\npassport:end:ok\n"
        assert taken == [{**GOOD, name: value}[each] for each in TABLE]
    else:
        assert output.endswith(f"detail={name}\npassport:end:failed:parameters\n")
        assert taken == []


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell[0])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=near_misses())
def test_older_agents_put_the_same_values_into_the_text(
    workshop: Path, shell: list[str], case: tuple[str, str]
) -> None:
    name, value = case
    if not _passes(TABLE[name], value):
        with pytest.raises(InvalidInputError):
            create_document().values({**GOOD, name: value})
        return
    program = _checking_program(workshop)
    for each, parameters in create_document().values({**GOOD, name: value}).items():
        program = program.replace(f"{{{{ {each} }}}}", parameters[0])
    output, taken = _run(program, {}, workshop, shell)
    assert output == "passport:1:create\npassport:end:ok\n"
    assert taken == [{**GOOD, name: value}[each] for each in TABLE]


def _passes(parameter: Parameter, value: str) -> bool:
    return re.fullmatch(parameter.pattern, value) is not None and "\n" not in value


# -- publishing --------------------------------------------------------------------------------------------------


@pytest.fixture
def systems_manager(monkeypatch: pytest.MonkeyPatch) -> Iterator[DocumentsClient]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with mock_aws():
        yield boto3.client("ssm", region_name="eu-west-1")


def test_publishing_creates_then_changes_nothing(systems_manager: DocumentsClient) -> None:
    names = [
        *("Passport-CreateUser", "Passport-RemoveUser", "Passport-Probe"),
        *("Passport-CreateWindowsUser", "Passport-RemoveWindowsUser", "Passport-ProbeWindows"),
    ]
    assert check(systems_manager) == [Finding(document=name, problem=Problem.MISSING) for name in names]
    assert publish(systems_manager) == names
    assert check(systems_manager) == []
    assert publish(systems_manager) == []


def test_a_changed_document_is_found_and_mended(systems_manager: DocumentsClient) -> None:
    publish(systems_manager)
    name = "Passport-RemoveUser"
    changed = json.loads(remove_document().content)
    changed["mainSteps"][0]["inputs"]["runCommand"] = ["true"]
    systems_manager.update_document(
        Name=name, Content=json.dumps(changed), DocumentVersion="$LATEST", DocumentFormat="JSON"
    )
    systems_manager.update_document_default_version(Name=name, DocumentVersion="2")

    found = check(systems_manager)
    assert [(finding.document, finding.problem) for finding in found] == [(name, Problem.DIFFERS)]
    assert "publish" in found[0].sentence
    assert publish(systems_manager) == [name]
    assert check(systems_manager) == []


def test_a_right_version_that_is_not_the_default_becomes_it(systems_manager: DocumentsClient) -> None:
    publish(systems_manager)
    name = "Passport-Probe"
    right = next(document for document in documents() if document.name == name).content
    wrong = right.replace("Says whether", "Tells whether")
    systems_manager.update_document(Name=name, Content=wrong, DocumentVersion="$LATEST", DocumentFormat="JSON")
    systems_manager.update_document_default_version(Name=name, DocumentVersion="2")
    right_again = right.replace("Says whether", "Says  whether")
    systems_manager.update_document(Name=name, Content=right_again, DocumentVersion="$LATEST", DocumentFormat="JSON")
    assert publish(systems_manager) == [name]
    assert check(systems_manager) == []


def test_other_prefixes_are_other_documents(systems_manager: DocumentsClient) -> None:
    publish(systems_manager, prefix="Staging-")
    assert check(systems_manager, prefix="Staging-") == []
    assert len(check(systems_manager)) == 6
