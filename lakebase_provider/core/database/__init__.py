"""What stands in a database, and how sessions get along in it."""
