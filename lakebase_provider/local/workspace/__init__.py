"""The workspace's HTTP API and its state."""
