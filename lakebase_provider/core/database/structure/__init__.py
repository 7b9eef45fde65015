"""The structure of a database as text: what is defined in it, and how two of them differ."""
