"""What a reader of a page copies: its fences of code, in their order."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

#: A comment may stand before a fence: why it is not run, or the file that its text is saved as.
_FENCE = re.compile(
    r"(?:^<!-- (?P<mark>not run|file): (?P<said>[^\n]+) -->\n)?^```(?P<language>\w+)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Snippet:
    """A fence of code.

    Attributes:
        language: As the fence says.
        text: The code.
        line: Number of the line of the page that the code begins on.
        file: The file that the reader saves it as; None to run it at once.
        not_run: Why no test runs it; None if one does.
    """

    language: str
    text: str
    line: int
    file: str | None
    not_run: str | None


def snippets(page: Path) -> list[Snippet]:
    """The snippets of a page; what is included from `example_dags/` is run by the examples' own tests."""
    text = page.read_text()
    found = []
    for match in _FENCE.finditer(text):
        before = text[: match.start("text")]
        said = {match["mark"]: match["said"]}
        found.append(
            Snippet(
                language=match["language"],
                text=match["text"],
                line=before.count("\n") + 1,
                file=said.get("file"),
                not_run=said.get("not run"),
            )
        )
    return found
