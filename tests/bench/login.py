"""`ssh web-1.passport` to a command's end against plain ssh to the same host, on a real server: needs root.

What StartSession itself takes is measured beside each pair, and taken off.

Both log in with the same key and certificate as the same user. Ours runs Passport's script, AWS's plugin (the
sandbox's) and the data channel; plain ssh has a TCP connection, dialled by the host itself as its agent would.
"""

import re
import shutil
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from statistics import median
from typing import Any

from sandbox.company import COMMAND, LEADS_CHANNEL, Company, Employee
from sandbox.hosts import Doorway, HostWish
from sandbox.machine import Machine
from sandbox.reading import code_blocks, wait_for, with_button
from sandbox.serving import Serving
from tests.bench.figures import Figure, at_most, told
from tests.bench.ground import Ground
from tests.bench.workstation import aws_client

ROUNDS = 20
APART = 0.4  # seconds: StartSession is answered three times a second
BAR = 400
SSH: dict[str, Any] = {"DocumentName": "AWS-StartSSHSession", "Parameters": {"portNumber": ["22"]}}


def run(ground: Ground) -> Iterator[Figure]:
    """Pair by pair; each pair once with a certificate at hand and once with one to fetch."""
    with Company(ground.new_folder(), [HostWish(name="web-1")]) as company:
        passport = Serving(company, ground.new_folder())
        try:
            user = _open(company, passport)
            yield from _compare(company, user, ground.much(ROUNDS))
        finally:
            passport.kill()


def _compare(company: Company, user: str, rounds: int) -> Iterator[Figure]:
    ana, host = company.people["ana"], company.hosts["web-1"]
    laptop = Machine(ana.home, path=[company.folder / "bin"])
    prepared = ana.home / ".ssh" / "passport" / "hosts"
    kept, fetched, plain, started = [], [], [], []
    company.aws.faults.quotas = {}  # the bench's own StartSession is beside Passport's
    with Doorway(host.dial) as door, closing(aws_client(company)) as ssm:
        _time(laptop, "ssh web-1.passport true")
        bare = f"ssh -p {door.port} {_options(ana, _keep(prepared))} {user}@127.0.0.1 true"
        for _ in range(rounds):
            time.sleep(APART)
            kept.append(_time(laptop, "ssh web-1.passport true"))
            plain.append(_time(laptop, bare))
            started.append(_time_start_session(ssm, company.servers["web-1"].instance_id))
            for file in prepared.glob("web-1.*"):
                file.unlink()
            time.sleep(APART)
            fetched.append(_time(laptop, "ssh web-1.passport true"))
    yield told("plain ssh to the same host", median(plain), "ms")
    for name, ours in (("certificate at hand", kept), ("certificate fetched", fetched)):
        pairs = zip(ours, plain, started, strict=True)
        longer = median(own - other - start for own, other, start in pairs)
        yield at_most(f"ssh web-1.passport takes longer, {name}", longer, "ms", BAR)


def _keep(prepared: Path) -> Path:
    """The certificate, where nothing takes it away."""
    return Path(shutil.copy(prepared / "web-1.certificate", prepared.parent.parent / "bench-certificate"))


def _options(ana: Employee, certificate: Path) -> str:
    return (
        f"-F none -i {ana.key} -o CertificateFile={certificate} -o IdentitiesOnly=yes -o BatchMode=yes "
        "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
    )


def _time(laptop: Machine, command: str) -> float:
    """Milliseconds until the command has ended well."""
    begun = time.perf_counter()
    done = laptop.run("/bin/sh", "-c", command)
    took = (time.perf_counter() - begun) * 1000
    assert done.returncode == 0, done.stderr
    return took


def _time_start_session(ssm: Any, instance_id: str) -> float:
    """Milliseconds of one call; the session is ended again."""
    begun = time.perf_counter()
    started = ssm.start_session(Target=instance_id, **SSH)
    took = (time.perf_counter() - begun) * 1000
    ssm.terminate_session(SessionId=started["SessionId"])
    return took


def _open(company: Company, passport: Serving) -> str:
    """Passport serves, Ana's laptop is set up, web-1 is open for her; answers her user there."""
    passport.run("migrate")
    passport.run("documents", "publish")
    passport.start()
    passport.trust()
    ana, ben = company.people["ana"], company.people["ben"]
    for person in (ana, ben):
        company.link(person)
    ana.slack.command(COMMAND, f"key add {ana.public_key}")
    shown = ana.slack.command(COMMAND, "setup").message
    assert shown
    line = next(block for block in code_blocks(shown) if block.startswith("curl "))
    Machine(ana.home, path=[company.folder / "bin"]).run("/bin/sh", "-c", line)
    found = re.search(r"AR-[0-9A-Z]{4,8}", ana.slack.command(COMMAND, "request web-1 for 1h because a bench").plain)
    assert found
    card = wait_for(
        lambda: with_button(company.slack.messages(LEADS_CHANNEL), "review.approve", found[0]), "the approval card"
    )
    ben.slack.click(card, "review.approve")
    wait_for(lambda: with_button(ana.slack.direct_messages(), "credentials.show", found[0]), "web-1 to be open")
    return f"pp-{found[0][3:].lower()}"
