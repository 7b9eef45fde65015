"""Branches as a client uses them: waited for, held to be the right one, reset, lent to runs, and swept up."""
