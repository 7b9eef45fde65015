"""Who may log in, and by what it is known."""
