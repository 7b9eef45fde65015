"""What is said to people of a failure."""
