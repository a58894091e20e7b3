"""The PowerShell that runs on people's laptops: parsed, held to an allow-list, and its patterns tried out."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.unit.test_powershell import PARSER, nodes, text, uses

FILES = Path(__file__).parents[2] / "bot" / "workstation" / "files"
PROGRAMS = {path.stem: path.read_text() for path in sorted(FILES.glob("*.ps1"))}
CONNECT = PROGRAMS["passport-connect"]

# Everything that they may ask of Windows: what is not here stops the build, and so does what is no longer used.
ALLOWED = {
    "commands": {"Add-Type", "New-Object", "New-TimeSpan", "Start-Sleep", "Write-Host"},
    "objects": {
        *("'System.Collections.Generic.Dictionary[string,string]'", "System.Diagnostics.ProcessStartInfo"),
        *("System.Net.Http.FormUrlEncodedContent", "System.Net.Http.HttpClient", "System.Net.Http.HttpClientHandler"),
        *("System.Text.UTF8Encoding", "System.Threading.Mutex"),
    },
    "types": {
        *("Activator", "Console", "DateTimeOffset", "Diagnostics.Process", "Environment", "IO.Directory", "IO.File"),
        *("IO.Path", "Math", "Net.ServicePointManager", "NullString", "System.Threading.AbandonedMutexException"),
        *("Type", "bool", "char", "hashtable", "int", "long", "string", "string[]"),
    },
    "methods": {
        *("Add", "Close", "Contains", "ContainsKey", "Copy", "CreateDirectory", "CreateInstance", "Delete", "EndsWith"),
        *("Exists", "GetAsync", "GetAwaiter", "GetDirectoryName", "GetFileNameWithoutExtension", "GetFiles"),
        *("GetFolder", "GetRandomFileName", "GetResult", "GetTypeFromProgID", "IndexOf", "Join", "Max", "Min", "Move"),
        *("PostAsync", "ReadAllLines", "ReadAllText", "ReadAsStringAsync", "ReadLine", "ReadToEnd", "ReleaseMutex"),
        *("Replace", "Split", "Start", "StartsWith", "Substring", "ToLowerInvariant", "ToUnixTimeSeconds", "Trim"),
        *("TrimEnd", "WaitForExit", "WaitOne", "WriteAllText", "WriteLine"),
    },
    "paths": set(),
    "wrong": set(),
}
PROGRAM_FILES = {"ssh-keygen.exe", "ssh-add.exe", "mstsc.exe", "powershell.exe", "session-manager-plugin.exe"}


def test_they_use_what_the_allow_list_has_and_nothing_else() -> None:
    found = [uses(program) for program in PROGRAMS.values()]
    assert len(found) == 2
    assert {kind: set().union(*(each[kind] for each in found)) for kind in found[0]} == ALLOWED


def test_they_start_these_programs_by_their_full_names() -> None:
    lines = [line for program in PROGRAMS.values() for line in program.splitlines() if not line.startswith("#")]
    named = {word for line in lines for word in re.findall(r"[\w-]+\.exe", line)}
    assert named == PROGRAM_FILES
    for line in lines:
        if ".exe'" in line and "-Program '" not in line:
            assert re.search(r"\$env:(SystemRoot|ProgramFiles)|\$OpenSsh", line), line


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_they_are_ascii_and_end_with_the_line_that_says_they_are_whole(program: str) -> None:
    assert program.isascii()
    assert re.search(r"\n# end of (install|passport-connect)\n\Z", program)


def patterns() -> dict[str, str]:
    """The table of patterns, by field; .NET and Python agree on all that they use, but for the anchor at the end."""
    found = re.findall(r"(?m)^    '([a-z_]+)' = '(.+)'$", CONNECT)
    assert len(found) == 14
    return {field: pattern.replace(r"\z", r"\Z") for field, pattern in found}


KEY = "AAAAC3NzaC1lZDI1NTE5AAAAIMbvRjr6W5dnNqkIuGsyZ9zXfu7rXo6e1O6q4cQ0aO2D"
RIGHT = {
    "request": ["AR-7F3K"],
    "user": ["pp-7f3k"],
    "alias": ["passport-i-0a1b2c3d4e5f60718", "passport-mi-0a1b2c3d4e5f60718"],
    "port": ["1", "22", "9999", "10000", "59999", "65535"],
    "valid_before": ["1795598131"],
    "certificate": [f"ssh-ed25519-cert-v01@openssh.com {KEY}", f"sk-ssh-ed25519-cert-v01@openssh.com {KEY}"],
    "host_key": [f"ssh-ed25519 {KEY}", f"ecdsa-sha2-nistp256 {KEY}"],
    "forwarding": ["yes", "no"],
    "region": ["eu-west-1", "us-gov-east-1"],
    "response": ['{"SessionId":"x","StreamUrl":"wss://a/?b=c&d=e","TokenValue":"A+/="}'],
    "parameters": ['{"Target":"i-0a1b2c3d","DocumentName":"AWS-StartSSHSession","Parameters":{"portNumber":["22"]}}'],
    "endpoint": ["https://ssm.eu-west-1.amazonaws.com", "http://127.0.0.1:8080/"],
    "challenge": ["aZ09._~=-"],
    "retry_in": ["5"],
}
WRONG = {
    "request": ["AR-7F3K\n", "AR-7F3K/..", "ar-7f3k", ""],
    "user": ["root", "pp-7F3K", "pp-7f3k\nProxyCommand x", "pp-7f3k'", ""],
    "alias": ["*", "passport-*", "passport-i-0a1b2c3d ", "@cert-authority *"],
    "port": ["0", "65536", "70000", "22 ", "-1", "022", ""],
    "valid_before": ["", "soon", "-1", "1\n"],
    "certificate": [
        f"ssh-ed25519 {KEY}",
        f"ssh-ed25519-cert-v01@openssh.com {KEY} x",
        "",
        f"ssh-dss-cert-v01@openssh.com {KEY}",
    ],
    "host_key": [f"@cert-authority * ssh-ed25519 {KEY}", f"ssh-ed25519 {KEY}\n", f"ssh-ed25519 {KEY} x", "*", ""],
    "forwarding": ["maybe", "", "yes\n"],
    "region": ["eu-west-1; calc", "", "--help"],
    "response": ["", "{\n}", "x", '{"a":"\u00e9"}'],
    "parameters": ['{"a":"\\"}', '{"a":"%PATH%"}', "", "{\n}"],
    "endpoint": ["https://a b", "file:///x", "http://evil/", 'https://a"', ""],
    "challenge": ["", "a b", "a\n", "x" * 1001],
    "retry_in": ["", "x", "12345", "-1"],
}


def test_the_patterns_take_what_passport_says_and_nothing_else() -> None:
    found = patterns()
    assert set(found) == set(RIGHT) == set(WRONG)
    for field, pattern in found.items():
        assert [value for value in RIGHT[field] if not re.search(pattern, value)] == [], field
        assert [value for value in WRONG[field] if re.search(pattern, value)] == [], field


def test_every_field_that_becomes_a_file_or_a_word_is_matched_first() -> None:
    """Whatever of an answer is used is in the table; the message is only ever shown, cleaned."""
    used = set(re.findall(r"\$Answer\['([a-z_]+)'\]", CONNECT))
    assert used - set(patterns()) == {"status", "message"}
    assert CONNECT.count("$Answer['message']") == 1
    assert "Get-Clean -Text ([string]$Answer['message'])" in CONNECT


def test_the_session_goes_by_the_environment() -> None:
    root = PARSER.parse(CONNECT.encode()).root_node
    lines = [text(node) for node in nodes(root) if node.type == "pipeline" and "'response'" in text(node)]
    assert "$start.EnvironmentVariables['AWS_SSM_START_SESSION_RESPONSE'] = $Answer['response']" in lines
    assert not [line for line in lines if "Arguments" in line]


def test_ssh_reads_the_configuration_and_leaves_names_alone_that_a_shell_would_act_upon(tmp_path: Path) -> None:
    config = tmp_path / "config"
    windows = (FILES / "ssh_config_windows").read_text()
    config.write_text(windows.replace("@POWERSHELL@", "/bin/echo").replace("@CONNECT@", "x"))

    def proxy(name: str) -> bool:
        done = subprocess.run(["ssh", "-G", "-F", config, name], capture_output=True, text=True, check=False)
        return done.returncode == 0 and "proxycommand" in done.stdout

    assert proxy("web-1.passport")
    assert proxy("Web_1.Prod.passport")
    assert not proxy("web-1.example.com")
    for character in "&|<>^%'`$();! ":
        assert not proxy(f"a{character}b.passport"), character
