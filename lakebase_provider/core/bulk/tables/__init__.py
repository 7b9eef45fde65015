"""What a load does to its table."""
