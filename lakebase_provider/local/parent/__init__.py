"""What a test or a shell holds of a local Lakebase."""
