"""Sockets on loopback, what they accept from strangers, and links that misbehave."""
