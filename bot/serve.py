"""``passport serve``: one process with the web server, the reconciler, the feed and the background timers."""

import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NoReturn

import waitress
from apscheduler.schedulers.background import BackgroundScheduler
from pydantic import SecretStr
from slack_bolt import App
from slack_bolt.adapter.flask import SlackRequestHandler
from slack_sdk import WebClient

from access.errors import PassportError
from access.model import AccountName, RouteName
from access.orphans import Orphans
from access.ports import CertificateAuthority
from access.reconcile import Reconciler
from access.service.bundling import Bundling
from access.service.challenges import Challenges
from access.service.connecting import Connecting
from access.service.desk import Desk
from access.service.ending import Ending
from access.service.keys import Keys
from access.service.linking import Linking
from access.service.refreshing import Refreshing
from access.service.retrying import Retrying
from access.service.reviewing import Reviewing
from access.service.showing import Showing
from access.service.submitting import Submitting
from bot import wiring
from bot.authority import AuthorityKeys, establish, trust
from bot.bundle_page import BundleSite
from bot.loops import Loop, Measure, ReconcilerTurns
from bot.metrics import CountedRefusals, Metrics
from bot.proxies import WSGI, TrustedProxies
from bot.scraping import MetricsServer
from bot.settings import Settings, SettingsError
from bot.signatures import SignedOnly
from bot.sockets import Sockets
from bot.values import host_and_port
from bot.web import MOST_BYTES, Site, build_site
from bot.workstation import site as workstation
from bot.workstation.limits import AddressLimit, Lane
from handlers.after_ack import AfterAck
from handlers.app import build_app
from handlers.feed import Feed
from handlers.members import Members
from handlers.surface import Surface
from provisioning.accounts.short_lived_user import ShortLivedUser
from provisioning.authority_ring import AuthorityRing
from provisioning.bundle import bundle
from provisioning.connection import connection
from provisioning.desktop import forwarding_command
from provisioning.inventory import NONE_LISTED, AwsInventory
from provisioning.routes.session_manager import SessionManager
from provisioning.run_command import RunCommand
from provisioning.ssh_keys import parse_public_key
from provisioning.ssh_signature import verify_signature
from provisioning.tunnel_sessions import TunnelSessions
from provisioning.tunnels import StartedTunnels
from storage.grant_keys import GrantKeys

_log = logging.getLogger(__name__)

WEB_THREADS = 16
WORKSTATION_THREADS = 24  # more, in a lane of their own: laptops that wait for a tunnel keep no thread from Slack
MOST_CONNECTIONS = 500  # waitress's own 100 are soon taken by whoever opens them and says nothing
QUIET_SECONDS = 30  # after which such a connection is closed
INLINE_SECONDS = 2  # a Slack call before an ack: it has three seconds in all
FEED_SECONDS = 10
FEED_REST = timedelta(milliseconds=500)  # a burst of commits is one look at what Slack has yet to show
HOUSEKEEPING = timedelta(minutes=1)
NAME_EVERY = timedelta(seconds=10)  # a look whether the name is still this process's
STOPPING = timedelta(seconds=10)  # as long as what is under way may take


def serve(settings: Settings) -> int:
    """Run until SIGTERM or SIGINT; raises SettingsError, StoreBusyError."""
    passport = Passport(settings)
    gc.freeze()  # what is here now stays: a collection that looked through it would hold up every answer meanwhile
    gc.enable()
    for stop in (signal.SIGTERM, signal.SIGINT):  # a shell's background jobs ignore SIGINT unless told
        signal.signal(stop, _exit)
    try:
        passport.start()
        passport.answer()  # returns at SIGTERM or SIGINT
    finally:
        with _at_most(STOPPING):
            passport.stop()
    return 0


@contextmanager
def _at_most(limit: timedelta) -> Iterator[None]:
    """End the process when this takes longer: whatever is cut off resumes from the database at the next start."""

    watch = _watch(limit)
    try:
        yield
    finally:
        watch.cancel()


def _watch(limit: timedelta) -> threading.Timer:
    def give_up() -> None:
        _log.warning("Something was still under way after %d s; the next start resumes it", limit.total_seconds())
        logging.shutdown()
        os._exit(0)

    watch = threading.Timer(limit.total_seconds(), give_up)
    watch.daemon = True
    watch.start()
    return watch


def _exit(*_: object) -> NoReturn:
    _watch(STOPPING)  # from now on: the web server lets its own threads finish before Passport is told to stop
    sys.exit(0)


