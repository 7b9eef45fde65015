"""No name of a file leads elsewhere than to a plain file of an allowed protocol; no link is written through.

Devices are nodes that the tests make in folders of their own, with the numbers of the null device, which
takes and gives nothing.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import psycopg
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from upath import UPath

from lakebase_provider.cli import main
from lakebase_provider.core import close_shared_clients
from lakebase_provider.core.base.files import plain_files
from lakebase_provider.core.bulk.files.locations import ALLOWED_FILE_PROTOCOLS, locate
from lakebase_provider.core.errors import ConfigError
from lakebase_provider.demo.run import run_example
from lakebase_provider.hooks.lakebase import LakebaseHook
from lakebase_provider.local import LocalLakebase
from tests.airflow.conftest import connection_fields, define

from .file_fronts import READERS, WRITERS, Front

# What waits for somebody who never comes shall not wait for the suite's own limit.
pytestmark = pytest.mark.timeout(60)

FRONTS = [*READERS, *WRITERS]
#: Those that take a text for a file; to reject_to it names a table, and a Path has no protocol.
BY_TEXT = [front for front in FRONTS if front.argument != "reject_to"]
#: A row of the table, as each front reads it.
ROW = "word\nlakebase\n"


@pytest.fixture(scope="module")
def words(lakebase_server: LocalLakebase) -> None:
    lakebase_server.admin.execute("drop table if exists words; create table words (word text)")
    lakebase_server.admin.execute(f'alter table words owner to "{lakebase_server.client_id}"')


@pytest.fixture
def connected(
    lakebase_env: LocalLakebase, words: None, monkeypatch: pytest.MonkeyPatch
) -> Iterator[LocalLakebase]:
    """Every front leads to the local Lakebase, for what is refused whatever the fronts' table holds."""
    define(monkeypatch, **connection_fields(lakebase_env))
    yield lakebase_env
    close_shared_clients()


@pytest.fixture
def lake(connected: LocalLakebase) -> LocalLakebase:
    """With one row in the fronts' table."""
    LakebaseHook().run(
        "drop table if exists words; create table words (word text); insert into words values ('x')"
    )
    return connected


def each(fronts: list[Front]) -> Any:
    return pytest.mark.parametrize("front", fronts, ids=str)


def refused(front: Front, name: Any, *, match: str) -> ConfigError:
    with pytest.raises(ConfigError, match=match) as caught:
        front.attempt(name)
    assert front.argument in str(caught.value)
    return caught.value


# 1. Names.


@each(BY_TEXT)
@pytest.mark.parametrize(
    "uri",
    [
        "https://evil.example/x",
        "HTTP://evil.example/x",
        "ftp://u:canary-word@evil.example/x",
        "sftp://evil.example/x",
        "ssh://evil.example/x",
        "github://owner:repo@main/x",
        "zip://x",
        "dir://x",
        "reference://x",
        "/data/s3://x",
        " s3://bucket/x",
        "://x",
    ],
)
def test_protocols_that_nobody_allowed_are_refused(connected: LocalLakebase, front: Front, uri: str) -> None:
    error = refused(front, uri + front.suffix, match="protocol")
    assert "canary" not in str(error)
    assert ALLOWED_FILE_PROTOCOLS in error.remedy


