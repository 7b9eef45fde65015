"""Synced tables, their pipelines and Lakehouse sync, which really copy between Delta tables and Postgres."""
