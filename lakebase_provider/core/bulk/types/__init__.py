"""What a value is in Postgres, in Arrow and in Python."""
