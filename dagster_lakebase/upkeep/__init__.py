"""Ops, assets and sensors that look after a database: branches, migrations, rehearsals, rows put back."""
