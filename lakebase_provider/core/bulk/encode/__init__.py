"""From columns to COPY data."""
