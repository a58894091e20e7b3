"""The same on PostgreSQL with a Windows server; in a file of its own, since a company that closes takes EC2 with it."""

import pytest

from tests.e2e.crash.kills import Kills
from tests.e2e.crash.points import END, OPENING, REVIEW, USE, Point
from tests.postgres import PostgresServer

pytestmark = [pytest.mark.timeout(600), pytest.mark.postgres]

ON_WINDOWS = (  # and on PostgreSQL
    Point(REVIEW, 1, "after a commit of waitress"),
    Point(OPENING, 1, "after SendCommand"),
    Point(OPENING, 2, "before SendCommand"),
    Point(USE, 1, "after response_url"),
    Point(USE, 2, "after StartSession"),
    Point(END, 1, "before SendCommand"),
    Point(END, 2, "after SendCommand"),
)


def test_killed_on_postgresql_with_a_windows_server_it_ends_as_without(
    tmp_path_factory: pytest.TempPathFactory, postgres_server: PostgresServer
) -> None:
    url = postgres_server.url(postgres_server.create_database())
    with Kills(tmp_path_factory.mktemp("windows"), towns=1, windows=True, database_url=url) as kills:
        told = kills.everywhere(ON_WINDOWS)
    assert [str(run) for run in told if run.faults] == []
    assert {point for run in told for point in run.killed} == set(ON_WINDOWS)
