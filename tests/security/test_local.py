"""Who can reach a local Lakebase, and what its Postgres can make root do."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import requests
import trustme
from cryptography import x509

from lakebase_provider.local import LocalLakebase, LocalLakebaseError, pytest_plugin
from lakebase_provider.local.contract import private_files
from lakebase_provider.local.identity import authorities, certificates
from lakebase_provider.local.parent import run_file
from lakebase_provider.local.parent.run_file import RunFile
from lakebase_provider.local.postgres import accounts
from lakebase_provider.local.postgres.accounts import Account, choose_account
from lakebase_provider.local.postgres.binaries import find_binaries, stage_for_other_account
from lakebase_provider.local.postgres.postgres import Postgres
from tests.eventually import eventually

from .listener import Listener
from .surroundings import VARIABLES

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root runs Postgres as somebody else")


def owner_of(pid: int) -> tuple[int, int]:
    """Effective user and group of a process."""
    answer = subprocess.run(
        ["/bin/ps", "-o", "uid=", "-o", "gid=", "-p", str(pid)], capture_output=True, text=True, check=True
    )
    uid, gid = answer.stdout.split()
    return int(uid), int(gid)


def postgres_pid(lake: LocalLakebase) -> int:
    return int(lake.admin.execute("SELECT pg_read_file('postmaster.pid')")[0][0].split()[0])


def run_as(uid: int, gid: int, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a Python program that needs nothing but the standard library, as somebody."""
    return subprocess.run(
        ["/usr/bin/env", "python3", "-S", "-I", "-c", program, *arguments],
        user=uid,
        group=gid,
        extra_groups=[],
        cwd="/",
        env={"PATH": "/usr/bin:/bin:/usr/local/bin"},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture
def lake() -> Iterator[LocalLakebase]:
    with LocalLakebase(max_connections=20) as lake:
        yield lake


#: Opens a unix socket, looks into a folder, and looks at a process's memory; says what it may.
INTRUDER = """
import os, socket, sys
folder, path, pid = sys.argv[1:]
def may(what, action):
    try:
        action()
    except OSError as error:
        print(what, type(error).__name__)
    else:
        print(what, "succeeded")
may("connect", lambda: socket.socket(socket.AF_UNIX).connect(path))
may("list", lambda: os.listdir(folder))
may("enter", lambda: os.chdir(folder))
may("read", lambda: open(folder + "/postgres/data/pg_hba.conf"))
may("log", lambda: open(folder + "/log"))
may("memory", lambda: open(f"/proc/{pid}/mem", "r+b"))
may("signal", lambda: os.kill(int(pid), 0))
"""


@as_root
def test_no_process_of_nobody_is_its_superuser(lake: LocalLakebase) -> None:
    nobody = pwd.getpwnam("nobody")
    folder = lake.running.folder
    path = lake.superuser_dsn.split()[0].removeprefix("host=") + "/.s.PGSQL.5432"
    assert Path(path).is_socket()
    answer = run_as(nobody.pw_uid, nobody.pw_gid, INTRUDER, folder, path, str(postgres_pid(lake)))
    assert answer.stdout.splitlines() == [
        f"{what} PermissionError" for what in ("connect", "list", "enter", "read", "log", "memory", "signal")
    ], answer.stderr


@as_root
def test_its_user_is_nobody_elses(lake: LocalLakebase) -> None:
    uid, gid = owner_of(postgres_pid(lake))
    assert uid == gid
    assert uid not in {entry.pw_uid for entry in pwd.getpwall()}
    with LocalLakebase(max_connections=20) as other:
        assert owner_of(postgres_pid(other))[0] != uid


@as_root
def test_a_chosen_number_is_not_chosen_again(monkeypatch: pytest.MonkeyPatch) -> None:
    first = accounts._RANGES[0][0]
    monkeypatch.setattr(accounts, "_RANGES", (range(first, first + 2),))
    with choose_account() as one, choose_account() as two:
        assert {one.uid, two.uid} == {first, first + 1}
        with pytest.raises(LocalLakebaseError, match="no spare user id"), choose_account():
            pass
    # A process that runs as it is as good as a claim.
    with subprocess.Popen(["/bin/cat"], user=first, group=first, extra_groups=[], stdin=subprocess.PIPE):
        for _ in range(5):
            with choose_account() as account:
                assert account.uid == first + 1


@as_root
def test_numbers_that_this_namespace_lacks_are_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    class Mapped(Path):
        _flavour = getattr(type(Path()), "_flavour", None)

        def read_text(self, *arguments: Any, **options: Any) -> str:
            text = super().read_text(*arguments, **options)
            return "         0     100000      65536\n" if self.name in ("uid_map", "gid_map") else text

    monkeypatch.setattr(accounts, "Path", Mapped)
    with choose_account() as account:
        assert account.uid is not None
        assert account.uid < 65_536


def test_all_that_the_server_opens_lies_in_its_own_folder(lake: LocalLakebase) -> None:
    folder = Path(lake.running.folder)
    uid = os.geteuid()
    for path in (folder, folder / "log", folder / "postgres"):
        assert path.lstat().st_uid == uid, path
    assert (folder / "log").stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o007 == 0
    # What somebody else can write to holds nothing of ours.
    foreign = {path for path in folder.rglob("*") if path.lstat().st_uid not in (uid,)}
    inside = {
        folder / "postgres" / "data",
        folder / "socket" / ".s.PGSQL.5432",
        folder / "socket" / ".s.PGSQL.5432.lock",
    }
    # Links to its own log, from which a branch is made as it was, where it cannot reach them.
    kept = folder / "c" / "0" / "pg_wal"
    assert (kept.stat().st_uid, kept.stat().st_mode & 0o777) == (uid, 0o700)
    for path in foreign - inside:
        assert path.is_relative_to(folder / "postgres" / "data") or path.parent == kept, path
    its_own = lake_uid(lake)
    shown = [path for path in (folder / "postgres" / "data").rglob("*") if path.lstat().st_uid != its_own]
    assert shown == []


def lake_uid(lake: LocalLakebase) -> int:
    return owner_of(postgres_pid(lake))[0]


def as_its_user(lake: LocalLakebase, command: str) -> None:
    """Let Postgres' own user run a shell command, as its superuser may."""
    lake.admin.execute(f"COPY (SELECT 1) TO PROGRAM $program$sh -c '{command}'$program$")


@as_root
def test_its_user_cannot_replace_what_root_opens(lake: LocalLakebase, tmp_path: Path) -> None:
    folder = Path(lake.running.folder)
    treasure = tmp_path / "treasure"
    treasure.write_text("root's")
    out = f"{folder}/postgres/data/out"
    for target in ("log", "socket/.s.PGSQL.5432", "socket/x", "postgres/x", "postgres/data", "ca.pem"):
        path = f"{folder}/{target}"
        as_its_user(lake, f"ln -sfn {treasure} {path} 2>>{out}; mv {path} {path}.x 2>>{out}; true")
        assert not Path(path).is_symlink(), target
        assert not Path(f"{path}.x").exists(), target
    assert "Permission denied" in Path(out).read_text()
    lake.admin.crash_postgres()
    assert lake.admin.execute("SELECT 1") == [(1,)]
    assert treasure.read_text() == "root's"


@as_root
def test_links_in_the_data_lead_nobody_elsewhere(tmp_path: Path) -> None:
    treasure = tmp_path / "treasure"
    (treasure / "inner").mkdir(parents=True)
    (treasure / "inner" / "file").write_text("root's")
    with LocalLakebase(max_connections=20) as lake:
        data = f"{lake.running.folder}/postgres/data"
        for name in ("link", "base/link"):
            as_its_user(lake, f"ln -s {treasure} {data}/{name}")
        assert Path(data, "base", "link").is_symlink()
        folder = lake.running.folder
        # The server's own clean-up, and the watchdog's.
        lake.stop()
        assert not Path(folder).exists()
        lake.start()
        data = f"{lake.running.folder}/postgres/data"
        as_its_user(lake, f"ln -s {treasure} {data}/base/link")
        folder = lake.running.folder
        os.kill(lake.pid, signal.SIGKILL)
        eventually(lambda: not Path(folder).exists())
    found = (treasure / "inner" / "file").lstat()
    assert (treasure / "inner" / "file").read_text() == "root's"
    assert found.st_uid == treasure.lstat().st_uid == 0


@pytest.fixture
def cluster() -> Iterator[tuple[Path, Postgres, Account]]:
    """A cluster as the server makes it, before its first start."""
    folder = Path(tempfile.mkdtemp(prefix="lakebase-"))
    with choose_account() as account:
        binaries = find_binaries()
        if account.gid is not None:
            os.chown(folder, 0, account.gid)
            folder.chmod(0o710)
            binaries = stage_for_other_account(binaries, folder)
        postgres = Postgres(folder, binaries, account, max_connections=10)
        try:
            yield folder, postgres, account
        finally:
            postgres.stop()
            shutil.rmtree(folder)


@as_root
def test_what_initdb_leaves_is_given_without_following_links(cluster: Any, tmp_path: Path) -> None:
    folder, postgres, account = cluster
    treasure = tmp_path / "treasure"
    treasure.mkdir()
    (treasure / "file").write_text("root's")
    process = postgres.begin_initdb()
    process.wait()
    for name, target in (("link", treasure), ("base/link", treasure), ("file", treasure / "file")):
        (folder / "postgres" / "data" / name).symlink_to(target)
    postgres.finish_initdb(process)
    assert (folder / "postgres" / "data" / "link").lstat().st_uid == account.uid
    assert {treasure.stat().st_uid, (treasure / "file").stat().st_uid} == {0}


@as_root
def test_other_processes_of_nobody_cannot_reach_initdb(cluster: Any) -> None:
    folder, postgres, _ = cluster
    nobody = pwd.getpwnam("nobody")
    process = postgres.begin_initdb()
    try:
        # Stopped, so that the intruder finds it at work.
        os.killpg(process.pid, signal.SIGSTOP)
        assert owner_of(process.pid)[0] == nobody.pw_uid
        answer = run_as(
            nobody.pw_uid, nobody.pw_gid, INTRUDER, str(folder), f"{folder}/socket/x", str(process.pid)
        )
        os.killpg(process.pid, signal.SIGCONT)
        results = dict(line.split() for line in answer.stdout.splitlines())
        assert {what for what, result in results.items() if result != "PermissionError"} == {"signal"}
    finally:
        os.killpg(process.pid, signal.SIGCONT)
        postgres.finish_initdb(process)


@as_root
@pytest.mark.parametrize("trap", ["link", "fifo", "socket"])
def test_a_trap_in_place_of_its_socket_or_pid_file(cluster: Any, trap: str) -> None:
    """What Postgres' user leaves where root looks while the server starts."""
    folder, postgres, account = cluster
    postgres.finish_initdb(postgres.begin_initdb())
    postgres.begin_start()
    eventually(postgres._ready)
    pid_file, sock = folder / "postgres/data/postmaster.pid", Path(postgres.socket_path)
    # On the file system of the other one, which a link needs.
    roots = folder / "roots.sock"
    elsewhere = socket.socket(socket.AF_UNIX)
    elsewhere.bind(str(roots))
    with elsewhere:
        if trap == "link":
            sock.unlink()
            sock.symlink_to(roots)
        elif trap == "socket":
            sock.unlink()
            os.link(roots, sock)
        else:
            pid_file.rename(pid_file.with_suffix(".kept"))
            os.mkfifo(pid_file)
            os.chown(pid_file, account.uid, account.gid)
        with pytest.raises(LocalLakebaseError, match=r"is not the socket of|is not a file of user"):
            postgres.finish_start()
        if trap == "fifo":
            pid_file.unlink()
            pid_file.with_suffix(".kept").rename(pid_file)
    # Next time it finds an empty folder.
    postgres.stop()
    postgres.begin_start()
    postgres.finish_start()
    assert postgres.execute("SELECT 1") == [(1,)]


@pytest.mark.parametrize("trap", ["link", "dangling", "fifo", "folder"])
def test_a_file_of_ours_is_opened_or_nothing(tmp_path: Path, trap: str) -> None:
    path, elsewhere = tmp_path / "log", tmp_path / "elsewhere"
    if trap != "dangling":
        elsewhere.write_text("kept")
    if trap in ("link", "dangling"):
        path.symlink_to(elsewhere)
    elif trap == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()
    for action in (private_files.open_to_append, lambda path: private_files.read(path, limit=10)):
        with pytest.raises(LocalLakebaseError, match=r"cannot be opened|is not a file of user"):
            action(path)
    assert elsewhere.exists() == (trap != "dangling")


@as_root
def test_a_temporary_folder_of_another_user_is_not_roots(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    short = Path(tempfile.mkdtemp(prefix="t"))
    nobody = pwd.getpwnam("nobody").pw_uid
    (short / "theirs").mkdir()
    os.chown(short / "theirs", nobody, -1)
    monkeypatch.setenv("TMPDIR", str(short / "theirs"))
    try:
        with LocalLakebase(max_connections=20) as lake:
            assert Path(lake.running.folder).parent == Path("/tmp").resolve()  # noqa: S108
    finally:
        shutil.rmtree(short)


# The certificate authority.


@pytest.fixture(scope="module")
def authority() -> Any:
    return authorities.create(("localhost", "127.0.0.1", "::1", "localhost-pooler"))


def handshake(authority: Any, certificate: Any, name: str, *, strict: bool = True) -> None:
    """Let Python's ssl, hence OpenSSL, judge a certificate for a name."""
    server_side, client_side = (
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER),
        ssl.create_default_context(cadata=authority.cert_pem.bytes().decode()),
    )
    if strict:
        client_side.verify_flags |= ssl.VERIFY_X509_STRICT
    certificate.configure_cert(server_side)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_side.wrap_bio(to_client, to_server, server_hostname=name)
    server = server_side.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(4):
        for side in (client, server):
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
    assert client.getpeercert()


@pytest.mark.parametrize(
    "name", ["localhost", "127.0.0.1", "127.8.9.10", "::1", "localhost-pooler", "a.localhost"]
)
def test_the_authority_signs_for_this_machine(authority: Any, name: str) -> None:
    handshake(authority, authority.issue_cert(name), name)


@pytest.mark.parametrize(
    "name", ["adb-1.azuredatabricks.net", "localhost.com", "notlocalhost", "10.0.0.1", "::2", "*.example.com"]
)
def test_the_authority_signs_for_nobody_else(authority: Any, name: str) -> None:
    asked = name.replace("*", "www")
    # Beside a permitted name it is no better.
    for names in ((name,), ("localhost", name)):
        with pytest.raises(ssl.SSLCertVerificationError, match="permitted subtree violation"):
            handshake(authority, authority.issue_cert(*names), asked)


def test_the_authority_signs_no_client_and_no_authority(authority: Any) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match=r"path length|invalid CA|permitted"):
        handshake(authority, authority.create_child_ca().issue_cert("localhost"), "localhost")
    loaded = x509.load_pem_x509_certificate(authority.cert_pem.bytes())
    assert loaded.extensions.get_extension_for_class(x509.NameConstraints).critical
    usages = loaded.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usages) == [x509.oid.ExtendedKeyUsageOID.SERVER_AUTH]


