"""The workspace's HTTP API, and what it knows."""