class Passport:
    """Everything that runs in one process."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._metrics = metrics = Metrics(wiring.now)
        self._metrics_server: MetricsServer | None = None
        self._store = wiring.open_store(settings)
        if problem := wiring.check_database(self._store, settings):
            raise SettingsError(problem)
        owner = wiring.instance_name(settings)
        self._store.take_name(owner)
        sessions = wiring.sessions(settings)
        self._inventory = AwsInventory(sessions, wiring.aws_accounts(settings), clock=wiring.now)
        keys = AuthorityKeys(settings, wiring.sealer(settings))
        authority_ring = AuthorityRing(keys.find)
        establish(self._store, keys, clock=wiring.now)
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
        self._members = Members(
            _slack(settings, INLINE_SECONDS),
            team_id=settings.slack_team_id,
            clock=wiring.now,
            refusals=CountedRefusals(metrics),
        )
        self._feed = Feed(
            self._store,
            _slack(settings, FEED_SECONDS),
            clock=wiring.now,
            audit_channel=settings.slack_audit_channel,
            owner=owner,
            admins=settings.slack_admins,
        )
        run_command = RunCommand(sessions, clock=wiring.now)
        book = TunnelSessions(sessions, home=settings.home)
        self._orphans = Orphans(self._store, book, clock=wiring.now)
        self._tunnels = StartedTunnels(sessions, book)
        route = SessionManager(book)
        account = ShortLivedUser(
            run_command,
            sessions,
            public_keys=GrantKeys(self._store),
            trust=lambda: trust(self._store),
            clock=wiring.now,
            prefix=settings.document_prefix,
        )
        self._reconciler = Reconciler(
            self._store,
            policy=desk.policy,
            inventory=self._inventory,
            routes={RouteName.SESSION_MANAGER: metrics.measure_route(RouteName.SESSION_MANAGER, route)},
            accounts={AccountName.SHORT_LIVED_USER: metrics.measure_account(AccountName.SHORT_LIVED_USER, account)},
            clock=wiring.now,
            owner=owner,
            observe=metrics.moved,
        )
        self._turns = ReconcilerTurns(self._reconciler, clock=wiring.now, measure=metrics.measure)
        self._feed_loop = Loop("feed", metrics.measure("feed", self._feed.run_once), rest=FEED_REST)
        self._timers = BackgroundScheduler(timezone="UTC", job_defaults={"coalesce": True, "max_instances": 1})
        self._after_ack = AfterAck()
        linking = Linking(desk)
        showing = Showing(desk, authority_ring)
        bundling = self._bundling(showing)
        surface = Surface(
            linking=linking,
            submitting=self._submitting,
            reviewing=Reviewing(desk),
            retrying=Retrying(desk),
            ending=Ending(desk),
            keys=Keys(desk),
            showing=showing,
            members=self._members,
            inventory=self._inventory,
            policy=desk.policy,
            client=_slack(settings, INLINE_SECONDS),
            after_ack=self._after_ack,
            connect=connection,
            forward=forwarding_command,
            parse_key=parse_public_key,
            clock=wiring.now,
            team_id=settings.slack_team_id,
            public_url=settings.public_url,
            bundling=bundling,
            signing_secret=_revealed(settings.slack_signing_secret),
        )
        app = build_app(surface)
        self._sockets = _sockets(settings, app, metrics.measure)
        site = build_site(
            Site(
                public_url=settings.public_url,
                providers=[provider.name for provider in settings.providers],
                slack=None
                if self._sockets
                else SignedOnly(SlackRequestHandler(app), _revealed(settings.slack_signing_secret)),
                service_provider=wiring.service_provider(settings),
                linking=linking,
                submitting=self._submitting,
                members=self._members,
                is_ready=self._why_not_ready,
                bundles=_bundles(settings, bundling),
            )
        )
        workstation.register(site, self._workstation(desk, authority_ring))
        metrics.watch_store(self._store)
        metrics.watch_inventory(self._inventory.age)
        if sockets := self._sockets:
            metrics.watch_sockets(lambda: sockets.connected)
        self._server = _listen(settings, metrics.measure_http(site))

    def _bundling(self, showing: Showing) -> Bundling | None:
        """The zips, where people have AWS credentials of their own to use them with."""
        if not self._settings.own_aws_credentials:
            return None
        keys = wiring.sealer(self._settings).derive("bundle link")
        return Bundling(showing, Challenges(keys, clock=wiring.now, random_bytes=os.urandom))

    def _workstation(self, desk: Desk, authority: CertificateAuthority) -> workstation.Workstation:
        """What laptops ask for."""
        settings = self._settings
        keys = wiring.sealer(settings).derive("workstation challenge")
        connecting = Connecting(
            desk,
            authority,
            self._tunnels,
            challenges=Challenges(keys, clock=wiring.now, random_bytes=os.urandom),
            verify=verify_signature,
            home=settings.home,
            lifetime=settings.workstation_certificate_lifetime,
        )
        return workstation.Workstation(
            home=settings.home,
            connecting=connecting,
            lane=Lane(WORKSTATION_THREADS),
            limit=AddressLimit(),
            count_stranger=self._members.refusals.count,
        )

    def start(self) -> None:
        """Take back this instance's leases, and start the loops and timers."""
        if taken := self._reconciler.reclaim():
            _log.info("took back %d pieces of work from before the restart", taken)
        self._store.on_commit(self._turns.wake_if_due)
        self._store.on_commit(lambda _: self._feed_loop.wake())
        self._metrics_server = _serve_metrics(self._settings, self._metrics)
        self._tunnels.start()
        self._turns.loop.start()
        self._feed_loop.start()
        self._every(self._settings.inventory_every, "inventory", self._refresh_inventory)
        self._every(self._settings.groups_refresh_every, "groups", self._refreshing.run)
        self._every(HOUSEKEEPING, "housekeeping", self._keep_house)
        self._every(HOUSEKEEPING, "tunnels", self._orphans.sweep)
        self._every(NAME_EVERY, "name", self._store.keep_name)
        self._timers.start()
        if self._sockets:
            self._sockets.start()

    def answer(self) -> None:
        """Serve HTTP until told to stop."""
        _log.info("Passport listens on %s", self._settings.listen)
        self._server.run()

    def stop(self) -> None:
        """Let what is under way finish; everything else is in the database."""
        self._server.close()
        self._tunnels.stop()
        if self._sockets:
            self._sockets.stop()
        if self._timers.running:
            self._timers.shutdown(wait=True)
        self._turns.stop()
        self._feed_loop.stop()
        self._after_ack.close()
        for give_back in (self._feed.give_way, self._reconciler.reclaim):  # so that another replica goes on at once
            _quietly(give_back)()
        if self._metrics_server is not None:
            self._metrics_server.stop()
        self._store.close()
        _log.info("Passport has stopped")

    def _every(self, interval: timedelta, name: str, act: Callable[[], object]) -> None:
        """Now and then; a timer that fails is logged and comes again."""
        run = _quietly(self._metrics.measure(name, act))
        self._timers.add_job(run, "interval", seconds=interval.total_seconds(), next_run_time=wiring.now())

    def _refresh_inventory(self) -> None:
        self._metrics.servers(self._inventory.refresh().servers)
        self._submitting.file_left_behind()  # of before a restart: only now can their servers be found

    def _keep_house(self) -> None:
        self._submitting.file_left_behind()
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
        if not self._inventory.has_listed:
            return NONE_LISTED
        return ""


