"""Moments to come back to, and rows that are put back from one of them."""
