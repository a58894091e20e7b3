"""`kill -9` in the middle of a sign-in: the request that waited for it is sent after the next start."""

from pathlib import Path

from access.audit import Kind
from sandbox.company import COMMAND, Company
from sandbox.reading import first_url, wait_for
from storage.unit_of_work import SqlStore
from tests.e2e.crash.record import read_tables
from tests.e2e.crash.town import Mortal
from tests.stores import SEALER

LINK_IS_SAVED = (3, "after a commit of waitress")  # the ticket, the login, the link: what is parked comes next


def test_what_waited_for_the_sign_in_is_sent_though_passport_dies_right_after_it(tmp_path: Path) -> None:
    """The servers are listed at the second attempt only: until then nobody may say that there is no web-1."""
    with Company(tmp_path / "company") as company:
        company.aws.add_server("web-1", tags={"env": "prod"})
        passport = Mortal(company, tmp_path / "passport")
        passport._more["PASSPORT_INVENTORY_EVERY"] = "3s"
        passport.run("migrate")
        try:
            passport.start()
            passport.trust()
            die_after_the_link(company, passport)
            company.aws.faults.fail("DescribeInstanceInformation", 403, times=1)
            passport.start()
            wait_for(lambda: Kind.REQUEST_SUBMITTED in kinds(passport), "the request to be sent", seconds=45)
            assert Kind.REQUEST_UNPARKED not in kinds(passport)
        finally:
            passport.kill()


def die_after_the_link(company: Company, passport: Mortal) -> None:
    """Ana asks, signs in, and is known; nothing more happens."""
    ana = company.people["ana"]
    parked = ana.slack.command(COMMAND, "request web-1 for 1h because INC-77: disk full").message
    assert parked is not None
    passport.order(*LINK_IS_SAVED)
    try:
        page = company.sign_in(ana, first_url(parked))
    except OSError as error:
        page = str(error)
    wait_for(lambda: passport.is_dead, f"the death; there was: {page}")
    passport.pardon()
    assert kinds(passport)[-1] is Kind.LINK_MADE


def kinds(passport: Mortal) -> list[Kind]:
    """The audit log, read beside the process."""
    store = SqlStore(passport.database_url, sealing=SEALER, exclusive=False)
    try:
        return [found.event.kind for found in read_tables(store).events]
    finally:
        store.close()
