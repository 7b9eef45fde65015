"""The HTML report, as a browser shows it: whole, in light and dark, on a wide screen and on a telephone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lakebase_provider.core import html_report
from tests.core.upkeep.test_report import HEALTH, inspection

if TYPE_CHECKING:
    from playwright.sync_api import Page

WHITE = "rgb(255, 255, 255)"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_the_report_is_seen_whole(
    page: Page, picture: Callable[[str], None], tmp_path: Path, scheme: str, width: int
) -> None:
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    file = tmp_path / "report.html"
    file.write_text(html_report(inspection=inspection(name="public.orders"), health=HEALTH), encoding="utf-8")
    page.goto(file.as_uri())
    # Nothing but itself is asked for, and its own policy allows all that is in it.
    assert asked == [file.as_uri()]
    assert said == []
    # What is wider than the screen is moved within its frame.
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (paper == WHITE) == (scheme == "light")
    bar = page.locator("td.when svg").first.bounding_box()
    assert bar is not None
    assert bar["width"] >= 60
    picture(f"report-{scheme}-{width}")
