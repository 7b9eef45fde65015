"""From a source to a table: all rows exactly once, or none."""
