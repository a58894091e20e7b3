"""The documents of Amazon's own that a client may name."""

from __future__ import annotations

import json
from typing import Any

from sandbox.aws.documents import Document, parse_content

# The patterns are those of the real documents: a port, and seconds up to two days.
PORT = "^([1-9]|[1-9][0-9]{1,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])$"
SECONDS = "([1-9][0-9]{0,4})|(1[0-6][0-9]{4})|(17[0-1][0-9]{3})|(172[0-7][0-9]{2})|(172800)"

RUN_SHELL_SCRIPT: dict[str, Any] = {
    "schemaVersion": "2.2",
    "description": "Run a shell script or specify the commands to run.",
    "parameters": {
        "commands": {"type": "StringList"},
        "workingDirectory": {"type": "String", "default": ""},
        "executionTimeout": {"type": "String", "default": "3600", "allowedPattern": SECONDS},
    },
    "mainSteps": [
        {
            "action": "aws:runShellScript",
            "name": "runShellScript",
            "inputs": {"runCommand": ["{{ commands }}"], "timeoutSeconds": "{{ executionTimeout }}"},
        }
    ],
}
START_SSH_SESSION: dict[str, Any] = {
    "schemaVersion": "1.0",
    "description": "Document to start SSH session over Session Manager",
    "sessionType": "Port",
    "parameters": {"portNumber": {"type": "String", "default": "22", "allowedPattern": PORT}},
    "properties": {"portNumber": "{{ portNumber }}"},
}
START_PORT_FORWARDING: dict[str, Any] = {
    "schemaVersion": "1.0",
    "description": "Document to start port forwarding session over Session Manager",
    "sessionType": "Port",
    "parameters": {
        "portNumber": {"type": "String", "default": "80", "allowedPattern": PORT},
        "localPortNumber": {"type": "String", "default": "0", "allowedPattern": PORT.replace("([1-9]|", "([0-9]|", 1)},
    },
    "properties": {
        "portNumber": "{{ portNumber }}",
        "type": "LocalPortForwarding",
        "localPortNumber": "{{ localPortNumber }}",
    },
}


def built_in_documents() -> dict[str, Document]:
    """AWS-RunShellScript, AWS-StartSSHSession and AWS-StartPortForwardingSession."""
    contents = {
        "AWS-RunShellScript": ("Command", RUN_SHELL_SCRIPT),
        "AWS-StartSSHSession": ("Session", START_SSH_SESSION),
        "AWS-StartPortForwardingSession": ("Session", START_PORT_FORWARDING),
    }
    return {
        name: Document(name=name, owner="Amazon", kind=kind, versions={"1": parse_content(json.dumps(content), kind)})
        for name, (kind, content) in contents.items()
    }
