"""The version, and nothing else: the one thing that everything may import."""

__version__ = "0.1.0"
