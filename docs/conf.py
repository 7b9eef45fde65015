"""Sphinx settings."""

from docutils.nodes import Element
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.nodes import make_refnode

import lakebase_provider
from dagster_lakebase import components
from lakebase_provider.core.errors import kinds

project = "lakebase-provider"
author = "the lakebase-provider authors"
copyright = "2026, the lakebase-provider authors"  # Sphinx's name for it
version = release = lakebase_provider.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
autodoc_typehints = "description"
autodoc_member_order = "bysource"
# The fields of a component or a resource are in a table; its signature would repeat them all.
autodoc_class_signature = "separated"
exclude_patterns = ["_build"]
myst_heading_anchors = 4
suppress_warnings = [
    "ref.python",  # an attribute of ours is called as a built-in type is: bytes
]
nitpick_ignore_regex = [
    # Others' names, and the standard library's: their documentation is not at hand when this one is built.
    (
        "py:.*",
        r"(airflow|collections|contextlib|dagster|dataclasses|datetime|os|pathlib|psycopg|random|socket|types)\..*",
    ),
    ("py:.*", r"(pa|pd|pl)\.\w+|datetime|Asset|Query|(Async)?Engine|DagsterInvalidDefinitionError"),
    ("py:.*", r"Airflow\w*Exception|Context|ObjectStoragePath|PathLike"),
    # Names for types, which Sphinx does not find: the docstring says which values there are.
    ("py:.*", r"Numeric|Parameters|FailOn|FindingStatus|Limits|Unit|Format|(Write)?Mode|Claims|Tables"),
    ("py:.*", r"TablePrivilege|IdentityType|_\w+|.*\._\w+|.*\.lease\.Client|.*\.Rehearsed"),
    # Options that are arguments of methods, and objects that tables of another page document.
    ("py:.*", r"(.*\.)?(LeaseOptions|SyncedTableOptions|Branch|CatalogTables|SyncedTableUpkeep)"),
    # Private classes in the signatures of public ones.
    ("py:.*", r"(.*\.)?(Clock|Minter|Running|LakebasePool|AsyncLakebasePool|Secret)"),
    ("py:.*", r"(.*\.)?(BranchUpkeep|WorkspaceObjects)"),
]
#: Names that a table of another page documents, and that page.
TABULATED = {
    **dict.fromkeys(
        (name for name, kind in vars(kinds).items() if isinstance(kind, type)), "reference/errors"
    ),
    **dict.fromkeys(("LoadPlan", "LoadOptions"), "reference/load-options"),
    **dict.fromkeys(("LoadingOperator", "BulkOperator"), "reference/operators"),
    **dict.fromkeys(components.__all__, "reference/components"),
}


def resolve_short_name(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, text: Element
) -> Element | None:
    """Find a name of ours where users import it from.

    Type hints name the inner module, whose path is private, and docstrings the class alone.
    """
    if node.get("refdomain") != "py":
        return None
    name = node["reftarget"].rpartition(".")[2]
    for ending in (node["reftarget"], name):
        objects = env.domains.python_domain.objects.items()
        found = {
            (entry.docname, entry.node_id) for full, entry in objects if f".{full}".endswith(f".{ending}")
        }
        if len(found) == 1:
            return make_refnode(app.builder, node["refdoc"], *found.pop(), text)
    if name in TABULATED:
        return make_refnode(app.builder, node["refdoc"], TABULATED[name], "", text)
    return None


def setup(app: Sphinx) -> None:
    """Have Sphinx ask here for what it does not find."""
    app.connect("missing-reference", resolve_short_name)