@each(BY_TEXT)
@pytest.mark.parametrize("scheme", ["file", "FILE", "local"])
def test_a_local_uri_with_another_host_is_refused(
    connected: LocalLakebase, front: Front, scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(front, f"{scheme}://evil/x{front.suffix}", match="names the host 'evil'")
    assert list(tmp_path.iterdir()) == []


def test_a_local_uri_may_name_localhost(tmp_path: Path) -> None:
    for host in ("", "localhost"):
        assert locate(f"file://{host}{tmp_path}/x.csv", "source").local == tmp_path / "x.csv"
    with pytest.raises(ConfigError, match="names the host"):
        locate(f"file://localhost@evil{tmp_path}", "source")


@each(BY_TEXT)
@pytest.mark.parametrize(
    "chain", ["simplecache::memory://", "dir::file://", "zip://x::file://", "simplecache::"]
)
def test_file_systems_are_not_chained(
    connected: LocalLakebase, front: Front, chain: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Not even of protocols that are allowed.
    monkeypatch.setenv(ALLOWED_FILE_PROTOCOLS, "simplecache,dir,zip")
    refused(front, f"{chain}{tmp_path}/x{front.suffix}", match="'::'")
    assert list(tmp_path.iterdir()) == []


@each(FRONTS)
@pytest.mark.parametrize("control", ["\0", "\n", "\x1b", "\x85", "\ud800"], ids=ascii)
def test_names_hold_no_control_characters(
    connected: LocalLakebase, front: Front, control: str, tmp_path: Path
) -> None:
    refused(front, f"{tmp_path}/a{control}b{front.suffix}", match=rf"U\+{ord(control):04X}")
    assert list(tmp_path.iterdir()) == []


class _Lakestore(MemoryFileSystem):
    protocol = "lakestore"
    store: dict[str, Any] = {}  # noqa: RUF012 # as fsspec has it
    pseudo_dirs = [""]  # noqa: RUF012


@pytest.fixture
def lakestore() -> Iterator[None]:
    fsspec.register_implementation("lakestore", _Lakestore, clobber=True)
    yield
    _Lakestore.store.clear()


def test_a_deployment_allows_further_protocols(
    lake: LocalLakebase, lakestore: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = READERS[0], WRITERS[0]
    name = "lakestore://bucket/x.csv"
    refused(writer, name, match="protocol is 'lakestore'")
    monkeypatch.setenv(ALLOWED_FILE_PROTOCOLS, "sftp, LakeStore ,")
    writer.attempt(name)
    reader.attempt(name)
    assert LakebaseHook().get_records("select word from words order by 1") == [("lakebase",), ("x",)]
    refused(reader, f"simplecache::{name}", match="'::'")
    monkeypatch.setenv(ALLOWED_FILE_PROTOCOLS, "lakestore://")
    refused(writer, name, match=ALLOWED_FILE_PROTOCOLS)


def test_path_objects_are_held_to_the_same(lake: LocalLakebase, tmp_path: Path) -> None:
    from airflow.sdk import ObjectStoragePath

    class Lying:
        """As an object may call its file system by another name than that has itself."""

        protocol = "s3"
        path = "x.csv"
        suffix = ".csv"
        fs = fsspec.filesystem("dir", path=str(tmp_path), fs=fsspec.filesystem("file"))

        def __str__(self) -> str:
            return "s3://x.csv"

        def open(self, mode: str) -> Any:
            raise AssertionError("it was opened")

    file = tmp_path / "x.csv"
    file.write_text(ROW)
    for given in (
        Lying(),
        UPath(f"simplecache::file://{file}"),
        UPath(f"memory://x::file://{tmp_path}/x.csv"),
        ObjectStoragePath(f"simplecache::file://{file}"),
        ObjectStoragePath("github://owner/x.csv"),
    ):
        for front in (READERS[0], READERS[2], WRITERS[0], WRITERS[3]):
            refused(front, given, match="protocol|'::'")
    for given in (
        UPath(f"file://{file}"),
        UPath(file),
        ObjectStoragePath(f"file://{file}"),
        UPath("memory://x.csv"),
    ):
        WRITERS[0].attempt(given)
        READERS[0].attempt(given)
    assert file.read_text() == ROW


def test_a_local_file_may_have_colons_in_its_name(lake: LocalLakebase, tmp_path: Path) -> None:
    file = tmp_path / "a::b.csv"
    WRITERS[0].attempt(file)
    READERS[0].attempt(file)
    assert file.read_text() == ROW


@pytest.mark.parametrize("given", ["", None, 1, b"/x.csv"], ids=repr)
def test_what_is_no_name_is_refused(given: Any) -> None:
    with pytest.raises(ConfigError, match="source"):
        locate(given, "source")


def test_a_protocol_that_cannot_be_had_says_so(lake: LocalLakebase) -> None:
    refused(WRITERS[0], "s3://bucket/x.csv", match="s3")
    refused(WRITERS[3], "s3://bucket/x.csv", match="s3")


# 2. Links.


def written(front: Front, path: Path) -> None:
    front.attempt(path)
    assert path.is_file()
    assert not path.is_symlink()


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    (tmp_path / "elsewhere").mkdir()
    file = tmp_path / "elsewhere" / "victim"
    file.write_text("precious")
    return file


@each(WRITERS)
@pytest.mark.parametrize("dangling", [False, True])
def test_no_link_is_written_through(
    connected: LocalLakebase, front: Front, tmp_path: Path, victim: Path, dangling: bool
) -> None:
    link = tmp_path / f"x{front.suffix}"
    leads_to = victim.with_name("not-there") if dangling else victim
    link.symlink_to(leads_to)
    refused(front, link, match="symbolic link")
    assert link.readlink() == leads_to
    assert [file.name for file in victim.parent.iterdir()] == ["victim"]
    assert victim.read_text() == "precious"
    # Nor is anything left beside it.
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(["elsewhere", link.name])


@each(WRITERS)
def test_a_hard_link_is_replaced(lake: LocalLakebase, front: Front, tmp_path: Path, victim: Path) -> None:
    link = tmp_path / f"x{front.suffix}"
    link.hardlink_to(victim)
    written(front, link)
    assert victim.read_text() == "precious"


@each(WRITERS)
def test_what_lies_at_the_unfinished_files_name_is_not_written_to(
    lake: LocalLakebase, front: Front, tmp_path: Path, victim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"x{front.suffix}"
    # As if somebody had guessed the name, and were faster.
    made = os.open

    def planted(name: Any, flags: int, *more: Any, **options: Any) -> int:
        if flags & os.O_CREAT and str(name).startswith(str(tmp_path)) and not os.path.lexists(name):
            Path(name).symlink_to(victim)
        return made(name, flags, *more, **options)

    monkeypatch.setattr(plain_files.os, "open", planted)
    with pytest.raises(Exception, match="File exists"):
        front.attempt(path)
    assert victim.read_text() == "precious"


@each(WRITERS)
def test_a_link_that_comes_while_the_file_is_written_is_replaced(
    lake: LocalLakebase, front: Front, tmp_path: Path, victim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"x{front.suffix}"
    made = os.open

    def planted(name: Any, flags: int, *more: Any, **options: Any) -> int:
        if flags & os.O_CREAT and str(name).startswith(str(tmp_path)):
            path.symlink_to(victim)
        return made(name, flags, *more, **options)

    monkeypatch.setattr(plain_files.os, "open", planted)
    front.attempt(path)
    assert path.is_file()
    assert victim.read_text() == "precious"


@each(FRONTS)
def test_a_folder_on_the_way_may_be_a_link(
    lake: LocalLakebase, front: Front, tmp_path: Path, victim: Path
) -> None:
    (tmp_path / "data").symlink_to(victim.parent)
    path = tmp_path / "data" / f"x{front.suffix}"
    if front in WRITERS:
        return written(front, path)
    _content(path)
    return front.attempt(path)


@each(WRITERS)
def test_a_file_that_is_replaced_keeps_its_permissions(
    lake: LocalLakebase, front: Front, tmp_path: Path
) -> None:
    path = tmp_path / f"x{front.suffix}"
    path.write_text("before")
    path.chmod(0o600)
    written(front, path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_may_be_read_by_a_link(lake: LocalLakebase, tmp_path: Path) -> None:
    for front in READERS:
        file, link = tmp_path / f"first{front.suffix}", tmp_path / f"latest{front.suffix}"
        _content(file)
        link.unlink(missing_ok=True)
        link.symlink_to(file)
        front.attempt(link)


def test_the_parts_of_an_unload_follow_no_link(lake: LocalLakebase, tmp_path: Path, victim: Path) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "part-00000.csv").symlink_to(victim)
    parts = Front("parts", "to", "", _parts)
    refused(parts, tmp_path / "parts", match="symbolic link")
    assert victim.read_text() == "precious"


def _parts(to: Any) -> None:
    from lakebase_provider.core import LakebaseClient, LakebaseConfig

    with LakebaseClient(LakebaseConfig.from_env()) as client:
        client.unload("select 1 as i", to, "csv", parallel=2, by="i")


def _content(path: Path) -> None:
    if path.suffix == ".parquet":
        import pyarrow as pa
        from pyarrow import parquet

        parquet.write_table(pa.table({"word": ["lakebase"]}), path)
    elif path.suffix == ".arrow":
        import pyarrow as pa

        table = pa.table({"word": ["lakebase"]})
        with pa.ipc.new_file(path, table.schema) as file:
            file.write_table(table)
    elif path.suffix == ".jsonl":
        path.write_text('{"word": "lakebase"}\n')
    else:
        path.write_text("lakebase\n" if path.suffix == ".tsv" else ROW)


# 3. What is no file.


def _socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # a socket's path is short
    try:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(path.name)
    finally:
        os.chdir(here)


def _device(path: Path) -> None:
    try:
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("only root makes devices")


NO_FILES: dict[str, Callable[[Path], object]] = {
    "named pipe": os.mkfifo,
    "socket": _socket,
    "device": _device,
    "folder": Path.mkdir,
}


@each(FRONTS)
@pytest.mark.parametrize("kind", NO_FILES)
@pytest.mark.parametrize("linked", [False, True])
def test_what_is_no_file_is_neither_read_nor_written(
    connected: LocalLakebase, front: Front, kind: str, linked: bool, tmp_path: Path
) -> None:
    place = path = tmp_path / f"x{front.suffix}"
    NO_FILES[kind](place)
    if linked:
        path = tmp_path / f"link{front.suffix}"
        path.symlink_to(place)
    before = place.stat()
    refused(front, path, match="symbolic link" if linked and front in WRITERS else kind)
    after = place.stat()
    assert (after.st_ino, after.st_mode, after.st_rdev) == (before.st_ino, before.st_mode, before.st_rdev)
    assert len(list(tmp_path.iterdir())) == 1 + linked


@each(READERS)
@pytest.mark.parametrize("kind", ["named pipe", "socket", "device"])
def test_what_takes_a_files_place_before_it_is_opened_is_not_read(
    lake: LocalLakebase, front: Front, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"x{front.suffix}"
    _content(path)
    opened = os.open

    def swapped(name: Any, flags: int, *more: Any, **options: Any) -> int:
        if str(name) == str(path):
            path.unlink()
            NO_FILES[kind](path)
        return opened(name, flags, *more, **options)

    monkeypatch.setattr(plain_files.os, "open", swapped)
    refused(front, path, match=kind)


@each(READERS)
def test_a_device_is_not_even_opened(
    lake: LocalLakebase, front: Front, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some act when they are opened: a watchdog begins to count, a tape winds back."""
    path = tmp_path / f"x{front.suffix}"
    _device(path)
    opened: list[str] = []
    before = os.open

    def noted(name: Any, *more: Any, **options: Any) -> int:
        opened.append(str(name))
        return before(name, *more, **options)

    monkeypatch.setattr(plain_files.os, "open", noted)
    refused(front, path, match="device")
    assert str(path) not in opened


# 4. A table's name.


@pytest.mark.parametrize(
    "name",
    [
        "(select 'leak')",
        "words (word)",
        "words from program 'touch {folder}/made' --",
        "words to program 'touch {folder}/made' --",
        "words from stdin; drop table words; --",
        'words"; drop table words; --',
        "pg_catalog.pg_authid x",
    ],
)
def test_bulk_load_and_dump_take_a_name_and_no_sql(lake: LocalLakebase, tmp_path: Path, name: str) -> None:
    hook, file = LakebaseHook(), tmp_path / "x.tsv"
    with pytest.raises((psycopg.errors.UndefinedTable, ConfigError)):
        hook.bulk_dump(name.format(folder=tmp_path), file)
    assert list(tmp_path.iterdir()) == []
    file.write_text("y\n")
    with pytest.raises((psycopg.errors.UndefinedTable, ConfigError)):
        hook.bulk_load(name.format(folder=tmp_path), file)
    assert [path.name for path in tmp_path.iterdir()] == ["x.tsv"]
    assert hook.get_records("select word from words") == [("x",)]


@pytest.mark.parametrize("name", ["Plain_Words", '"Odd "" (name) 100%s"', 'odd."a.b"', "odd.order"])
def test_bulk_load_and_dump_take_every_name(lake: LocalLakebase, tmp_path: Path, name: str) -> None:
    hook, file = LakebaseHook(), tmp_path / "x.tsv"
    in_sql = 'odd."order"' if name == "odd.order" else name
    hook.run(f"drop schema if exists odd cascade; create schema odd; drop table if exists {in_sql};"
             f"create table {in_sql} (i int)")  # fmt: skip
    file.write_text("1\n2\n")
    hook.bulk_load(name, file)
    hook.bulk_dump(name, file)
    assert file.read_text() == "1\n2\n"
    hook.run(f"drop table {in_sql}; drop schema odd cascade")


# 5. A result that breaks off.


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet", ".arrow"])
def test_a_query_that_breaks_off_leaves_the_file_of_the_run_before_and_no_other(
    lake: LocalLakebase, tmp_path: Path, suffix: str
) -> None:
    from lakebase_provider.operators.sql import LakebaseSqlOperator

    path = tmp_path / f"x{suffix}"
    path.write_text("of the run before")
    statement = "select 1 / (2500 - i) from generate_series(1, 3000) i"
    operator = LakebaseSqlOperator(task_id="sql", sql=statement, output_path=str(path))
    with pytest.raises(Exception, match="division by zero"):
        operator.execute({})
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert path.read_text() == "of the run before"


# 6. Folders and patterns, of which each file is held to the same.

OF_FOLDERS = [READERS[0], READERS[4]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.csv").write_text(ROW)
    return folder


@each(OF_FOLDERS)
@pytest.mark.parametrize("kind", ["file", "folder", "dangling"])
def test_a_link_among_the_files_of_a_folder_is_refused(
    lake: LocalLakebase, front: Front, folder: Path, victim: Path, kind: str
) -> None:
    leads_to = {"file": victim, "folder": victim.parent, "dangling": victim.with_name("not-there")}[kind]
    (folder / ("k=1" if kind == "folder" else "b.csv")).symlink_to(leads_to)
    for source in (folder, f"{folder}/*", f"{folder.parent}/f*/*", f"{folder.parent}/**/*"):
        refused(front, source, match="is a symbolic link")
    front.attempt(f"{folder}/a*.csv")  # of which it is none


@each(OF_FOLDERS)
def test_a_link_that_takes_the_place_of_a_folders_file_is_not_followed(
    lake: LocalLakebase, front: Front, folder: Path, victim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim.write_text(ROW)
    opened = os.open

    def swapped(name: Any, flags: int, *more: Any, **options: Any) -> int:
        if str(name) == str(folder / "a.csv"):
            (folder / "a.csv").unlink()
            (folder / "a.csv").symlink_to(victim)
        return opened(name, flags, *more, **options)

    monkeypatch.setattr(plain_files.os, "open", swapped)
    refused(front, folder, match="symbolic link")


@each(OF_FOLDERS)
@pytest.mark.parametrize("kind", ["named pipe", "socket", "device"])
def test_what_is_no_file_in_a_folder_is_not_read(
    connected: LocalLakebase, front: Front, folder: Path, kind: str
) -> None:
    NO_FILES[kind](folder / "b.csv")
    for source in (folder, f"{folder}/*.csv"):
        refused(front, source, match=kind)


@each(OF_FOLDERS)
@pytest.mark.parametrize("control", ["\n", "\x1b", "\x85"], ids=ascii)
def test_a_name_in_a_folder_holds_no_control_character(
    connected: LocalLakebase, front: Front, folder: Path, control: str
) -> None:
    (folder / f"b{control}.csv").write_text(ROW)
    for source in (folder, f"{folder}/*.csv"):
        refused(front, source, match=rf"U\+{ord(control):04X}")


# 7. The command line.


@pytest.mark.parametrize("argument", ["--logs", "--example-dags"])
@pytest.mark.parametrize("folder", ["s3://bucket/logs", "https://evil.example/", "a::b", "a\nb"])
def test_the_command_takes_folders_of_this_machine(
    argument: str, folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", argument, folder]) == 1
    assert f"lakebase: {argument}" in capsys.readouterr().err


def test_the_demos_log_is_not_written_through_a_link(tmp_path: Path, victim: Path) -> None:
    (tmp_path / "title.log").symlink_to(victim)
    # There is no such module, so that nothing runs; what Python says of it goes to the log.
    run = run_example(
        "Title", "s", "no_such_module", tmp_path, "x.py", os.environ, tmp_path, lambda text: None
    )
    assert "no_such_module" in run.log.read_text()
    assert victim.read_text() == "precious"
