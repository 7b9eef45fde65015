"""The resource, and who shares its connections."""
