"""Sphinx settings."""

import lakebase_provider

project = "lakebase-provider"
author = "the lakebase-provider authors"
copyright = "2026, the lakebase-provider authors"  # Sphinx's name for it
version = release = lakebase_provider.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
autodoc_typehints = "description"
autodoc_member_order = "bysource"
exclude_patterns = ["_build"]
myst_heading_anchors = 3
# The README and the changelog link to files of the repository, which are no pages here.
suppress_warnings = ["myst.xref_missing"]
