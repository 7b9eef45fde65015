"""Branches as a client uses them: waited for, held to be the right one, and reset."""
