"""Looking after a database."""
