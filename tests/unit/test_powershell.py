"""The PowerShell programs: parsed, held to an allow-list, small enough, and their password as the standard has it."""

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import tree_sitter
import tree_sitter_powershell
from hypothesis import given, settings
from hypothesis import strategies as st

from access.errors import InvalidInputError
from provisioning import powershell
from provisioning.documents import MOST_BYTES, SCRIPTS, Document, windows_documents
from provisioning.parameters import Parameter
from provisioning.refusals import SENTENCES, RefusalCode
from sandbox.windows import WindowsHost
from tests.unit import oaep

CREATE, REMOVE, PROBE = windows_documents()
PROGRAMS = {document.action: document.script for document in windows_documents()} | {"sweep": powershell.sweeper()}
INSTANCE = "i-0123456789abcdef0"
MODULUS = base64.b64encode(oaep.N.to_bytes(256)).decode()
PARSER = tree_sitter.Parser(tree_sitter.Language(tree_sitter_powershell.language()))

# Everything that the programs may ask of Windows. A command, type or member that is not here stops the build;
# so does one that is here and no longer used.
COMMANDS = {
    *("Add-LocalGroupMember", "Disable-LocalUser", "Enable-LocalUser", "Get-CimInstance", "Get-LocalGroup"),
    *("Get-LocalUser", "Get-ScheduledTask", "Get-Service", "Invoke-CimMethod", "New-LocalUser", "New-Object"),
    *("New-ScheduledTaskAction", "New-ScheduledTaskPrincipal", "New-ScheduledTaskSettingsSet"),
    *("New-ScheduledTaskTrigger", "New-TimeSpan", "Register-ScheduledTask", "Remove-CimInstance"),
    *("Remove-LocalGroupMember", "Remove-LocalUser", "Set-LocalUser", "Start-Sleep", "Stop-Process"),
    "Unregister-ScheduledTask",
}
OBJECTS = {
    *("System.Security.AccessControl.DirectorySecurity", "System.Security.Cryptography.RSACng", "byte[]"),
    *("System.Security.Cryptography.RSAParameters", "System.Security.SecureString"),
}
TYPES = {
    *("Array", "Console", "Convert", "DateTimeOffset", "IO.Directory", "IO.File", "Microsoft.Win32.Registry"),
    *("Security.Cryptography.RSAEncryptionPadding", "Security.Cryptography.RandomNumberGenerator"),
    *("Security.Principal.WindowsIdentity", "System.IO.IOException", "byte", "byte[]", "char", "int", "long"),
    *("Microsoft.PowerShell.Commands.MemberExistsException", "Microsoft.PowerShell.Commands.MemberNotFoundException"),
    "string",
}
METHODS = {
    *("AppendChar", "Clear", "Contains", "Create", "CreateDirectory", "CreateSubKey", "Delete", "DeleteSubKeyTree"),
    *("Dispose", "Encrypt", "Exists", "Flush", "FromBase64String", "FromUnixTimeSeconds", "GetBytes", "GetCurrent"),
    *("GetSubKeyNames", "GetValue", "ImportParameters", "MakeReadOnly", "Open", "OpenSubKey", "SetAccessControl"),
    *("SetSecurityDescriptorSddlForm", "SetValue", "Substring", "ToBase64String", "ToString", "ToUnixTimeSeconds"),
    *("Write", "WriteAllText"),
}
# A mistake, a value inside of a string, code as a value, and whatever else only a clever program needs.
FORBIDDEN = {
    *("ERROR", "expandable_string_literal", "expandable_here_string_literal", "sub_expression"),
    *("script_block_expression", "stop_parsing", "inlinescript_statement", "data_statement", "class_statement"),
    *("trap_statement", "switch_statement", "redirections"),
}
PATHS = {"$System + '\\quser.exe'", "$System + '\\logoff.exe'"}


def nodes(node: tree_sitter.Node) -> Iterator[tree_sitter.Node]:
    yield node
    for child in node.children:
        yield from nodes(child)


def text(node: tree_sitter.Node | None) -> str:
    assert node is not None and node.text is not None
    return node.text.decode()


def uses(program: str) -> dict[str, set[str]]:
    """What a program asks for, by kind; ``wrong`` holds what no program may do."""
    root = PARSER.parse(program.encode()).root_node
    found: dict[str, set[str]] = {kind: set() for kind in ("commands", "objects", "types", "methods", "paths", "wrong")}
    own = {text(each) for each in nodes(root) if each.type == "function_name"}
    for node in nodes(root):
        if node.type in FORBIDDEN or node.is_missing:
            found["wrong"].add(f"{node.type}: {text(node)}")
        elif node.type == "command":
            _command(node, own, found)
        elif node.type == "command_name" and node.parent is not None and node.parent.type != "command":
            found["commands"] |= {text(node)} - own
        elif node.type == "type_literal":
            found["types"].add(text(node)[1:-1])
        elif node.type == "invokation_expression":
            name = next(each for each in node.named_children if each.type == "member_name")
            # A member that is named by a value could be any member.
            found["methods" if name.named_children[0].type == "simple_name" else "wrong"].add(text(name))
    return found


