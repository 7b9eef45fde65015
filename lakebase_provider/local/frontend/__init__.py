"""TLS and login before Postgres."""
