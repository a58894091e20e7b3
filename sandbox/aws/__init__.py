"""A local AWS: moto, and a Systems Manager that is as strict as the real one and runs scripts on real hosts."""

import os
from pathlib import Path

# Before moto is loaded, which fills each region of each account with all the hundreds of images that it knows.
os.environ.setdefault("MOTO_AMIS_PATH", str(Path(__file__).with_name("images.json")))

from sandbox.aws.commands import Command, Invocation
from sandbox.aws.double import HOME_ACCOUNT, HOME_REGION, AwsDouble
from sandbox.aws.errors import AwsError
from sandbox.aws.faults import Faults
from sandbox.aws.gate import EXTERNAL_ID
from sandbox.aws.nodes import Scripted, Server
from sandbox.aws.sessions import Session

__all__ = [
    "EXTERNAL_ID",
    "HOME_ACCOUNT",
    "HOME_REGION",
    "AwsDouble",
    "AwsError",
    "Command",
    "Faults",
    "Invocation",
    "Scripted",
    "Server",
    "Session",
]
