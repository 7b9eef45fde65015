"""Sensors: importing one imports neither a driver nor the Databricks SDK."""