def _command(node: tree_sitter.Node, own: set[str], found: dict[str, set[str]]) -> None:
    first = node.named_children[0]
    if first.type == "command_invokation_operator":
        target = text(node.named_children[1]).strip("()")
        found["paths" if text(first) == "&" else "wrong"].add(target)
        return
    name = text(first)
    if name not in own:
        found["commands"].add(name)
    if name == "New-Object":
        words = text(node).split()
        found["objects"].add(words[words.index("-TypeName") + 1])


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_a_program_parses_and_does_nothing_that_none_may(program: str) -> None:
    assert uses(program)["wrong"] == set()


def test_the_programs_use_what_the_allow_list_has_and_nothing_else() -> None:
    found = [uses(program) for program in PROGRAMS.values()]
    together = {kind: set().union(*(each[kind] for each in found)) for kind in found[0]}
    assert together == {
        "commands": COMMANDS,
        "objects": OBJECTS,
        "types": TYPES,
        "methods": METHODS,
        "paths": PATHS,
        "wrong": set(),
    }


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("Invoke-Expression $x", "commands"),
        ("iex $x", "commands"),
        ("ConvertTo-SecureString -String $x -AsPlainText -Force", "commands"),
        ("[ScriptBlock]::Create($x)", "types"),
        ("$x.Invoke()", "methods"),
        ("[IO.File]::$x('y')", "wrong"),
        ("& $x", "paths"),
        (". $x", "wrong"),
        ('net.exe user "$x"', "wrong"),
        ("Start-Process $x", "commands"),
        ("$a = { Get-Date }", "wrong"),
        ("New-Object -TypeName System.Net.WebClient", "objects"),
        ("if ($x {", "wrong"),
    ],
)
def test_the_check_finds_what_is_not_allowed(line: str, kind: str) -> None:
    allowed = {"commands": COMMANDS, "objects": OBJECTS, "types": TYPES, "methods": METHODS, "paths": PATHS}
    assert uses(line)[kind] - allowed.get(kind, set())


@pytest.mark.parametrize("file", sorted(SCRIPTS.glob("*.ps1")), ids=lambda file: file.name)
def test_scripts_are_ascii_and_free_of_double_braces(file: Path) -> None:
    content = file.read_text(encoding="ascii")
    assert "{{" not in content
    assert all(len(line) < 240 for line in content.splitlines())


@pytest.mark.parametrize("document", windows_documents(), ids=lambda document: document.name)
def test_a_document_is_what_systems_manager_takes(document: Document) -> None:
    content = json.loads(document.content)
    step = content["mainSteps"][0]
    assert step["action"] == "aws:runPowerShellScript"
    assert step["precondition"] == {"StringEquals": ["platformType", "Windows"]}
    assert "\n".join(step["inputs"]["runCommand"]) + "\n" == document.script
    for name, declared in content["parameters"].items():
        assert declared["interpolationType"] == "ENV_VAR"
        assert declared["allowedPattern"].startswith("^") and declared["allowedPattern"].endswith("$")
        assert (
            f"Test-Parameter -Name '{name}' -Value ${name} -Pattern '{declared['allowedPattern']}'" in document.script
        )
    places = re.findall(r"\{\{.*?\}\}", document.script)
    assert places == [f"{{{{ {name} }}}}" for name in content["parameters"]]


def test_fifty_servers_keys_fit_beside_the_document() -> None:
    keys = ",".join(f"i-{number:017x}:{MODULUS}" for number in range(50))
    values = CREATE.values(
        {"RequestId": "AR-7F3K", "UserName": "pp-7f3k", "NotAfter": "1795230488", "PublicKeys": keys}
    )
    assert len(CREATE.content) + len(json.dumps(values)) <= MOST_BYTES
    assert len(keys) < 32_767  # an environment variable of Windows


def test_no_name_is_longer_than_windows_takes() -> None:
    assert REMOVE.values({"RequestId": "AR-7F3K7F3K", "UserName": "pp-7f3k7f3k"})
    with pytest.raises(InvalidInputError):
        REMOVE.values({"RequestId": "AR-7F3K", "UserName": "pp-" + "7" * 18})
    too_long = powershell.program((), ("common", "password")) + (
        f"New-Password -Modulus '{MODULUS}' -Exponent 'AQAB'\n"
        f"$null = New-LocalUser -Name 'pp-{'7' * 18}' -Password $script:Secure -AccountExpires "
        "([DateTimeOffset]::UtcNow.LocalDateTime) -Description ''\n"
    )
    assert "too long" in WindowsHost("win-1", ticks=False).powershell(too_long, {})[1]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Administrator", "YES"),
        ("Administrator", "yes\n"),
        ("PublicExponent", "Aw=="),
        ("PublicKeys", MODULUS),
        ("PublicKeys", f"{INSTANCE}:{MODULUS[:-3]}'=="),
        ("PublicKeys", f"{INSTANCE}:{MODULUS},"),
        ("PublicKeys", f"{INSTANCE}:{MODULUS},{INSTANCE}:$(Get-Date)"),
        ("PublicKeys", ",".join([f"{INSTANCE}:{MODULUS}"] * 51)),
    ],
)
def test_bad_values_are_refused_before_they_are_sent(name: str, value: str) -> None:
    good = {
        "RequestId": "AR-7F3K",
        "UserName": "pp-7f3k",
        "NotAfter": "1795230488",
        "PublicKeys": f"{INSTANCE}:{MODULUS}",
    }
    assert CREATE.values(good)["Administrator"] == ["no"]
    with pytest.raises(InvalidInputError) as refused:
        CREATE.values({**good, name: value})
    assert refused.value.field == name