def test_the_authoritys_key_is_on_no_disk(lake: LocalLakebase) -> None:
    keys = [
        path
        for path in Path(lake.running.folder).rglob("*")
        if path.is_file() and not path.is_symlink() and b"PRIVATE KEY" in path.read_bytes()
    ]
    assert keys == []
    assert b"PRIVATE" not in Path(lake.ca_path).read_bytes()


def test_a_kept_authority_of_old_makes_way(tmp_path: Path) -> None:
    boundless = trustme.CA()
    kept = tmp_path / "authority.pem"
    kept.write_bytes(boundless.private_key_pem.bytes() + boundless.cert_pem.bytes())
    kept.chmod(0o600)
    first = certificates.issue(tmp_path, "localhost", keep=True).bundle.read_bytes()
    assert first != boundless.cert_pem.bytes()
    assert b"PRIVATE" not in first
    assert certificates.issue(tmp_path, "localhost", keep=True).bundle.read_bytes() == first
    assert kept.stat().st_mode & 0o777 == 0o600
    other = certificates.issue(tmp_path, "lake.localdomain", keep=True).bundle.read_bytes()
    assert other != first


def test_a_kept_key_that_others_can_read_or_have_put_there_is_not_used(tmp_path: Path) -> None:
    certificates.issue(tmp_path, "localhost", keep=True)
    kept = tmp_path / "authority.pem"
    kept.chmod(0o644)
    with pytest.raises(LocalLakebaseError, match="is readable by other users"):
        certificates.issue(tmp_path, "localhost", keep=True)
    kept.chmod(0o600)
    kept.rename(tmp_path / "theirs.pem")
    kept.symlink_to(tmp_path / "theirs.pem")
    with pytest.raises(LocalLakebaseError, match="cannot be opened"):
        certificates.issue(tmp_path, "localhost", keep=True)


