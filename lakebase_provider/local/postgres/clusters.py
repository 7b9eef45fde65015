"""A Postgres cluster for each branch: copied from its parent as it is or as it was, stopped, woken, dropped.

A copy shares its parent's write-ahead log, as links, back to the *base*: files of the cluster as they were
when its history began. Base and log together give every moment since.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from lakebase_provider.local.contract import private_files
from lakebase_provider.local.contract.errors import LocalLakebaseError
from lakebase_provider.local.postgres import copies
from lakebase_provider.local.postgres.accounts import Account
from lakebase_provider.local.postgres.binaries import Binaries
from lakebase_provider.local.postgres.moments import Fork, HistoryError, recovery_target
from lakebase_provider.local.postgres.postgres import SUPERUSER, Postgres

#: Many of them idle side by side.
_SMALL = {"shared_buffers": "8MB", "max_logical_replication_workers": "0"}
#: Postgres 18 starts three processes for this unless told otherwise.
_SMALL_SINCE_18 = {"io_method": "sync"}
#: A standby without a source replays the log that it was given; unlike `restore_command` it runs no program
#: for each segment.
_PROMOTE = {"recovery_target_action": "promote", "hot_standby": "off"}
#: Where a timeline left its parent's, in its history.
_SWITCH = re.compile(r"\t([0-9A-F]+/[0-9A-F]+)\t")
#: Seconds after which a standby asks its stopped source again.
_RETRY = {"wal_retrieve_retry_interval": "250ms"}


#: Superusers are the tests' own sessions, behind the endpoint rather than on it.
_END_SESSIONS = """
SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
WHERE backend_type = 'client backend' AND usename <> %s
"""


@dataclass(frozen=True)
class Snapshot(Fork):
    """What was kept of a branch.

    Attributes:
        full_size_bytes: Of all its databases.
    """

    full_size_bytes: int


@dataclass
class _Base:
    """Files from which a history can be replayed.

    Attributes:
        folder: Removed with it.
        data: Data folder of a cluster that was stopped.
        segment: The log from here on is needed to go on from it.
        packed: All of `data` but the log, in one file.
    """

    folder: Path
    data: Path
    segment: str
    packed: copies.Packed | None = None


@dataclass
class _Cluster:
    postgres: Postgres
    #: Of this run; the data may lie elsewhere.
    folder: Path
    base: _Base
    born: Fork
    #: Left by an earlier run: base and birth are set when its data are first used.
    left: bool = False
    #: Settings of each start, of a standby.
    follows: dict[str, str] = field(default_factory=dict)
    #: Guards all below, and is told when one of them changes.
    changed: threading.Condition = field(default_factory=threading.Condition)
    wanted: bool = True
    #: Crashed, and not to be started before :meth:`Clusters.revive`.
    down: bool = False
    #: Copies under way, and those of them for which it must stay down.
    users: int = 0
    still: int = 0
    #: The server that the watchdog knows of.
    watched: int | None = None


class Clusters:
    """All clusters of a run; keys are uids of branches, of read-only endpoints and of snapshots.

    Each method blocks, and may be called from any thread.

    Args:
        folder: The run's folder.
        binaries: Programs that `account` can run.
        account: Who runs them.
        root: Production's cluster, which is never stopped: tests ask it as superuser while it is suspended.
        max_connections: Of each cluster.
        install: Prepares a fresh cluster.
        tell_watchdog: Told of each server process that starts or ends.
        home: Folder for the data of all but the root, which outlives the run; None to have them in the run's.
    """

    def __init__(
        self,
        folder: Path,
        binaries: Binaries,
        account: Account,
        root: Postgres,
        *,
        max_connections: int,
        install: Callable[[Postgres], None],
        tell_watchdog: Callable[[str], None],
        home: Path | None = None,
    ) -> None:
        self.root = root
        self._folder = folder / "c"
        self._home = home
        self._binaries = binaries
        self._account = account
        self._max_connections = max_connections
        self._install = install
        self._tell_watchdog = tell_watchdog
        self._lock = threading.Lock()
        self._numbers = 0
        self._clusters: dict[str, _Cluster] = {}
        self._snapshots: dict[str, _Base] = {}
        self._root_key: str | None = None
        for place in (self._folder, home):
            if place is not None:
                private_files.make_passage(place, account.gid)

    def kept(self) -> dict[str, dict[str, str]]:
        """What :meth:`restore` takes: the clusters and snapshots in `home`, standbys left out, by key."""
        with self._lock:
            return {
                "clusters": {
                    key: cluster.folder.name
                    for key, cluster in self._clusters.items()
                    if cluster.postgres is not self.root and not cluster.follows
                },
                "snapshots": {key: base.folder.name for key, base in self._snapshots.items()},
            }

    def restore(self, kept: dict[str, dict[str, str]], owners: list[int]) -> None:
        """Take over what an earlier run left in `home`, stopped, and remove what it left unfinished.

        A history begins anew, with the data as they are when they are first used.

        Args:
            kept: What it said; one whose data are missing is left out.
            owners: User ids of the files.
        """
        assert self._home is not None
        account = self._account
        for kind, numbers in kept.items():
            for key, number in numbers.items():
                postgres, folder = self._new(number)
                if not (postgres.data / "PG_VERSION").is_file():
                    continue
                if account.uid is not None and account.gid is not None:
                    for owner in owners:
                        private_files.give_tree(postgres.data, account.uid, account.gid, owner=owner)
                base = _Base(postgres.data.parent, postgres.data, copies.beginning(postgres.data, account))
                if kind == "snapshots":
                    self._snapshots[key] = base
                else:
                    never = Fork("0/0", 0)
                    self._clusters[key] = _Cluster(postgres, folder, base, never, left=True, wanted=False)
        named = {number for numbers in kept.values() for number in numbers.values()}
        for place in self._home.iterdir():
            if place.name not in named:
                shutil.rmtree(place)
        self._numbers = max(map(int, named), default=0)

    def keep_beginning(self, *, fresh: bool) -> None:
        """Copy the root's data folder before its first start: from there its history can be replayed.

        Args:
            fresh: Whether it is as initdb left it.
        """
        self._fresh = fresh
        data, home = self.root.data, self._folder / "0"
        home.mkdir(mode=0o700)
        first = copies.beginning(data, self._account)
        copies.drop_log(data, first)
        packed = copies.Packed(data, home / "data", self._account)
        (home / "pg_wal").mkdir(mode=0o700)
        copies.add_log(data, home, self._account, link=False)
        self._beginning = _Base(home, home, first, packed)

    def adopt(self, key: str) -> None:
        """Say whose the root is, whose history begins now that it is prepared."""
        ((lsn,),) = self.root.execute("SELECT pg_current_wal_insert_lsn()::text")
        born = Fork(lsn, time.time())
        self._clusters[key] = _Cluster(self.root, self.root.data.parent, self._beginning, born)
        self._root_key = key

    def cluster(self, key: str) -> Postgres:
        """Return a cluster.

        Raises:
            KeyError: There is none of that key.
        """
        return self._clusters[key].postgres

    def has(self, key: str) -> bool:
        """Whether there is a cluster or a snapshot of that key."""
        return key in self._clusters or key in self._snapshots

    def create(self, key: str) -> None:
        """Create a cluster as the root was at first, with the same roles and databases, and start it."""

        def begin(new: _Cluster) -> Fork:
            at = self._copy_stopped(new, self._beginning) if self._fresh else self._initialise(new)
            self._install(new.postgres)
            return at

        self._create(key, begin)

    def fork(self, key: str, source: str, *, at_time: float | None = None, at_lsn: str | None = None) -> Fork:
        """Create a cluster with another one's data, and start it.

        Args:
            key: The new one's.
            source: Whose data; stopped or not.
            at_time: Unix time whose data it gets: of all that was committed by then. None for now.
            at_lsn: Log sequence number whose data it gets, in place of a time.

        Raises:
            HistoryError: The time or LSN is not kept.
            KeyError: There is no such source.
            LocalLakebaseError: It did not start.
        """
        if at_time is not None or at_lsn is not None:
            return self._create(key, lambda new: self._recover(new, source, at_time, at_lsn))
        return self._create(key, lambda new: self._copy(new, source))

    def fork_snapshot(self, key: str, snapshot: str) -> Fork:
        """Create a cluster with a snapshot's data, and start it.

        Raises:
            KeyError: There is no such snapshot.
        """
        base = self._snapshots[snapshot]
        return self._create(key, lambda new: self._copy_stopped(new, base))

    def snapshot(
        self, key: str, source: str, *, at_time: float | None = None, at_lsn: str | None = None
    ) -> Snapshot:
        """Keep a cluster's data, apart from its branch; arguments and errors as in :meth:`fork`."""
        at = self.fork(key, source, at_time=at_time, at_lsn=at_lsn)
        self.stop(key)
        with self._lock:
            kept = self._clusters.pop(key)
            data = kept.postgres.data
            folder = kept.folder if self._home is None else data.parent
            self._snapshots[key] = _Base(folder, data, copies.beginning(data, self._account))
        return Snapshot(at.lsn, at.time, copies.size(data))

    def standby(self, key: str, source: str) -> None:
        """Create a cluster that follows another one, and can only be read.

        Raises:
            KeyError: There is no such source.
        """

        def follow(new: _Cluster) -> Fork:
            with self._using(source) as parent:
                at = self._back_up(parent, new)
                address = parent.postgres.dsn()
            new.follows = {"primary_conninfo": address, "hot_standby": "on", **_RETRY}
            self._begin(new, new.follows, replays=True)
            return at

        self._create(key, follow)

    def hold(self, key: str, held: bool) -> None:
        """Let a standby lag: what its source writes does not show until it is let go."""
        word = "pause" if held else "resume"
        self.cluster(key).execute(f"SELECT pg_wal_replay_{word}()")

    def start(self, key: str) -> None:
        """Start a cluster that was stopped, and return when it answers.

        Raises:
            LocalLakebaseError: It has crashed and is to stay down for a while, or it did not start.
        """
        cluster = self._clusters[key]
        with cluster.changed:
            if cluster.down:
                raise LocalLakebaseError("The server has crashed, and is not started yet.")
            cluster.wanted = True
            self._wake(cluster)

    def stop(self, key: str) -> None:
        """Stop a cluster, once the copies of it that are being made are finished.

        The root's sessions end, but it runs on.
        """
        if key == self._root_key:
            self.root.execute(_END_SESSIONS, (SUPERUSER,))
            return
        cluster = self._clusters[key]
        with cluster.changed:
            cluster.wanted = False
            cluster.changed.wait_for(lambda: not cluster.users)
            if not cluster.wanted:
                self._halt(cluster)

    def crash(self, key: str) -> None:
        """End a cluster's server as `pg_ctl stop -m immediate` does, until :meth:`revive` recovers its data.

        Nothing happens to one that is stopped.
        """
        cluster = self._clusters[key]
        with cluster.changed:
            if cluster.postgres.running:
                cluster.down = True
                cluster.postgres.crash()
                self._forget(cluster)

    def revive(self, key: str) -> None:
        """Start a cluster that has crashed, unless it is gone or stopped by now."""
        cluster = self._clusters.get(key)
        if cluster is None:
            return
        with cluster.changed:
            was_down, cluster.down = cluster.down, False
            if was_down and cluster.wanted:
                self._wake(cluster)

    def drop(self, key: str) -> None:
        """Remove a cluster or a snapshot with its data, if there is one; what was copied from it stays."""
        with self._lock:
            snapshot = self._snapshots.pop(key, None)
            cluster = self._clusters.pop(key, None)
        if cluster is not None:
            with cluster.changed:
                cluster.wanted = False
                cluster.changed.wait_for(lambda: not cluster.users and not cluster.still)
                if cluster.postgres.running:
                    # Nobody will ask for its data again.
                    cluster.postgres.crash()
                    self._forget(cluster)
            for folder in (cluster.folder, cluster.postgres.data.parent):
                shutil.rmtree(folder, ignore_errors=True)
            self._discard(cluster.base)
        elif snapshot is not None:
            self._discard(snapshot)

    def size(self, key: str) -> int:
        """Bytes of all databases of a cluster, stopped or not."""
        return copies.size(self._clusters[key].postgres.data)

    def close(self) -> None:
        """End all servers but the root's; in order where their data do not go with the run's folder."""
        for cluster in list(self._clusters.values()):
            if cluster.postgres is not self.root and cluster.postgres.running:
                (cluster.postgres.crash if self._home is None else cluster.postgres.stop)()
                self._forget(cluster)

    # How a cluster comes to be.

    def _create(self, key: str, fill: Callable[[_Cluster], Fork]) -> Fork:
        with self._lock:
            if key in self._clusters or key in self._snapshots:
                raise ValueError(f"there is a cluster {key!r} already")
            self._numbers += 1
            number = str(self._numbers)
        postgres, folder = self._new(number)
        new = _Cluster(postgres, folder, self._beginning, Fork("0/0", 0))
        try:
            new.born = fill(new)
        except BaseException:
            if postgres.running:
                postgres.crash()
                self._forget(new)
            for place in (folder, postgres.data.parent):
                shutil.rmtree(place, ignore_errors=True)
            raise
        with self._lock:
            self._clusters[key] = new
        return new.born

    def _new(self, number: str) -> tuple[Postgres, Path]:
        """A cluster of that number, and its folder of this run."""
        folder = self._folder / number
        private_files.make_passage(folder, self._account.gid)
        postgres = Postgres(
            folder,
            self._binaries,
            self._account,
            max_connections=self._max_connections,
            settings=_SMALL | (_SMALL_SINCE_18 if self._binaries.major >= 18 else {}),
            home=None if self._home is None else self._home / number,
        )
        postgres.make_home()
        return postgres, folder

    def _pack(self, cluster: _Cluster) -> _Base:
        """A stopped cluster's data as they are, from where a history begins."""
        data, first = cluster.postgres.data, copies.beginning(cluster.postgres.data, self._account)
        # Apart from the cluster's folder, as branches of it may outlive it.
        home = cluster.folder.with_name(f"{cluster.folder.name}-0")
        home.mkdir(mode=0o700)
        return _Base(home, home, first, copies.Packed(data, home / "data", self._account))

    def _begin_history(self, cluster: _Cluster) -> None:
        """Let the history of a cluster that an earlier run left begin, with its data as they are."""
        if not cluster.left:
            return
        if not copies.was_shut_down(cluster.postgres.data, self._account):
            # That run was killed: recovered and stopped in order, the data is a beginning.
            self._begin(cluster, {}, replays=True)
            self._halt(cluster)
        cluster.base = self._pack(cluster)
        copies.drop_log(cluster.postgres.data, cluster.base.segment)
        cluster.left = False

    def _initialise(self, new: _Cluster) -> Fork:
        """Its data are what initdb makes."""
        process = new.postgres.begin_initdb()
        self._tell_watchdog(f"watch {process.pid}")
        try:
            new.postgres.finish_initdb(process)
        finally:
            self._tell_watchdog(f"forget {process.pid}")
        new.base = self._pack(new)
        self._begin(new, {})
        return Fork("0/0", time.time())

    def _copy(self, new: _Cluster, source: str) -> Fork:
        """Its data are the source's of now."""
        parent = self._clusters[source]
        with parent.changed:
            still = not parent.postgres.running
            if still:
                self._begin_history(parent)
            parent.still += still
        if still:
            try:
                return self._copy_stopped(new, parent.base, parent.postgres.data)
            finally:
                with parent.changed:
                    parent.still -= 1
                    parent.changed.notify_all()
        with self._using(source) as parent:
            at = self._back_up(parent, new)
        new.base = parent.base
        self._begin(new, {"recovery_target": "immediate", **_PROMOTE}, replays=True)
        return at

    def _copy_stopped(self, new: _Cluster, base: _Base, data: Path | None = None) -> Fork:
        """Its data are those of its base, or of a cluster that is down, to the end of the log."""
        if data is None:
            self._unfold(base, new)
        else:
            copies.copy_data(data, new.postgres.data, self._account)
        copies.add_log(data or base.data, new.postgres.data, self._account)
        # No target: it replays all that there is. The command finds nothing, as it is asked about few files.
        copies.put(new.postgres.data / "recovery.signal", "", self._account)
        new.base = base
        self._begin(new, {"restore_command": "false", "hot_standby": "off"}, replays=True)
        return Fork(self._left_at(new), time.time())

    def _unfold(self, base: _Base, new: _Cluster) -> None:
        if base.packed:
            base.packed.unpack(new.postgres.data)
        else:
            copies.copy_data(base.data, new.postgres.data, self._account)

    def _recover(self, new: _Cluster, source: str, at_time: float | None, at_lsn: str | None) -> Fork:
        """Its data are the source's of an earlier moment."""
        with self._using(source) as parent, parent.postgres.session() as session:
            target = recovery_target(parent.born, session, at_time, at_lsn)
            # A recovery stops at the first commit after its target, so there must be one; and it reads full
            # segments only.
            session.execute("SELECT pg_current_xact_id()")
            ((last,),) = session.execute("SELECT pg_walfile_name(pg_switch_wal())").fetchall()
            base = parent.base
            self._unfold(base, new)
            copies.add_log(
                parent.postgres.data,
                new.postgres.data,
                self._account,
                since=base.segment,
                until=copies.place(last),
            )
        if not copies.has_log(new.postgres.data, base.segment):
            raise HistoryError("the branch has written more than is kept of its history")
        copies.put(new.postgres.data / "standby.signal", "", self._account)
        new.base = base
        self._begin(new, {**target, **_PROMOTE}, replays=True)
        if at_time is not None:
            return Fork(self._left_at(new), at_time)
        assert at_lsn is not None
        ((moment,),) = new.postgres.execute(
            "SELECT extract(epoch FROM pg_last_xact_replay_timestamp())::float8"
        )
        return Fork(at_lsn, moment or parent.born.time)

    def _back_up(self, parent: _Cluster, new: _Cluster) -> Fork:
        """Copy the files of a cluster that serves, with the log that makes them consistent."""
        with parent.postgres.session() as session:
            session.execute("SELECT pg_backup_start('branch', fast => true)")
            copies.copy_data(parent.postgres.data, new.postgres.data, self._account)
            ((lsn, label, last),) = session.execute(
                "SELECT lsn, labelfile, pg_walfile_name(lsn) FROM pg_backup_stop(wait_for_archive => false)"
            ).fetchall()
            at = Fork(lsn, time.time())
            copies.add_log(parent.postgres.data, new.postgres.data, self._account, until=copies.place(last))
        copies.put(new.postgres.data / "backup_label", label, self._account)
        copies.put(new.postgres.data / "standby.signal", "", self._account)
        return at

    def _left_at(self, cluster: _Cluster) -> str:
        """Where a cluster's timeline left its parent's: the last line of its history."""
        ((history,),) = cluster.postgres.execute(
            "SELECT pg_read_file('pg_wal/' || max(name)) FROM pg_ls_waldir() WHERE name LIKE '%.history'"
        )
        return str(_SWITCH.findall(history)[-1])

    def _discard(self, base: _Base) -> None:
        """Remove a base when neither a snapshot nor a history needs it any more."""
        with self._lock:
            needed = [self._beginning, *self._snapshots.values(), *(c.base for c in self._clusters.values())]
            if not any(other is base for other in needed):
                shutil.rmtree(base.folder, ignore_errors=True)

    # Running and stopped.

    @contextlib.contextmanager
    def _using(self, key: str) -> Iterator[_Cluster]:
        """A cluster that runs until the end of the block, woken if it was stopped."""
        cluster = self._clusters[key]
        with cluster.changed:
            self._wake(cluster)
            cluster.users += 1
        try:
            yield cluster
        finally:
            with cluster.changed:
                cluster.users -= 1
                if not cluster.users and not cluster.wanted:
                    self._halt(cluster)
                cluster.changed.notify_all()

    def _wake(self, cluster: _Cluster) -> None:
        cluster.changed.wait_for(lambda: not cluster.still)
        if not cluster.postgres.running:
            self._begin_history(cluster)
            self._begin(cluster, cluster.follows)
            if not cluster.born.time:
                ((lsn,),) = cluster.postgres.execute("SELECT pg_current_wal_insert_lsn()::text")
                cluster.born = Fork(lsn, time.time())

    def _begin(self, cluster: _Cluster, settings: dict[str, str], *, replays: bool = False) -> None:
        postgres = cluster.postgres
        # One that has ended by itself is started again like one that was stopped.
        self._forget(cluster)
        cluster.watched = postgres.begin_start(settings)
        self._tell_watchdog(f"watch {cluster.watched} {postgres.pid_file}")
        postgres.finish_start(replays=replays)

    def _halt(self, cluster: _Cluster) -> None:
        cluster.postgres.stop()
        self._forget(cluster)

    def _forget(self, cluster: _Cluster) -> None:
        if cluster.watched is not None:
            self._tell_watchdog(f"forget {cluster.watched}")
            cluster.watched = None
