"""Notifiers, for ``on_failure_callback`` of tasks and DAGs."""
