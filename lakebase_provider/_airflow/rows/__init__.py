"""Rows between Python and a table."""
