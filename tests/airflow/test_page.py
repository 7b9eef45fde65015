"""The page in Airflow's web interface, on a real API server behind a base path."""

from __future__ import annotations

import re
from collections.abc import Iterator

import psycopg
import pytest

from lakebase_provider.core import LakebaseClient
from lakebase_provider.local import LocalLakebase
from tests.airflow.page_site import WRONG, PageSite, Visitor
from tests.airflow_database import airflow_database
from tests.core.database.sessions.test_running_sessions import seen, sleeping
from tests.core.upkeep.test_report import Elements
from tests.eventually import eventually

SHOP, SICK = "connections/lakebase_shop", "connections/lakebase_sick"
HOSTILE = "<script>alert(1)</script>\"'@run"


@pytest.fixture(scope="module")
def site(
    lakebase_server: LocalLakebase, tmp_path_factory: pytest.TempPathFactory, worker_id: str
) -> Iterator[PageSite]:
    database = airflow_database(tmp_path_factory, worker_id)
    site = PageSite(tmp_path_factory.mktemp("page"), database, lakebase_server, path="/of/a-team")
    try:
        site.wait()
        yield site
    finally:
        site.stop()


@pytest.fixture
def client(lakebase_env: LocalLakebase) -> Iterator[LakebaseClient]:
    with LakebaseClient(lakebase_env.config()) as client:
        yield client


def sessions_and_mints(lake: LocalLakebase) -> tuple[int, int]:
    counters = lake.admin.counters()
    return counters.logins, counters.mints


@pytest.mark.parametrize("path", ["", SHOP, "connections/none_such"])
@pytest.mark.parametrize(
    ("name", "status"),
    [(None, 401), ("viewer", 403), ("user", 403), ("reader", 200), ("op", 200), ("admin", 200)],
)
def test_it_is_for_those_who_may_read_connections(
    site: PageSite, name: str | None, status: int, path: str
) -> None:
    answer = site.visitor(name).get(path)
    assert answer.status == status, site.log()
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert "unsafe" not in answer.headers["Content-Security-Policy"]
    assert answer.headers["Cache-Control"] == "no-store"
    if status != 200:
        assert "lakebase_shop" not in answer.text


@pytest.mark.parametrize(("name", "status"), [(None, 401), ("viewer", 403), ("user", 403), ("reader", 403)])
def test_it_is_worked_on_by_those_who_may_edit_connections(
    site: PageSite, lakebase_env: LocalLakebase, name: str | None, status: int
) -> None:
    admin, before = site.visitor("admin"), sessions_and_mints(lakebase_env)
    form = admin.get(SHOP).form(do="check")
    visitor = site.visitor(name)
    visitor.cookies["_lakebase_form"] = admin.cookies["_lakebase_form"]
    assert visitor.post(SHOP, form).status == status
    assert sessions_and_mints(lakebase_env) == before


def test_who_may_only_read_is_offered_nothing_else(site: PageSite) -> None:
    reader = site.visitor("reader")
    assert "lakebase_shop" in reader.get().text
    assert reader.get().forms() == []
    assert reader.get(SHOP).forms() == []


def test_it_lists_what_is_ours_and_connects_to_nothing_unasked(
    site: PageSite, lakebase_env: LocalLakebase
) -> None:
    before, op = sessions_and_mints(lakebase_env), site.visitor("op")
    page = op.get().text
    assert "lakebase_shop" in page  # of the metadata database
    assert "lakebase_sick" in page  # of the environment
    assert "other" not in Elements(page).text
    assert op.get(SICK).status == 200
    assert sessions_and_mints(lakebase_env) == before


def test_a_look_shows_the_database_and_is_kept(site: PageSite, lakebase_env: LocalLakebase) -> None:
    op = site.visitor("op")
    answer = op.post(SHOP, op.get(SHOP).form(do="check"))
    assert answer.status == 200, site.log()
    for page in (answer.text, op.get(SHOP).text):
        elements = Elements(page)
        assert elements.open == []
        assert "script" not in elements.tags
        for shown in ("Sessions", "Branches", "production", "The way to the database", "All checks"):
            assert shown in elements.text
    assert "UTC, " in op.get().text
    op.post(SHOP, op.get(SHOP).form(do="check"))
    assert "History" in op.get(SHOP).text


