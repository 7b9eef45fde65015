"""From settings to an open connection."""
