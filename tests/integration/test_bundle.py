"""The zip for people who cannot install the script: offered in Slack, fetched by the button of a page, once."""

import io
import subprocess
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from access.audit import Kind
from access.model import SlackUser
from access.service.desk import Caller
from bot.bundle_page import BundleSite
from bot.web import Site, build_site
from handlers import ids
from provisioning.bundle import bundle
from storage.unit_of_work import SqlStore
from tests.integration.slack_stage import Stage, stage
from tests.integration.test_slack_clicks import HOST_KEY, KEY
from tests.values import ANA, BEN, a_server


@pytest.fixture
def on(sqlite_store: SqlStore) -> Iterator[Stage]:
    with stage(sqlite_store, own_aws_credentials=True) as found:
        yield found


@pytest.fixture
def site(on: Stage) -> FlaskClient:
    return web(on).test_client()


def web(on: Stage) -> Flask:
    assert on.surface.bundling
    bundles = BundleSite(team_id="T0PASSPORT", bundling=on.surface.bundling, pack=bundle)
    nothing: object = None
    return build_site(
        Site(
            public_url="https://passport.example.com",
            providers=[],
            slack=None,
            service_provider=nothing,  # type: ignore[arg-type]
            linking=on.surface.linking,
            submitting=on.surface.submitting,
            members=on.surface.members,
            is_ready=str,
            bundles=bundles,
        )
    )


def ready(on: Stage, *names: str, platform: str = "linux") -> str:
    on.say(f"key add {KEY}")
    on.slack.reload(ANA.user_id)
    on.world.inventory.servers[:] = [a_server(name, platform=platform) for name in names]
    request = on.world.submit(*names)
    on.world.approve(request)
    on.world.reconcile()
    with on.world.store.unit_of_work() as uow:
        for grant in uow.grants.of(request.id):
            uow.grants.save(replace(grant, details={"host_keys": HOST_KEY, "port": "2222"}))
        uow.commit()
    return request.id


def button(on: Stage, request_id: str) -> str:
    """The address behind the button of Show credentials; "" without one."""
    message = on.direct(ids.CREDENTIALS_SHOW, request_id)
    assert on.slack.person(ANA.user_id).click(message, ids.CREDENTIALS_SHOW).ok
    on.told(ANA.user_id)
    elements = [
        element
        for block in on.slack.person(ANA.user_id).ephemerals()[-1].blocks
        for element in block.get("elements", [])
        if element.get("action_id") == ids.CREDENTIALS_BUNDLE
    ]
    return str(elements[0]["url"]) if elements else ""


def path(address: str) -> str:
    assert address.startswith("https://passport.example.com/bundle/")
    return urlsplit(address).path


def unpacked(answer: TestResponse, folder: Path) -> dict[str, str]:
    assert (answer.status_code, answer.mimetype) == (200, "application/zip"), answer.text
    with zipfile.ZipFile(io.BytesIO(answer.data)) as archive:
        archive.extractall(folder)
        return {name: archive.read(name).decode() for name in archive.namelist()}


def test_the_zip_is_an_ssh_configuration_without_a_secret(on: Stage, site: FlaskClient, tmp_path: Path) -> None:
    request_id = ready(on, "web-1", "db-2")
    address = path(button(on, request_id))
    page = site.get(address)
    assert page.status_code == 200
    assert '<form method="post"><button>Download</button></form>' in page.text
    answer = site.post(address)
    assert answer.headers["Content-Disposition"] == f'attachment; filename="passport-{request_id}.zip"'
    assert answer.headers["Cache-Control"] == "no-store"
    files = unpacked(answer, tmp_path)
    folder = f"passport-{request_id}"
    assert sorted(files) == [f"{folder}/{name}" for name in ("README.txt", "certificate", "config", "known_hosts")]
    assert "PRIVATE" not in "".join(files.values())
    assert "ssh -F config web-1" in files[f"{folder}/README.txt"]

    def option(host: str, name: str) -> str:
        words = ["ssh", "-G", "-F", "config", host]
        done = subprocess.run(words, cwd=tmp_path / folder, capture_output=True, text=True, check=True)
        return next(line.partition(" ")[2] for line in done.stdout.splitlines() if line.startswith(f"{name} "))

    user = "pp-" + request_id.removeprefix("AR-").lower()
    assert (option("web-1", "user"), option("web-1", "port")) == (user, "2222")
    assert option("web-1", "stricthostkeychecking") == "true"
    assert option("web-1", "userknownhostsfile") == "known_hosts"
    assert option("web-1", "certificatefile") == "certificate"
    assert option("web-1", "identityfile") == "~/.ssh/id_ed25519"
    alias = option("db-2", "hostkeyalias")
    assert option("db-2", "proxycommand").startswith(
        f"aws ssm start-session --target {alias.removeprefix('passport-')} "
    )
    lines = files[f"{folder}/known_hosts"].splitlines()
    assert len(lines) == 2
    assert f"{alias} {HOST_KEY}" in lines


