"""The staged check: is the database reachable, and well?"""
