"""Tokens: minted, cached, shared between processes."""
