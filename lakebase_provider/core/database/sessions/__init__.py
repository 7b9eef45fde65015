"""Who is connected to a database."""
