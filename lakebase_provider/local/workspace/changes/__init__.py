"""What creates, updates and deletes of each kind of resource check, and what then happens."""