def _listen(settings: Settings, site: WSGI) -> Any:
    """The web server, listening; raises SettingsError."""
    host, port = settings.address
    try:
        return waitress.create_server(
            TrustedProxies(site, settings.trusted_proxies),
            host=host,
            port=port,
            threads=WEB_THREADS + WORKSTATION_THREADS,
            ident="",
            connection_limit=MOST_CONNECTIONS,
            channel_timeout=QUIET_SECONDS,
            asyncore_use_poll=True,  # select() ends at 1,024 files
            max_request_body_size=MOST_BYTES,  # waitress would keep a gigabyte before Flask sees the first byte
            clear_untrusted_proxy_headers=False,  # they are ours to judge (TrustedProxies)
        )
    except (OSError, ValueError) as error:
        raise SettingsError(f"Passport cannot listen on {settings.listen}: {error}. See the setting listen.") from None


def _serve_metrics(settings: Settings, metrics: Metrics) -> MetricsServer | None:
    """Prometheus's own listener, if it is asked for; raises SettingsError."""
    if settings.metrics_listen is None:
        return None
    try:
        return MetricsServer(metrics.registry, *host_and_port(settings.metrics_listen))
    except OSError as error:
        raise SettingsError(
            f"Passport cannot listen on {settings.metrics_listen}: {error.strerror}. See the setting metrics_listen."
        ) from None


def _sockets(settings: Settings, app: App, measure: Measure) -> Sockets | None:
    """Socket Mode's connections, if it is asked for."""
    if settings.slack_app_token is None:
        return None
    return Sockets(
        app,
        app_token=settings.slack_app_token.get_secret_value(),
        client=_slack(settings, FEED_SECONDS),
        connections=settings.slack_socket_connections,
        measure=measure,
    )


def _bundles(settings: Settings, bundling: Bundling | None) -> BundleSite | None:
    return BundleSite(team_id=settings.slack_team_id, bundling=bundling, pack=bundle) if bundling else None


def _revealed(secret: SecretStr | None) -> str:
    return secret.get_secret_value() if secret else ""


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
