"""Writes the pages that follow from tables in the code: `python docs/generate.py`."""

from __future__ import annotations

import inspect
from pathlib import Path

from lakebase_provider.core.config import settings
from lakebase_provider.core.errors import kinds as errors
from lakebase_provider.core.upkeep.health.stage_names import STAGES

HERE = Path(__file__).parent
_MADE = "<!-- Written by docs/generate.py from the code; edit the code. -->\n"


def configuration_page() -> str:
    """The table of settings."""
    lines = [
        _MADE,
        "# Settings\n",
        "`LakebaseConfig` has these fields. They are the keys of an Airflow connection's extras, the fields",
        "of `LakebaseResource`, and the keyword arguments of `LakebaseConfig`. Times are in seconds.\n",
        "| Setting | Environment | Default | What it is |",
        "|---|---|---|---|",
    ]
    for row in settings():
        variables = ", ".join(f"`{name}`" for name in row.env)
        default = "" if row.default is None else f"`{row.default}`"
        choices = f" One of {', '.join(f'`{c}`' for c in row.choices)}." if row.choices else ""
        lines.append(f"| `{row.name}` | {variables} | {default} | {row.description}{choices} |")
    lines += [
        "",
        "An Airflow connection also uses its own fields: host, port, schema (the database), login (the user)",
        "and password (the client secret of the login's service principal; with `auth=password` the native",
        "password).",
        "",
        "In Airflow a deployment may set some of them once for all connections of type `lakebase`, in",
        "the section `[lakebase]` of its configuration (`AIRFLOW__LAKEBASE__MAX_SIZE`):",
        f"{', '.join(f'`{row.name}`' for row in settings() if row.of_deployment)}.",
        "They go below a connection's own and above the defaults. See",
        "[Airflow](airflow.md#settings-of-a-deployment).",
        "",
        "What a deployment allows, and demands of every connection, are variables of its own: see",
        "[Security](security.md).",
    ]
    return "\n".join(lines) + "\n"


def errors_page() -> str:
    """The tree of errors with codes and remedies."""
    lines = [
        _MADE,
        "# Errors\n",
        "Each failure is a `LakebaseError` with a `code`, whether it is `retryable`, and a `remedy`; the",
        "error of the driver or the workspace is its cause.\n",
        "| Error | Code | Retryable | Meaning | Remedy |",
        "|---|---|---|---|---|",
    ]
    for kind in error_kinds():
        meaning = (inspect.getdoc(kind) or "").splitlines()[0]
        retryable = "yes" if kind.retryable else "no"
        lines.append(
            f"| `{kind.__name__}` | `{kind.code}` | {retryable} | {meaning} | {kind.default_remedy} |"
        )
    lines += [
        "",
        "## Health check\n",
        "`lakebase doctor`, the Airflow operator and the Dagster check run these stages:\n",
    ]
    lines += ["| Stage | Builds on |", "|---|---|"]
    lines += [f"| `{name}` | {', '.join(f'`{n}`' for n in needs)} |" for name, needs in STAGES.items()]
    return "\n".join(lines) + "\n"


def error_kinds() -> list[type[errors.LakebaseError]]:
    """All kinds of error, in the order of the source."""
    found = [
        kind
        for kind in vars(errors).values()
        if inspect.isclass(kind) and issubclass(kind, errors.LakebaseError)
    ]
    return [kind for kind in found if kind is not errors.LakebaseError]


PAGES = {"configuration.md": configuration_page, "errors.md": errors_page}


if __name__ == "__main__":
    for name, page in PAGES.items():
        (HERE / name).write_text(page())
