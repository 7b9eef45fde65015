"""Files wherever they lie: found, opened, and named in errors."""
