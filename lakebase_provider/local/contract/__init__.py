"""What a local Lakebase's server and its starter agree on."""
