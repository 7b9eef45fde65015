"""Sockets on loopback, what they take from strangers, and links that misbehave."""
