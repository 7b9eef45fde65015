"""Files, local or remote: found, opened, and named in errors."""
