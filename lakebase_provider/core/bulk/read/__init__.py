"""From a query to Arrow, frames and tuples."""
