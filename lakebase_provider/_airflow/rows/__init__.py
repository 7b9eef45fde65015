"""Rows on their way between Python and a table."""
