"""Who may do what, as it is declared: roles, their privileges, and those on what is made later."""
