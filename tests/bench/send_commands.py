"""SendCommand and nothing else, by boto3 from a process of its own: ``python -m tests.bench.send_commands COUNT ID…``.

Prints how many a second were answered.
"""

import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import boto3

from provisioning.documents import linux_documents
from tests.integration.aws_desk import REGION

CALLERS = 8


def main(count: int, ids: Sequence[str]) -> None:
    """Removals of users who were never there."""
    ssm = boto3.client("ssm", region_name=REGION)
    (document,) = (each.name for each in linux_documents() if each.action == "remove")

    def send(number: int) -> None:
        given = {"RequestId": [f"AR-X{number:03}"], "UserName": [f"pp-x{number:03}"], "Attempt": ["1"]}
        ssm.send_command(DocumentName=document, InstanceIds=[ids[number % len(ids)]], Parameters=given)

    send(count)  # the first call is no measure
    begun = time.perf_counter()
    with ThreadPoolExecutor(CALLERS) as callers:
        list(callers.map(send, range(count)))
    print(count / (time.perf_counter() - begun))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
