"""What an engineer sees who makes a connection by hand: the form, and what its Test button answers."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from lakebase_provider.core.config import settings
from lakebase_provider.core.upkeep.health.stage_names import STAGES
from lakebase_provider.local import LocalLakebase
from tests.eventually import eventually
from tests.ui.conftest import Service, free_port

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

#: Settings that the form's standard fields carry.
STANDARD = {"host", "port", "database", "user", "password"}


@dataclass(frozen=True)
class Airflow:
    url: str
    env: Mapping[str, str]

    def run(self, *arguments: str) -> None:
        subprocess.run(
            [sys.executable, "-m", "airflow", *arguments],
            env=dict(self.env),
            check=True,
            capture_output=True,
            timeout=120,
        )

    def request(self, path: str, body: object = None, **headers: str) -> Any:
        request = urllib.request.Request(  # noqa: S310 # loopback, http
            f"{self.url}{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json", **headers},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 # loopback, http
            return json.load(answer)


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Airflow]:
    """A web server, and a scheduler whose executor runs connection tests on a worker."""
    home = tmp_path_factory.mktemp("airflow")
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    env = {
        **{name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")},
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        # A queued test counts as taking a slot, so one slot would never be free for it.
        "AIRFLOW__CORE__PARALLELISM": "2",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        "AIRFLOW__API__BASE_URL": url,
        "AIRFLOW__API_AUTH__JWT_SECRET": "made up for this test, " * 4,
        "AIRFLOW__OPENLINEAGE__DISABLED": "True",
    }
    served = Airflow(url, env)
    served.run("db", "migrate")
    api = Service(
        ["-m", "airflow", "api-server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"],
        home / "api.log",
        env,
    )
    scheduler = Service(["-m", "airflow", "scheduler", "--skip-serve-logs"], home / "scheduler.log", env)
    try:
        api.wait_for(f"{url}/api/v2/monitor/health")
        # Its first answer to a worker takes seconds, and a worker that gives up on the credentials of a
        # connection test is refused when it asks again.
        api.wait_for(f"{url}/execution/health/ping")
        yield served
    finally:
        scheduler.stop()
        api.stop()


def _open_form(page: Page, airflow: Airflow, conn_id: str) -> Locator:
    page.goto(f"{airflow.url}/connections")
    page.get_by_role("button", name="Add Connection").first.click()
    form = page.get_by_role("dialog")
    form.locator("input[name=connection_id]").fill(conn_id)
    form.get_by_role("combobox").fill("lakebase")
    page.keyboard.press("Enter")
    form.get_by_text("Standard Fields").wait_for()
    return form


def _fill(form: Locator, lake: LocalLakebase) -> None:
    fields = json.loads(lake.airflow_connection())
    form.locator("input[name=login]").fill(fields["login"])
    form.locator("input[name=password]").fill(fields["password"])
    form.locator("input[name=port]").fill(str(fields["port"]))
    form.get_by_text("Extra Fields", exact=True).click()
    for name, value in fields["extra"].items():
        form.locator(f"input[name=element_{name}]").fill(str(value))


def _press_test(page: Page, conn_id: str) -> str:
    """Press the Test button of a connection; what the message says that then appears."""
    page.set_viewport_size({"width": 1280, "height": 640})
    row = page.get_by_role("row", name=re.compile(conn_id))
    row.get_by_role("button", name="Test Connection").click()
    message = page.locator("[data-scope=toast][data-part=root]").first
    message.wait_for(timeout=60_000)
    page.get_by_text(re.compile("Test Connection (Successful|Failed)")).first.wait_for(timeout=60_000)
    message.hover()  # once it has slid in
    return message.inner_text()


def test_the_form_shows_every_setting_with_its_description(
    airflow: Airflow, page: Page, picture: Callable[[str], None]
) -> None:
    page.set_viewport_size({"width": 1280, "height": 1400})
    form = _open_form(page, airflow, "of_the_form")
    standard = form.inner_text()
    form.get_by_text("Extra Fields", exact=True).click()
    form.get_by_text("Application name", exact=True).wait_for()
    extra = form.inner_text()

    for label in ("Host", "Port", "Database", "Client ID or user", "Client secret or native password"):
        assert label in standard
    for row in settings():
        if row.name not in STANDARD:
            assert row.label in extra
            assert row.description in extra
    picture("airflow-connection-form")


def test_a_connection_made_by_the_form_passes_its_test(
    airflow: Airflow, page: Page, lakebase_server: LocalLakebase, picture: Callable[[str], None]
) -> None:
    form = _open_form(page, airflow, "made_by_the_form")
    _fill(form, lakebase_server)
    form.get_by_role("button", name="Save").click()
    form.wait_for(state="detached")

    message = _press_test(page, "made_by_the_form")

    assert "Test Connection Successful" in message
    for stage in STAGES:
        assert stage in message
    picture("airflow-connection-test")


def test_a_wrong_secret_is_named_with_what_to_do(
    airflow: Airflow, page: Page, lakebase_server: LocalLakebase, picture: Callable[[str], None]
) -> None:
    fields = json.loads(lakebase_server.airflow_connection())
    wrong = {**fields, "password": "dose-not-the-secret"}
    airflow.run("connections", "add", "wrong_secret", "--conn-json", json.dumps(wrong))
    page.goto(f"{airflow.url}/connections")

    message = _press_test(page, "wrong_secret")

    assert "Test Connection Failed" in message
    assert "Remedy" in message
    assert "client" in message
    assert "dose-not-the-secret" not in message
    picture("airflow-connection-test-failed")


def test_a_worker_tests_a_connection_too(airflow: Airflow, lakebase_server: LocalLakebase) -> None:
    fields = json.loads(lakebase_server.airflow_connection())
    token = airflow.request("/auth/token")["access_token"]
    bearer = {"Authorization": f"Bearer {token}"}
    body = {**fields, "connection_id": "on_a_worker", "extra": json.dumps(fields["extra"])}

    queued = airflow.request("/api/v2/connections/enqueue-test", body, **bearer)
    ticket = {"Airflow-Connection-Test-Token": queued["token"]}
    answer: dict[str, str] = {}

    def ended() -> bool:
        answer.update(airflow.request("/api/v2/connections/enqueue-test", **bearer, **ticket))
        return answer["state"] in ("success", "failed")

    # Not faster: one process answers these calls and the worker's.
    eventually(ended, within=120, every=1.0)

    assert answer["state"] == "success", answer
    assert "login" in answer["result_message"]
