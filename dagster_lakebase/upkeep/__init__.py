"""Ops, assets and sensors that look after a database: its branches, and its migrations."""