HOSTILE = st.one_of(
    st.text(alphabet="'\"`$(){};|&<>\\\n\r ’‘%@#AR-7F3K", max_size=30),
    st.sampled_from(["'; Stop-Computer; '", "AR-7F3K'", "AR-7F3K\n", "$(Get-Date)", "AR-7F3K’", "`n", "AR-7F3K\r\n"]),
)


@given(value=HOSTILE, by_text=st.booleans())
@settings(max_examples=100, deadline=None)
def test_a_value_arrives_whole_or_is_refused(value: str, by_text: bool) -> None:
    """By the environment, or as text between the quotes where nothing had checked it: it never becomes a command."""
    parameter = Parameter(name="RequestId", variable="x", pattern="^AR-[0-9A-Z]{4,8}$", says="")
    program = powershell.program((parameter,), ("common",)) + (
        "Open-Answer -Action 'probe'\nTest-Parameters\nWrite-Answer -Key 'value' -Value $RequestId\nClose-Answer\n"
    )
    environment = {"SSM_RequestId": value}
    if by_text:
        if "'" in value or "’" in value or "‘" in value:
            return  # no pattern admits a quote, and AWS has matched it by then
        program, environment = program.replace("{{ RequestId }}", value), {}
    host = WindowsHost("win-1", ticks=False)
    code, output, _ = host.powershell(program, environment)
    if re.fullmatch("AR-[0-9A-Z]{4,8}", value):
        assert (code, output) == (0, f"passport:1:probe\nvalue={value}\npassport:end:ok\n")
    else:
        assert (code, output.splitlines()[-1]) == (1, "passport:end:failed:parameters")
    assert host.unknown == []


def test_every_refusal_has_a_sentence() -> None:
    codes = {code for program in PROGRAMS.values() for code in re.findall(r"-Code '([a-z_]+)'", program)}
    assert {"domain_controller", "no_rdp", "no_scheduler", "tombstone", "foreign_account"} <= codes
    assert all(SENTENCES[RefusalCode(code)] for code in codes)


# -- the password -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("plain", oaep.VECTORS, ids=len)
def test_the_reader_of_these_tests_knows_the_standard(plain: bytes) -> None:
    assert oaep.read(bytes.fromhex(oaep.VECTORS[plain])) == plain


def sealed_password() -> tuple[str, str]:
    """A password as the script seals it, and as Windows was given it."""
    host = WindowsHost("win-1", ticks=False)
    modules = powershell.program((), ("common", "password"))
    script = modules + (
        f"New-Password -Modulus '{MODULUS}' -Exponent 'AQAB'\n"
        "$null = New-LocalUser -Name 'x' -Password $script:Secure -AccountExpires "
        "([DateTimeOffset]::FromUnixTimeSeconds(1).LocalDateTime) -Description ''\nWrite-Line -Text $script:Sealed\n"
    )
    code, output, errors = host.powershell(script, {})
    assert (code, errors, host.unknown) == (0, "", [])
    return output.strip(), host.machine.accounts["x"].password


def test_what_comes_back_opens_to_what_windows_was_given() -> None:
    sealed, password = sealed_password()
    assert oaep.read(base64.b64decode(sealed)).decode() == password
    assert len(base64.b64decode(sealed)) == 256


def test_passwords_are_long_mixed_and_never_the_same() -> None:
    passwords = {sealed_password()[1] for _ in range(30)}
    assert len(passwords) == 30
    for password in passwords:
        assert len(password) == 28
        assert re.search("[a-z]", password) and re.search("[A-Z]", password) and re.search("[0-9]", password)
        assert re.search("[^0-9A-Za-z]", password)
        assert not set(password) & set("`'\"<>&* ")  # nothing that a code block or a shell would change


def test_each_character_is_as_likely_as_any_other() -> None:
    alphabet = re.search(r"\$Alphabet = '(.*)'", (SCRIPTS / "password.ps1").read_text())
    assert alphabet is not None
    assert len(alphabet[1]) == len(set(alphabet[1])) == 64  # as many as six bits can say: no remainder to be biased


def test_no_password_is_ever_an_argument_or_a_string() -> None:
    """Module logging writes down the arguments of cmdlets, and a string cannot be wiped."""
    script = (SCRIPTS / "password.ps1").read_text() + (SCRIPTS / "create.ps1").read_text()
    assert "GetString" not in script
    assert set(re.findall(r"(?:New|Set)-LocalUser .*-Password (\S+)", script)) == {"$script:Secure"}
    assert len(re.findall(r"\s-Password ", script)) == 2
