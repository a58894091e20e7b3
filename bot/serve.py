"""``passport serve``: one process with the web server, the reconciler, the feed and the background timers."""

import logging
import signal
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any, NoReturn

import waitress
from apscheduler.schedulers.background import BackgroundScheduler
from slack_bolt.adapter.flask import SlackRequestHandler
from slack_sdk import WebClient

from access.errors import PassportError
from access.model import AccountName, RouteName
from access.reconcile import Reconciler
from access.service.desk import Desk
from access.service.ending import Ending
from access.service.keys import Keys
from access.service.linking import Linking
from access.service.refreshing import Refreshing
from access.service.reviewing import Reviewing
from access.service.showing import Showing
from access.service.submitting import Submitting
from bot import wiring
from bot.loops import Loop, ReconcilerTurns
from bot.proxies import TrustedProxies
from bot.settings import Settings, SettingsError
from bot.web import Site, build_site
from handlers.after_ack import AfterAck
from handlers.app import build_app
from handlers.feed import Feed
from handlers.members import Members
from handlers.surface import Surface
from provisioning.accounts.short_lived_user import ShortLivedUser
from provisioning.connection import connection
from provisioning.inventory import AwsInventory
from provisioning.routes.session_manager import SessionManager
from provisioning.run_command import RunCommand
from provisioning.ssh_keys import parse_public_key

_log = logging.getLogger(__name__)

WEB_THREADS = 16
INLINE_SECONDS = 2  # a Slack call before an ack: it has three seconds in all
FEED_SECONDS = 10
HOUSEKEEPING = timedelta(minutes=1)


def serve(settings: Settings) -> int:
    """Run until SIGTERM or SIGINT; raises SettingsError, StoreBusyError."""
    passport = Passport(settings)
    signal.signal(signal.SIGTERM, _exit)
    try:
        passport.start()
        passport.answer()  # returns at SIGTERM or SIGINT
    finally:
        passport.stop()
    return 0


def _exit(*_: object) -> NoReturn:
    sys.exit(0)


