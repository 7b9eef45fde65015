"""A change that is tried on a branch first: what it does, how long it takes, and which locks it holds."""
