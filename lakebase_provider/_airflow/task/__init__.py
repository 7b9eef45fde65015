"""What the package has to do with the task that it runs in."""
