"""Every snippet of the documentation runs, in its page's order, on a local Lakebase without tables."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from lakebase_provider.core import LakebaseClient
from lakebase_provider.local import LocalLakebase
from tests.airflow_database import airflow_database
from tests.core.conftest import empty_database
from tests.docs.snippets import PAGES, ROOT, Snippet, snippets
from tests.docs.surroundings import AFTER, BEFORE

BIN = Path(sys.executable).parent


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def with_snippets() -> list[Path]:
    return [page for page in PAGES if any(snippet.not_run is None for snippet in snippets(page))]


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """The database of an Airflow, which each page copies."""
    return airflow_database(tmp_path_factory, worker_id)


@pytest.fixture(scope="module")
def server() -> Iterator[LocalLakebase]:
    """The local Lakebase of all pages that do not start one: what they leave there is no other test's."""
    with LocalLakebase() as lake:
        yield lake


def environment(folder: Path, variables: dict[str, str]) -> dict[str, str]:
    """What a reader's shell has: the commands, a home, and `variables`; nothing of the developer's."""
    kept = ("LANG", "TMPDIR", "COVERAGE_PROCESS_START")
    return {
        **{name: os.environ[name] for name in kept if name in os.environ},
        "PATH": f"{BIN}:/usr/local/bin:/usr/bin:/bin",
        "PYTHONPATH": str(ROOT),
        "HOME": str(folder),
        "XDG_RUNTIME_DIR": str(folder),
        "AIRFLOW_HOME": str(folder),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "NO_PROXY": "localhost,127.0.0.1,::1",
        **variables,
    }


@pytest.mark.parametrize("page", with_snippets(), ids=name_of)
def test_the_page_does_what_it_says(page: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    text = page.read_text()
    tmp_path.chmod(0o700)  # as a runtime folder has to be
    with ExitStack() as stack:
        variables = {}
        # The pages to start with begin from nothing.
        if page.parent.name != "start":
            lake = request.getfixturevalue("server")
            lake.admin.reset()
            with LakebaseClient(lake.config()) as client:
                empty_database(client)
            variables = lake.env()
            if "airflow" in text:
                shutil.copy(request.getfixturevalue("migrated"), tmp_path)
                variables["AIRFLOW_CONN_LAKEBASE_DEFAULT"] = lake.airflow_connection()
        elif "airflow db migrate" in text:
            # Its reader's is new; to make it takes Airflow ten seconds.
            (tmp_path / "airflow").mkdir()
            shutil.copy(request.getfixturevalue("migrated"), tmp_path / "airflow")
        shell = environment(tmp_path, variables)
        if "lakebase local up" in text:
            # Down already, unless a snippet before has failed.
            down = [BIN / "lakebase", "local", "down"]
            stack.callback(subprocess.run, down, env=shell, capture_output=True, check=False)
        done = subprocess.run(
            [sys.executable, "-m", "tests.docs.run_page", str(page)],
            cwd=tmp_path,
            env=shell,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stdout[-6000:]


def every_snippet() -> list[tuple[Path, Snippet]]:
    return [(page, snippet) for page in PAGES for snippet in snippets(page)]


def test_what_is_not_run_says_why() -> None:
    for page, snippet in every_snippet():
        if snippet.not_run is not None:
            assert len(snippet.not_run.split()) > 2, f"{name_of(page)}:{snippet.line}"


def test_no_snippet_is_overlooked() -> None:
    for page in PAGES:
        fences = [line for line in page.read_text().splitlines() if line.startswith("```") and line != "```"]
        plain = [fence for fence in fences if not fence.startswith("```{")]
        assert len(plain) == len(snippets(page)), name_of(page)


def test_surroundings_are_of_pages_that_exist() -> None:
    assert {*BEFORE, *AFTER} <= {name_of(page) for page in with_snippets()}
