"""Migrations: SQL files run in their order, each exactly once."""