# Secrets.


def everywhere_else(lake: LocalLakebase) -> dict[str, str]:
    """Command lines and environments of the server and of all that it has started."""
    children = subprocess.run(["/bin/ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True)
    pairs = [tuple(map(int, line.split())) for line in children.stdout.splitlines()]
    ours = {lake.pid}
    while more := {pid for pid, parent in pairs if parent in ours} - ours:
        ours |= more
    found = {}
    for pid in ours:
        for name in ("cmdline", "environ"):
            with contextlib.suppress(FileNotFoundError):
                found[f"{pid}/{name}"] = Path("/proc", str(pid), name).read_bytes().decode(errors="replace")
    assert len(found) > 6
    return found


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks into /proc")
def test_no_secret_is_in_an_environment_or_a_command_line(
    lake: LocalLakebase, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = [lake.running.admin_key, lake.client_secret, lake.pat]
    for where, text in everywhere_else(lake).items():
        assert not [secret for secret in secrets if secret in text], where
    monkeypatch.setenv("DATABRICKS_TOKEN", "canary-of-the-parent")
    monkeypatch.setenv("PGPASSWORD", "canary-of-the-parent")
    with LocalLakebase(max_connections=20) as other:
        texts = everywhere_else(other)
        postgres = f"{postgres_pid(other)}/environ"
        assert "LC_ALL=C" in texts[postgres]
        assert "canary" not in texts[postgres]


def test_the_admins_client_knows_no_proxy(lake: LocalLakebase, monkeypatch: pytest.MonkeyPatch) -> None:
    with Listener() as listener:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{listener.port}")
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        assert lake.admin.ping() == lake.pid
    assert listener.received == []


def test_the_fixtures_environment_knows_no_proxy(
    lakebase_server: LocalLakebase, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Listener() as listener, pytest.MonkeyPatch.context() as context:
        for name in ("HTTP_PROXY", "http_proxy"):
            context.setenv(name, f"http://127.0.0.1:{listener.port}")
        context.setenv("NO_PROXY", "intranet.example")
        fixture = pytest_plugin.lakebase_env.__wrapped__(lakebase_server, context)
        lake = next(fixture)
        url = lake.env()["DATABRICKS_HOST"]
        assert requests.get(f"{url}/.well-known/databricks-config", timeout=10).status_code == 200
        assert os.environ["NO_PROXY"].startswith("intranet.example,")
        next(fixture, None)
    assert listener.received == []


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "run"
    folder.mkdir(mode=0o700)
    # Newer releases of platformdirs pass over a folder that others can write to; older ones take it.
    monkeypatch.setattr(run_file.platformdirs, "user_runtime_path", folder.joinpath)
    return folder


def test_a_note_is_for_its_user_alone(runtime: Path, lake: LocalLakebase) -> None:
    note = RunFile("mine")
    note.write(lake.running)
    path = runtime / "lakebase-provider" / "local-mine.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert note.read() == lake.running
    path.chmod(0o604)
    with pytest.raises(LocalLakebaseError, match="is readable by other users"):
        note.read()
    path.chmod(0o600)
    path.rename(path.with_suffix(".theirs"))
    path.symlink_to(path.with_suffix(".theirs"))
    with pytest.raises(LocalLakebaseError, match="cannot be opened"):
        note.alive()


def test_a_note_is_not_left_where_others_can_change_it(runtime: Path) -> None:
    runtime.chmod(0o777)
    with pytest.raises(LocalLakebaseError, match="belongs to another user"):
        RunFile("mine")
    runtime.chmod(0o700)
    (runtime / "elsewhere").mkdir()
    (runtime / "lakebase-provider").symlink_to(runtime / "elsewhere")
    with pytest.raises(LocalLakebaseError, match="belongs to another user"):
        RunFile("mine")
    assert list((runtime / "elsewhere").iterdir()) == []


@as_root
def test_root_keeps_nothing_in_another_users_home(tmp_path: Path, runtime: Path) -> None:
    nobody = pwd.getpwnam("nobody").pw_uid
    home = tmp_path / "home"
    (home / "data").mkdir(parents=True)
    os.chown(home, nobody, -1)
    with pytest.raises(LocalLakebaseError, match="belongs to another user"):
        certificates.issue(home / "data", "localhost", keep=True)
    os.chown(runtime, nobody, -1)
    with pytest.raises(LocalLakebaseError, match="belongs to another user"):
        RunFile("mine")


def test_libpqs_environment_leads_the_superuser_nowhere_else(
    lake: LocalLakebase, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Listener() as listener:
        for name, value in VARIABLES.items():
            monkeypatch.setenv(name, value.format(folder="/nowhere"))
        monkeypatch.setenv("PGHOSTADDR", "127.0.0.1")
        monkeypatch.setenv("PGPORT", str(listener.port))
        assert lake.admin.execute("SELECT current_user") == [("postgres",)]
        # A string that older ones read as well can say nothing of the newer parameters.
        for name in VARIABLES.keys() - {"PGHOSTADDR", "PGOPTIONS", "PGREQUIREPEER", "PGTARGETSESSIONATTRS"}:
            monkeypatch.delenv(name)
        with psycopg.connect(lake.superuser_dsn) as connection:
            assert connection.info.port == 5432
        monkeypatch.setenv("PGSERVICE", "missing")
        with LocalLakebase(max_connections=20) as other:
            monkeypatch.delenv("PGSERVICE")
            assert other.admin.execute("SELECT current_user") == [("postgres",)]
    assert listener.received == []
