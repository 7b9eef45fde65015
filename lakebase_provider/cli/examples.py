"""The examples that come with the package: ``lakebase examples`` and ``lakebase demo``."""

from __future__ import annotations

import argparse
import ast
import shlex
from importlib.resources import files
from pathlib import Path

from lakebase_provider.core.errors import ConfigError

#: The indented lines are for a shell: tests/deployment runs them as they are.
_NEXT = """\
{count} files are in {folder}. To run two of them on a local Lakebase:

  lakebase local up --detach

  eval "$(lakebase local env --airflow)"
  export AIRFLOW__CORE__DAGS_FOLDER={folder}
  airflow db migrate
  airflow dags test lakebase_etl

  eval "$(lakebase local env)"
  dagster job execute -f {folder}/lakebase_dagster.py -j lakebase_etl_job

  lakebase local down

On a workspace they need a connection lakebase_default (Airflow), or the variables DATABRICKS_HOST,
DATABRICKS_CLIENT_ID, DATABRICKS_CLIENT_SECRET and ENDPOINT_NAME (Dagster)."""


def add_parsers(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands to `lakebase`."""
    examples = commands.add_parser(
        "examples",
        help="list the examples for Airflow and Dagster, or copy them",
        description="Lists the examples that come with this package, or copies them to a folder of yours.",
    )
    examples.add_argument("--copy", metavar="FOLDER", help="copy them there; it is made if it is missing")
    examples.add_argument("--force", action="store_true", help="with --copy: overwrite files of these names")
    examples.set_defaults(run=_examples)

    demo = commands.add_parser(
        "demo",
        help="run the example DAG and the example Dagster job on a local Lakebase",
        description="Starts a local Lakebase and runs two examples on it; exit code 0 only if all is right.",
    )
    demo.add_argument("--example-dags", metavar="FOLDER", help="the examples; default: this package's")
    demo.add_argument("--logs", default="build/demo", metavar="FOLDER", help="where logs go")
    demo.set_defaults(run=_demo)


def example_dags() -> Path:
    """Return the examples' folder: a wheel puts it into the package, in a clone it lies beside it."""
    package = Path(str(files("lakebase_provider")))
    installed = package / "examples"
    return installed if installed.is_dir() else package.parent / "example_dags"


def summary(example: Path) -> str:
    """Return what an example shows: the first line of its docstring, or of its comment in YAML."""
    text = example.read_text(encoding="utf-8")
    if example.suffix == ".py":
        text = ast.get_docstring(ast.parse(text)) or ""
    return text.partition("\n")[0].removeprefix("# ")


def _examples(options: argparse.Namespace) -> int:
    source = example_dags()
    if options.copy is not None:
        return _copy(source, _folder(options.copy, "--copy"), force=options.force)
    if options.force:
        raise ConfigError("--force copies nothing by itself.", remedy="Give a folder: --copy FOLDER.")
    found = {
        str(path.relative_to(source)): path for kind in ("*.py", "*.yaml") for path in source.rglob(kind)
    }
    width = max(map(len, found))
    # Those of the folder itself first, then those of the folders in it.
    for name in sorted(found, key=lambda name: (name.count("/"), name)):
        print(f"{name:{width}}  {summary(found[name])}")
    return 0


def _copy(source: Path, target: Path, *, force: bool) -> int:
    from lakebase_provider.core.base.files.plain_files import NewFile

    # An editor or an interpreter may have left something in a clone.
    names = sorted(
        path.relative_to(source) for kind in ("*.py", "*.yaml", "*.sql") for path in source.rglob(kind)
    )
    there = [str(name) for name in names if (target / name).exists() or (target / name).is_symlink()]
    if there and not force:
        raise ConfigError(
            f"--copy: {target} already holds {there[0]}, one of {len(there)}; nothing was copied.",
            remedy="Give another folder, or overwrite them with --force.",
        )
    try:
        for name in names:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            new = NewFile(target / name, "--copy")
            try:
                new.file.write((source / name).read_bytes())
                new.finish()
            except BaseException:
                new.discard()
                raise
    except OSError as error:
        raise ConfigError(
            f"--copy: {error.strerror}: {error.filename}.", remedy="Give a folder that you may write to."
        ) from None
    # Airflow reads its folder from another place than the one where this was called.
    print(_NEXT.format(count=len(names), folder=shlex.quote(str(target.absolute()))))
    return 0


def _demo(options: argparse.Namespace) -> int:
    examples = (
        example_dags() if options.example_dags is None else _folder(options.example_dags, "--example-dags")
    )
    logs = _folder(options.logs, "--logs")
    try:
        from lakebase_provider.demo import run_demo
    except ImportError as error:
        raise ConfigError(
            f"The demo needs {error.name}, which is not installed.",
            remedy="pip install 'lakebase-provider[all]'.",
        ) from None
    return run_demo(examples, logs)


def _folder(text: str, argument: str) -> Path:
    from lakebase_provider.core.bulk.files.locations import locate

    local = locate(text, argument).local
    if local is None:
        raise ConfigError(f"{argument} is no folder of this machine.", remedy="Give a local path.")
    return local