class Passport:
    """Everything that runs in one process."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._store = wiring.open_store(settings)
        if problem := wiring.check_database(self._store, settings):
            raise SettingsError(problem)
        sessions = wiring.sessions(settings)
        self._inventory = AwsInventory(sessions, wiring.aws_accounts(settings), clock=wiring.now)
        authority = wiring.certificate_authority(settings, wiring.sealer(settings))
        desk = Desk(
            store=self._store,
            policy=settings.policy(),
            inventory=self._inventory,
            clock=wiring.now,
            token=wiring.new_token,
            request_id=wiring.new_request_id,
        )
        self._submitting = Submitting(desk)
        self._refreshing = Refreshing(desk, wiring.identity_stores(settings), every=settings.groups_refresh_every)
        self._members = Members(_slack(settings, INLINE_SECONDS), team_id=settings.slack_team_id, clock=wiring.now)
        owner = wiring.instance_name(settings)
        self._feed = Feed(
            self._store,
            _slack(settings, FEED_SECONDS),
            clock=wiring.now,
            audit_channel=settings.slack_audit_channel,
            owner=owner,
            admins=settings.slack_admins,
        )
        run_command = RunCommand(sessions, clock=wiring.now)
        account = ShortLivedUser(
            run_command,
            sessions,
            authority_keys=[authority.public_key],
            clock=wiring.now,
            prefix=settings.document_prefix,
        )
        self._reconciler = Reconciler(
            self._store,
            policy=desk.policy,
            inventory=self._inventory,
            routes={RouteName.SESSION_MANAGER: SessionManager()},
            accounts={AccountName.SHORT_LIVED_USER: account},
            clock=wiring.now,
            owner=owner,
        )
        self._turns = ReconcilerTurns(self._reconciler, clock=wiring.now)
        self._feed_loop = Loop("feed", self._feed.run_once)
        self._timers = BackgroundScheduler(timezone="UTC", job_defaults={"coalesce": True, "max_instances": 1})
        self._after_ack = AfterAck()
        linking = Linking(desk)
        surface = Surface(
            linking=linking,
            submitting=self._submitting,
            reviewing=Reviewing(desk),
            ending=Ending(desk),
            keys=Keys(desk),
            showing=Showing(desk, authority),
            members=self._members,
            inventory=self._inventory,
            policy=desk.policy,
            client=_slack(settings, INLINE_SECONDS),
            after_ack=self._after_ack,
            connect=connection,
            parse_key=parse_public_key,
            clock=wiring.now,
            team_id=settings.slack_team_id,
            public_url=settings.public_url,
            signing_secret=settings.slack_signing_secret.get_secret_value(),
        )
        site = build_site(
            Site(
                public_url=settings.public_url,
                providers=[provider.name for provider in settings.providers],
                slack=SlackRequestHandler(build_app(surface)),
                service_provider=wiring.service_provider(settings),
                linking=linking,
                submitting=self._submitting,
                members=self._members,
                is_ready=self._why_not_ready,
            )
        )
        host, port = settings.address
        # Forwarded headers are ours to judge (TrustedProxies), so waitress must leave them in place.
        self._server = waitress.create_server(
            TrustedProxies(site, settings.trusted_proxies),
            host=host,
            port=port,
            threads=WEB_THREADS,
            ident="",
            clear_untrusted_proxy_headers=False,
        )

    def start(self) -> None:
        """Take back this instance's leases, and start the loops and timers."""
        if taken := self._reconciler.reclaim():
            _log.info("took back %d pieces of work from before the restart", taken)
        self._store.on_commit(self._wake)
        self._turns.loop.start()
        self._feed_loop.start()
        self._every(self._settings.inventory_every, self._inventory.refresh)
        self._every(self._settings.groups_refresh_every, self._refreshing.run)
        self._every(HOUSEKEEPING, self._keep_house)
        self._timers.start()

    def answer(self) -> None:
        """Serve HTTP until told to stop."""
        _log.info("Passport listens on %s", self._settings.listen)
        self._server.run()

    def stop(self) -> None:
        """Let what is under way finish; everything else is in the database."""
        self._server.close()
        if self._timers.running:
            self._timers.shutdown(wait=False)
        self._turns.stop()
        self._feed_loop.stop()
        self._after_ack.close()
        self._store.close()
        _log.info("Passport has stopped")

    def _wake(self) -> None:
        self._turns.loop.wake()
        self._feed_loop.wake()

    def _every(self, interval: timedelta, act: Callable[[], object]) -> None:
        """Now and then; a timer that fails is logged and comes again."""
        self._timers.add_job(_quietly(act), "interval", seconds=interval.total_seconds(), next_run_time=wiring.now())

    def _keep_house(self) -> None:
        self._submitting.lapse_parked()
        self._members.refusals.flush(self._store, clock=wiring.now)
        with self._store.unit_of_work() as uow:
            uow.sign_ins.purge(wiring.now())
            uow.commit()

    def _why_not_ready(self) -> str:
        if problem := wiring.check_database(self._store, self._settings):
            return problem
        if not (self._turns.loop.is_alive and self._feed_loop.is_alive):
            return "The reconciler or the feed does not run. Restart Passport."
        if self._inventory.age() is None:
            return "The servers have not been listed yet. Try again in a moment."
        return ""


def _slack(settings: Settings, seconds: int) -> WebClient:
    """A client that never retries by itself: a retry sleeps in the calling thread."""
    return WebClient(
        token=settings.slack_bot_token.get_secret_value(),
        base_url=settings.slack_api_url,
        timeout=seconds,
        retry_handlers=[],
    )


def _quietly(act: Callable[[], object]) -> Callable[[], Any]:
    def run() -> None:
        try:
            act()
        except PassportError as error:
            _log.warning("%s", error.sentence)
        except Exception:  # noqa: BLE001 - whatever it is, the timer must come again
            _log.exception("A timer failed; it will come again")

    return run
