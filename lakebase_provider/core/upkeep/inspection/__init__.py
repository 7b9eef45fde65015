"""What is not well in a database, found by reading its catalog alone; and the report as one HTML page."""
