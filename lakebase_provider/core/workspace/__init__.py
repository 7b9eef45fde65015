"""Requests to the Databricks workspace."""
