"""One look at a database from all sides, for a page that a person opens, and what earlier looks have seen."""
