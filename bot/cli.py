"""The command line: ``passport serve | migrate | documents | audit``."""

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from access.audit import Head, as_json, verify
from access.errors import PassportError
from bot import settings as settings_module
from bot.settings import Settings


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
    documents = commands.add_parser("documents", help="Passport's Systems Manager documents")
    documents.add_argument("act", choices=["publish", "check", "show"])
    documents.set_defaults(run=_documents)
    audit = commands.add_parser("audit", help="the audit log").add_subparsers(required=True, metavar="act")
    export = audit.add_parser("export", help="write the log as JSON Lines")
    export.add_argument("--output", type=Path, help="a file; standard output without it")
    export.set_defaults(run=_export)
    check = audit.add_parser("verify", help="check the chain of hashes")
    check.add_argument("--head", type=_head, help="SEQUENCE:HASH as the audit channel shows it, the outside witness")
    check.set_defaults(run=_verify)
    return parser


def _serve(_: argparse.Namespace) -> int:
    from bot.serve import serve

    return serve(_load())


def _migrate(_: argparse.Namespace) -> int:
    from storage.migrations import migrate

    migrate(_load().database_url)
    print("The database is up to date.")
    return 0


def _documents(options: argparse.Namespace) -> int:
    from bot.documents import check, publish, show

    return {"publish": publish, "check": check, "show": show}[options.act](_load())


def _export(options: argparse.Namespace) -> int:
    from bot.wiring import open_store

    store = open_store(_load(), exclusive=False)
    target = options.output.open("w", encoding="utf-8") if options.output else sys.stdout
    count = 0
    try:
        with store.unit_of_work() as uow:
            for found in uow.audit.all():
                target.write(json.dumps(as_json(found), ensure_ascii=True) + "\n")
                count += 1
    finally:
        if options.output:
            target.close()
    print(f"Wrote {count} events.", file=sys.stderr)
    return 0


def _verify(options: argparse.Namespace) -> int:
    from bot.wiring import open_store

    store = open_store(_load(), exclusive=False)
    with store.unit_of_work() as uow:
        findings = verify(uow.audit.all(), witness=options.head)
        head = uow.audit.head()
    for finding in findings:
        print(finding)
    if findings:
        print("The audit log is NOT whole. Keep the database as it is and compare it with the channel and an export.")
        return 1
    against = f", and holds what the channel saw at event {options.head.sequence}" if options.head else ""
    print(f"The audit log is whole: {head.sequence} events{against}. Head {head.sequence}:{head.hash}")
    return 0


def _head(text: str) -> Head:
    sequence, _, digest = text.strip().partition(":")
    digest = digest.lower()
    if not sequence.isdecimal() or len(digest) != 64 or set(digest) - set("0123456789abcdef"):
        raise argparse.ArgumentTypeError("a head is SEQUENCE:HASH, as the audit channel shows it")
    return Head(sequence=int(sequence), hash=digest)


def _load() -> Settings:
    settings = settings_module.load()
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for noisy in ("botocore", "boto3", "urllib3", "slack_sdk", "slack_bolt", "apscheduler", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)  # their DEBUG holds tokens and bodies
    return settings
