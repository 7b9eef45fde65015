"""Statements that the hook runs, and what comes of them."""
