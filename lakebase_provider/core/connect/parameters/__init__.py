"""Python values as parameters of statements."""
