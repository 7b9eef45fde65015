"""Components of what lies in Delta as well as in Lakebase."""
