"""From a source to a table: all of it once, or nothing."""