def test_the_link_works_once_and_looking_uses_nothing_up(on: Stage, site: FlaskClient) -> None:
    request_id = ready(on, "web-1")
    address = path(button(on, request_id))
    before = on.world.kinds(request_id).count(Kind.CREDENTIALS_SHOWN)
    assert [site.get(address).status_code for _ in range(3)] == [200] * 3
    assert site.post(address).status_code == 200
    assert on.world.kinds(request_id).count(Kind.CREDENTIALS_SHOWN) == before + 1
    again = site.post(address)
    assert again.status_code == 403
    assert "This link was used" in again.text
    assert on.world.kinds(request_id).count(Kind.CREDENTIALS_SHOWN) == before + 1


def test_the_link_runs_out_after_ten_minutes(on: Stage, site: FlaskClient) -> None:
    address = path(button(on, ready(on, "web-1")))
    on.world.clock.forward(minutes=10)
    assert site.get(address).status_code == 403
    assert "has run out after 10 minutes" in site.post(address).text


def test_a_link_is_for_one_request_one_person_and_not_to_be_made_up(on: Stage, site: FlaskClient) -> None:
    request_id = ready(on, "web-1")
    other = ready(on, "db-2")
    token = path(button(on, request_id)).rpartition("/")[2]
    for wrong in (
        f"/bundle/{other}/{ANA.user_id}/{token}",
        f"/bundle/{request_id}/{BEN.user_id}/{token}",
        f"/bundle/{request_id}/{ANA.user_id}/{token[:-4]}AAAA",
        f"/bundle/{request_id}/{ANA.user_id}/x",
        f"/bundle/{request_id} T0PASSPORT/{ANA.user_id}/{token}",
    ):
        assert (site.get(wrong).status_code, site.post(wrong).status_code) == (403, 403), wrong
    assert on.world.kinds(other).count(Kind.CREDENTIALS_SHOWN) == 0


def test_a_link_made_for_somebody_else_s_request_gives_nothing(on: Stage, site: FlaskClient) -> None:
    request_id = ready(on, "web-1")
    assert on.surface.bundling
    ben = SlackUser(team_id=BEN.team_id, user_id=BEN.user_id)
    answer = site.post(f"/bundle/{on.surface.bundling.offer(ben, request_id)}")
    assert answer.status_code == 403
    assert "its credentials are theirs alone" in answer.text
    assert Kind.REFUSED in on.world.kinds(request_id)


def test_after_the_end_there_is_nothing_to_download(on: Stage, site: FlaskClient) -> None:
    request_id = ready(on, "web-1")
    address = path(button(on, request_id))
    on.world.ending.complete(Caller(slack_user=ANA), request_id)
    answer = site.post(address)
    assert answer.status_code == 403
    assert "is not active" in answer.text


def test_windows_servers_are_no_ssh_configuration(on: Stage, site: FlaskClient) -> None:
    request_id = ready(on, "web-1", platform="windows")
    assert button(on, request_id) == ""
    assert on.surface.bundling
    answer = site.post(f"/bundle/{on.surface.bundling.offer(ANA, request_id)}")
    assert answer.status_code == 404
    assert "no server that ssh reaches" in answer.text


def test_without_the_setting_there_is_neither_button_nor_page(sqlite_store: SqlStore) -> None:
    with stage(sqlite_store) as plain:
        assert button(plain, ready(plain, "web-1")) == ""


def test_names_that_cannot_be_typed_are_ids(on: Stage, site: FlaskClient, tmp_path: Path) -> None:
    request_id = ready(on, "a\n  ProxyCommand id", "* !web")
    files = unpacked(site.post(path(button(on, request_id))), tmp_path)
    config = files[f"passport-{request_id}/config"]
    hosts = [line for line in config.splitlines() if line.startswith("Host ")]
    assert all(line == "Host *" or line.startswith("Host i-") for line in hosts)
    assert len(hosts) == 3
    assert "ProxyCommand id" not in "".join(files.values())
