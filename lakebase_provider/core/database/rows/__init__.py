"""Rows of one table at two moments, compared by key."""
