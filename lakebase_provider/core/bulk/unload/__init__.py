"""From a query to files."""
