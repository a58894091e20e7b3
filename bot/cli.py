"""The command line: ``passport serve | migrate | doctor | documents | audit``."""

import argparse
import gc
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from access.audit import Head, as_json, verify
from access.errors import InvalidInputError, PassportError
from access.ports import AuditLog
from bot import logs
from bot import settings as settings_module
from bot.settings import Settings, SettingsError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status is 0, or 1 with one plain line on standard error."""
    options = _parser().parse_args(arguments)
    try:
        status: int = options.run(options)
    except PassportError as error:
        print(f"passport: {error.sentence}", file=sys.stderr)
        return 1
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="passport", description="Short, audited access to servers, from Slack.")
    commands = parser.add_subparsers(required=True, metavar="command")
    commands.add_parser("serve", help="answer Slack and keep the servers in line").set_defaults(run=_serve)
    commands.add_parser("migrate", help="bring the database up to date").set_defaults(run=_migrate)
    doctor = commands.add_parser("doctor", help="look at everything that Passport stands on")
    doctor.add_argument("--json", action="store_true", help="the findings as JSON Lines")
    doctor.add_argument("--fleet", action="store_true", help="ask every server whether it is ready")
    doctor.add_argument("--account", help="with --fleet: the servers of one account of the settings")
    doctor.add_argument("--region", help="with --fleet: the servers of one region")
    doctor.set_defaults(run=_doctor)
    documents = commands.add_parser("documents", help="Passport's Systems Manager documents")
    documents.add_argument("act", choices=["publish", "check", "show", "template"])
    documents.add_argument("--role", help="publish as this role of each account instead of the one in its role_arn")
    documents.set_defaults(run=_documents)
    _add_ca(commands.add_parser("ca", help="the certificate authority's keys"))
    audit = commands.add_parser("audit", help="the audit log").add_subparsers(required=True, metavar="act")
    export = audit.add_parser("export", help="write the log as JSON Lines")
    export.add_argument("--output", type=Path, help="a file; standard output without it")
    export.set_defaults(run=_export)
    check = audit.add_parser("verify", help="check the chain of hashes")
    check.add_argument("--head", type=_head, help="SEQUENCE:HASH as the audit channel shows it, the outside witness")
    check.set_defaults(run=_verify)
    return parser


def _add_ca(parser: argparse.ArgumentParser) -> None:
    acts = parser.add_subparsers(required=True, metavar="act")
    acts.add_parser("show", help="every key, and the servers that depend on it").set_defaults(run=_ca_show)
    rotate = acts.add_parser("rotate", help="change the key; without an option, start")
    how = rotate.add_mutually_exclusive_group()
    how.add_argument("--finish", action="store_true", help="the next key is the one; refuses while it would cut off")
    how.add_argument("--abort", action="store_true", help="call the rotation off")
    how.add_argument(
        "--compromised", metavar="REASON", help="the key is stolen or lost: replace it at once, and end all access"
    )
    rotate.set_defaults(run=_ca_rotate)


def _ca_show(_: argparse.Namespace) -> int:
    from bot.ca import show

    return show(_load())


def _ca_rotate(options: argparse.Namespace) -> int:
    from bot import ca

    if options.compromised is not None:
        return ca.compromised(_load(), options.compromised)
    step = ca.finish if options.finish else ca.abort if options.abort else ca.rotate
    return step(_load())


def _serve(_: argparse.Namespace) -> int:
    gc.disable()  # while hundreds of modules load, there is nothing to collect; serve puts it on again
    from bot.serve import serve

    return serve(_load())


def _migrate(_: argparse.Namespace) -> int:
    from storage.migrations import migrate

    migrate(_load().database_url)
    print("The database is up to date.")
    return 0


def _doctor(options: argparse.Namespace) -> int:
    if options.fleet:
        return _fleet(options)
    if options.account or options.region:
        raise InvalidInputError("--account and --region go with --fleet.")
    from bot.doctor import examine

    status = 0
    for finding in examine(_load):
        status = 1 if finding.is_wrong else status
        print(json.dumps(finding.as_json()) if options.json else finding.line, flush=True)
    return status


def _fleet(options: argparse.Namespace) -> int:
    """JSON Lines come as the servers answer; the table comes at the end."""
    from bot.fleet_doctor import Fleet, as_table

    fleet = Fleet(_load(), account=options.account, region=options.region)
    for sentence in fleet.problems:
        print(json.dumps({"ready": False, "problems": [sentence]}) if options.json else f"NOT LISTED  {sentence}")
    findings = []
    for finding in fleet.examine():
        findings.append(finding)
        if options.json:
            print(json.dumps(finding.as_json()), flush=True)
    if not options.json:
        for line in as_table(findings):
            print(line)
        print(f"{sum(finding.is_ready for finding in findings)} of {len(findings)} servers are ready.")
    return 0 if not fleet.problems and all(finding.is_ready for finding in findings) else 1


def _documents(options: argparse.Namespace) -> int:
    from bot import documents

    if options.act == "template":
        return documents.template()
    if options.act == "publish":
        return documents.publish(_load(), role=options.role)
    return {"check": documents.check, "show": documents.show}[options.act](_load())


def _export(options: argparse.Namespace) -> int:
    count = 0
    with _audit_log() as log, _output(options.output) as target:
        for found in log.all():
            target.write(json.dumps(as_json(found), ensure_ascii=True) + "\n")
            count += 1
    print(f"Wrote {count} events.", file=sys.stderr)
    return 0


def _verify(options: argparse.Namespace) -> int:
    with _audit_log() as log:
        head = log.head()  # first: on PostgreSQL a running server adds events meanwhile
        findings = verify(log.all(), witness=options.head)
        last = log.after(head.sequence - 1, 1)
    if head != Head() and [found.hash for found in last] != [head.hash]:
        findings.append(f"The log's own head is event {head.sequence}, which is not there: the end is cut off.")
    for finding in findings:
        print(finding)
    if findings:
        print("The audit log is NOT whole. Keep the database as it is and compare it with the channel and an export.")
        return 1
    against = f", and holds what the channel saw at event {options.head.sequence}" if options.head else ""
    print(f"The audit log is whole: {head.sequence} events{against}. Head {head.sequence}:{head.hash}")
    return 0


@contextmanager
def _audit_log() -> Iterator[AuditLog]:
    """The log of a migrated database, read in one transaction that no running server waits for."""
    from bot.wiring import open_store
    from storage.migrations import check

    settings = _load()
    check(settings.database_url)
    store = open_store(settings, exclusive=False)
    try:
        with store.unit_of_work(read_only=True) as uow:
            yield uow.audit
    finally:
        store.close()


@contextmanager
def _output(path: Path | None) -> Iterator[TextIO]:
    """Standard output, or a file that only its owner can read: the log names people. Raises SettingsError."""
    if path is None:
        yield sys.stdout
        return
    try:
        target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    except OSError as error:
        raise SettingsError(f"{path} cannot be written: {error.strerror}.") from None
    with os.fdopen(target, "w", encoding="utf-8") as file:
        yield file


def _head(text: str) -> Head:
    sequence, _, digest = text.strip().partition(":")
    digest = digest.lower()
    if not sequence.isdecimal() or len(digest) != 64 or set(digest) - set("0123456789abcdef"):
        raise argparse.ArgumentTypeError("a head is SEQUENCE:HASH, as the audit channel shows it")
    return Head(sequence=int(sequence), hash=digest)


def _load() -> Settings:
    settings = settings_module.load()
    logs.configure(level=settings.log_level, style=settings.log_format, secrets=logs.secrets_of(settings))
    return settings
