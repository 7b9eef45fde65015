"""From a query on one server to a table on another, by COPY on both sides."""
