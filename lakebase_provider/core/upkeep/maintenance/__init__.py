"""Maintenance that an orchestrator schedules: rows, views, indexes, partitions, sequences."""
