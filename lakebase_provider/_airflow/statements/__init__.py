"""Statements that the hook runs, and their results."""