def test_one_that_is_sick_says_why_and_leaves_the_others_alone(
    site: PageSite, lakebase_env: LocalLakebase
) -> None:
    op = site.visitor("op")
    page = op.post(SICK, op.get(SICK).form(do="check")).text
    assert "failed" in page
    assert WRONG not in page
    listed = op.get()
    assert listed.status == 200
    assert re.search("failed</span> at (resolve|credential)", listed.text), listed.text
    assert "lakebase_shop" in listed.text
    other = op.post("connections/other", {"do": "check", "mark": "x"})
    assert other.status == 403


def test_a_connection_of_another_type_is_not_looked_at(site: PageSite) -> None:
    op = site.visitor("op")
    page = op.post("connections/other", op.get("connections/other").form(do="check")).text
    assert "is of type &#x27;postgres&#x27;" in page


def test_a_statement_is_cancelled_by_its_button(
    site: PageSite, client: LakebaseClient, lakebase_env: LocalLakebase
) -> None:
    op = site.visitor("op")
    with sleeping(client, HOSTILE) as ended:
        pid = str(seen(client, HOSTILE).pid)
        page = op.post(SHOP, op.get(SHOP).form(do="check"))
        assert "<script>" not in page.text
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page.text
        form = page.form(do="cancel", pid=pid)
        # Nothing of it can be changed.
        assert op.post(SHOP, {**form, "pid": "1"}).status == 403
        assert op.post(SICK, form).status == 403
        assert op.post(SHOP, {**form, "pid": "all"}).status == 400
        assert ended == []
        answer = op.post(SHOP, form)
        assert f"The statement of pid {pid} was cancelled." in answer.text
        eventually(lambda: bool(ended))
        assert isinstance(ended[0], psycopg.errors.QueryCanceled)
        assert "That statement has ended already." in op.post(SHOP, form).text


@pytest.mark.parametrize(
    "attack",
    ["no_mark", "wrong_mark", "others_mark", "cross_site", "same_site", "origin", "no_cookie", "json"],
)
def test_a_form_of_somebody_else_does_nothing(
    site: PageSite, lakebase_env: LocalLakebase, attack: str
) -> None:
    victim, attacker = site.visitor("op"), site.visitor("admin")
    form = victim.get(SHOP).form(do="check")
    before = sessions_and_mints(lakebase_env)
    headers = {}
    if attack == "no_mark":
        del form["mark"]
    elif attack == "wrong_mark":
        form["mark"] = "é"
    elif attack == "others_mark":
        form = attacker.get(SHOP).form(do="check")
    elif attack == "no_cookie":
        # SameSite=Strict: what another site makes a browser send has it not.
        del victim.cookies["_lakebase_form"]
    elif attack == "origin":
        # Of a browser that says no more.
        headers = {"Sec_Fetch_Site": "", "Origin": "https://attacker.example"}
    elif attack == "json":
        headers = {"Content_Type": "text/plain"}
    else:
        headers = {"Sec_Fetch_Site": attack.replace("_", "-")}
    answer = victim.post(SHOP, form, **headers)
    assert answer.status == (415 if attack == "json" else 403)
    assert sessions_and_mints(lakebase_env) == before


def test_a_browser_that_names_but_its_origin_is_served(site: PageSite) -> None:
    op = site.visitor("op")
    form = op.get(SICK).form(do="check")
    assert op.post(SICK, form, Sec_Fetch_Site="", Origin=site.origin).status == 200


def test_the_cookie_stays_with_the_page(site: PageSite) -> None:
    cookie = site.visitor("op").get().headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert "Path=/of/a-team/lakebase" in cookie


def test_all_addresses_are_below_the_base_path(site: PageSite) -> None:
    op = site.visitor("op")
    for path in ("", SHOP):
        page = op.get(path).text
        assert 'href="/' not in page
        assert 'action="/' not in page
    plugins = Visitor(site.url, op.cookies).get("/api/v2/plugins").text
    assert '"href":"/of/a-team/lakebase/"' in plugins.replace(" ", "")
    assert '"url_route":"lakebase"' in plugins.replace(" ", "")


def test_a_form_of_any_length_is_refused(site: PageSite) -> None:
    op = site.visitor("op")
    form = op.get(SHOP).form(do="check")
    assert op.post(SHOP, {**form, "more": "x" * 100_000}).status == 413


def test_there_is_no_page_of_anything_else(site: PageSite) -> None:
    op = site.visitor("op")
    for path in ("docs", "openapi.json", "connections", "../lakebase/%2e%2e/x"):
        assert op.get(path).status == 404
