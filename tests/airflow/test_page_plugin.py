"""The plugin in each of Airflow's processes: what it costs, and when there is no page."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import warnings
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from lakebase_provider.core.upkeep.looking.look import Look, empty_look
from tests.airflow.conftest import OLD_AIRFLOW

with warnings.catch_warnings():
    # What Airflow 3.1's API server imports calls something of anyio by its former name.
    warnings.filterwarnings("ignore", "The anyio.abc.BlockingPortal alias", DeprecationWarning)
    from lakebase_provider.plugins import _access, _app, _pages, page
    from lakebase_provider.plugins._looking import Looking

#: What a process imports that has Airflow's plugins already.
BROUGHT = """
import importlib, json, sys
importlib.import_module(sys.argv[1])
before = set(sys.modules)
from lakebase_provider.plugins.page import LakebasePlugin
plugin = LakebasePlugin()
print(json.dumps([sorted(set(sys.modules) - before), len(plugin.fastapi_apps)]))
"""


@pytest.mark.parametrize(
    "manager",
    [
        "airflow.plugins_manager",
        pytest.param(
            "airflow.sdk.plugins_manager",
            marks=pytest.mark.skipif(OLD_AIRFLOW, reason="Airflow 3.1 has but one module of plugins"),
        ),
    ],
)
def test_it_brings_nothing_into_a_scheduler_or_worker(manager: str) -> None:
    env = {**os.environ, "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING"}
    done = subprocess.run(
        [sys.executable, "-c", BROUGHT, manager], capture_output=True, text=True, check=True, env=env
    )
    brought, apps = json.loads(done.stdout.splitlines()[-1])
    assert set(brought) <= {
        "lakebase_provider",
        "lakebase_provider.version",
        "lakebase_provider.plugins",
        "lakebase_provider.plugins.page",
    }
    assert apps == 1


def test_it_is_found_by_its_entry_point() -> None:
    (found,) = {point for point in entry_points(group="airflow.plugins") if point.name == "lakebase"}
    assert found.load() is page.LakebasePlugin


@pytest.mark.parametrize(
    ("version", "base", "href"),
    [
        ("3.1.2", "http://localhost:8080", "/lakebase/"),
        ("3.3.2", "https://airflow.example/of/a-team/", "/of/a-team/lakebase/"),
        ("3.2.0rc1", "/only-a-path", "/only-a-path/lakebase/"),
        ("4.0.0.dev0", "", "/lakebase/"),
    ],
)
def test_it_has_its_place_below_the_base_path(
    monkeypatch: pytest.MonkeyPatch, version: str, base: str, href: str
) -> None:
    monkeypatch.setattr(page, "_airflow", version)
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", base)
    plugin = page.LakebasePlugin()
    (view,) = plugin.external_views
    assert view["href"] == href
    assert [one["url_prefix"] for one in plugin.fastapi_apps] == ["/lakebase"]


@pytest.mark.parametrize("version", ["3.1.0", "3.1.1", "3.0.6"])
def test_there_is_none_before_airflow_can_guard_it(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setattr(page, "_airflow", version)
    plugin = page.LakebasePlugin()
    assert (plugin.fastapi_apps, plugin.external_views) == ([], [])


def test_a_deployment_may_do_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__LAKEBASE__PAGE", "False")
    plugin = page.LakebasePlugin()
    assert (plugin.fastapi_apps, plugin.external_views) == ([], [])


@pytest.mark.parametrize(
    ("value", "connects"),
    [("Enabled", True), (" enabled ", True), ("Disabled", False), ("Hidden", False), ("", False)],
)
def test_it_connects_where_airflow_may_test_connections(
    monkeypatch: pytest.MonkeyPatch, value: str, connects: bool
) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__TEST_CONNECTION", value)
    assert _access.may_connect() == connects
    if connects:
        _app._must_connect()
        return
    with pytest.raises(_app.HTTPException) as caught:
        _app._must_connect()
    assert caught.value.status_code == 403
    html = _pages.shown("prod", None, [], lambda *_: "mark", works=True, connects=False)
    assert "<form" not in html
    assert "test_connection" in html
    assert "<form" not in _pages.listed([("prod", None, True)], lambda *_: "mark", connects=False)


@pytest.mark.parametrize(
    ("value", "ours"),
    [
        ('{"conn_type": "lakebase"}', True),
        ("lakebase://x@y/z", True),
        ('{"conn_type": "postgres"}', False),
        ("postgres://x@y/z", False),
        ("{", False),
        ("[]", False),
        ("", False),
        ("http://[", False),
    ],
)
def test_a_connection_of_the_environment_is_known_by_its_type(
    monkeypatch: pytest.MonkeyPatch, value: str, ours: bool
) -> None:
    for name in [name for name in os.environ if name.startswith("AIRFLOW_CONN_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AIRFLOW_CONN_THAT_ONE", value)
    assert list(_access._of_the_environment()) == (["that_one"] if ours else [])


class _Held(Looking):
    """A look that does not end until it is told to."""

    def __init__(self) -> None:
        super().__init__(patience=0.05)
        self.end = threading.Event()

    def _look(self, conn_id: str) -> tuple[Look, str]:
        try:
            self.end.wait(60)
            return empty_look(), ""
        finally:
            self._busy.discard(conn_id)


async def test_nobody_waits_longer_than_a_person_does(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    looking = _Held()
    look, said = await looking.look("prod")
    assert look is None
    assert said == "It was not done within 0.05 s."
    monkeypatch.setenv("AIRFLOW__LAKEBASE__PAGE_FOLDER", str(tmp_path))
    assert "look goes on" in (await looking.look("dev"))[1]
    # Nobody makes the server begin it again and again.
    assert "being looked at" in (await looking.look("prod"))[1]
    looking.end.set()
    while looking._busy:
        await asyncio.sleep(0)
