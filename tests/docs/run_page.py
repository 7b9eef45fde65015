"""Does what a page says, in its order, as a reader would: ``python -m tests.docs.run_page PAGE``.

It runs in a folder and with an environment of its own, which the test gives it. Python shares one namespace
for the whole page, and shells their variables until ``lakebase local down`` ends what those lead to.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.docs.snippets import ROOT, Snippet, snippets
from tests.docs.surroundings import AFTER, BEFORE


def run_page(page: Path) -> None:
    """Run the snippets of a page, within what it takes for granted.

    Raises:
        Exception: A snippet's own; the traceback has the line of the page.
    """
    name = str(page.relative_to(ROOT))
    namespace: dict[str, Any] = {"__name__": "__main__"}
    _run_python(BEFORE.get(name, ""), f"before {name}", namespace)
    environment = dict(os.environ)
    for snippet in snippets(page):
        if snippet.not_run is not None:
            continue
        if snippet.file is not None:
            Path(snippet.file).parent.mkdir(parents=True, exist_ok=True)
            Path(snippet.file).write_text(snippet.text)
        elif snippet.language == "python":
            _run_python("\n" * (snippet.line - 1) + snippet.text, str(page), namespace)
        elif snippet.language == "sh":
            _run_shell(snippet, page)
            if "lakebase local down" in snippet.text:
                _set_environment(environment)
        else:
            raise ValueError(f"{page}:{snippet.line}: nothing runs {snippet.language}; say why, or save it")
    _run_python(AFTER.get(name, ""), f"after {name}", namespace)


def _run_python(code: str, source: str, namespace: dict[str, Any]) -> None:
    exec(compile(code, source, "exec"), namespace)  # noqa: S102 # it is what this module is for


def _run_shell(snippet: Snippet, page: Path) -> None:
    with tempfile.NamedTemporaryFile() as state:
        script = f"{snippet.text}\nenv -0 > {state.name}"
        done = subprocess.run(["/bin/bash", "-euo", "pipefail", "-c", script], timeout=240, check=False)
        if done.returncode:
            raise RuntimeError(f"{page}:{snippet.line} ended with {done.returncode}")
        variables = state.read().decode().rstrip("\0").split("\0")
    _set_environment(dict(variable.split("=", 1) for variable in variables))


def _set_environment(variables: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(variables)


if __name__ == "__main__":
    run_page(Path(sys.argv[1]))
