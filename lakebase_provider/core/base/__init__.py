"""What everything else builds on: no driver, no network."""
