"""The page in Airflow's web interface, as a person sees it: light and dark, wide and narrow."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from lakebase_provider.core import LakebaseClient
from lakebase_provider.local import LocalLakebase
from tests.airflow.page_site import WRONG, PageSite
from tests.airflow_database import airflow_database
from tests.core.database.sessions.test_running_sessions import NAME, seen, sleeping

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

WHITE = "rgb(255, 255, 255)"
SHOP, SICK = "connections/lakebase_shop", "connections/lakebase_sick"


@pytest.fixture(scope="module")
def site(
    lakebase_server: LocalLakebase, tmp_path_factory: pytest.TempPathFactory, worker_id: str
) -> Iterator[PageSite]:
    database = airflow_database(tmp_path_factory, worker_id)
    site = PageSite(tmp_path_factory.mktemp("page"), database, lakebase_server)
    try:
        site.wait()
        yield site
    finally:
        site.stop()


@pytest.fixture
def client(lakebase_env: LocalLakebase) -> Iterator[LakebaseClient]:
    with LakebaseClient(lakebase_env.config()) as client:
        yield client


def log_in(context: BrowserContext, site: PageSite, name: str) -> None:
    context.add_cookies(
        [{"name": "_token", "value": site.token(name), "url": site.url, "httpOnly": True, "sameSite": "Lax"}]
    )


@pytest.fixture
def op(page: Page, site: PageSite) -> Page:
    log_in(page.context, site, "op")
    return page


def look_at_both(page: Page, site: PageSite) -> None:
    for name in (SHOP, SICK):
        page.goto(site.page + name)
        page.get_by_role("button", name="Check now").click()
        page.get_by_text("The way to the database").wait_for()


def test_it_is_a_page_of_airflow(
    op: Page, site: PageSite, client: LakebaseClient, picture: Callable[[str], None]
) -> None:
    look_at_both(op, site)
    op.goto(f"{site.url}/plugin/lakebase")
    frame = op.frame_locator("iframe")
    frame.get_by_role("link", name="lakebase_shop").wait_for(timeout=60_000)
    assert "failed at " in frame.locator("body").inner_text()
    picture("airflow-page")
    with sleeping(client):
        seen(client)
        frame.get_by_role("link", name="lakebase_shop").click()
        frame.get_by_role("button", name="Check now").click()
        row = frame.get_by_role("row", name=NAME.partition("@")[0])
        row.get_by_role("button", name="Cancel").wait_for()
        picture("airflow-page-connection")
        row.get_by_role("button", name="Cancel").click()
        frame.get_by_text("was cancelled").wait_for()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_it_is_seen_whole(
    op: Page,
    site: PageSite,
    lakebase_env: LocalLakebase,
    picture: Callable[[str], None],
    scheme: str,
    width: int,
) -> None:
    said: list[str] = []
    op.on("console", lambda message: said.append(message.text))
    asked: set[str] = set()
    op.on("request", lambda request: asked.add(request.url))
    op.set_viewport_size({"width": width, "height": 900})
    op.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    look_at_both(op, site)
    for name in ("", SHOP, SICK):
        op.goto(site.page + name)
        # What is wider than the screen is moved within its frame.
        assert op.evaluate("document.documentElement.scrollWidth") <= width
        paper = op.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (paper == WHITE) == (scheme == "light")
        assert WRONG not in op.content()
        if (name, scheme, width) == (SHOP, "dark", 360):
            picture("airflow-page-narrow")
    # Nothing but itself is asked for, and its own policy allows all that is in it.
    assert asked <= {site.page, site.page + SHOP, site.page + SICK, f"{site.origin}/favicon.ico"}
    assert [text for text in said if "favicon" not in text and "404" not in text] == []


def test_it_needs_no_script(browser: Browser, site: PageSite, lakebase_env: LocalLakebase) -> None:
    context = browser.new_context(java_script_enabled=False)
    try:
        log_in(context, site, "op")
        page = context.new_page()
        page.goto(site.page)
        page.get_by_role("row", name="lakebase_shop").get_by_role("button", name="Check now").click()
        page.get_by_text("All checks").wait_for()
        page.get_by_role("link", name="All connections").click()
        page.get_by_role("link", name="lakebase_sick").wait_for()
    finally:
        context.close()


def test_who_may_not_sees_why(page: Page, site: PageSite) -> None:
    log_in(page.context, site, "viewer")
    answer = page.goto(site.page)
    assert answer is not None
    assert answer.status == 403
    assert "You may not read connections." in page.inner_text("body")


def test_another_site_can_neither_frame_it_nor_send_its_forms(
    op: Page, site: PageSite, lakebase_env: LocalLakebase
) -> None:
    op.goto(site.page + SHOP)
    before = lakebase_env.admin.counters()
    # The same server by another name is another site, to which the form is sent from a page of its own.
    other = site.page.replace("127.0.0.1", "localhost")
    attack = f'<form method="post" action="{site.page + SHOP}"><input name="do" value="check"></form>'
    op.route(
        other,
        lambda route: route.fulfill(
            body=attack + f'<iframe src="{site.page}"></iframe>', content_type="text/html"
        ),
    )
    op.goto(other)
    assert "lakebase_shop" not in "".join(
        frame.locator("body").inner_text() for frame in op.frames if frame.url.startswith(site.page)
    )
    with op.expect_navigation():
        op.evaluate("document.forms[0].submit()")
    assert "lakebase_shop" not in op.inner_text("body")
    after = lakebase_env.admin.counters()
    assert (after.logins, after.mints) == (before.logins, before.mints)
