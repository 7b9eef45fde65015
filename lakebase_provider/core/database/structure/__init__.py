"""The structure of a database as text: everything that is defined in it, and how two of them differ."""
