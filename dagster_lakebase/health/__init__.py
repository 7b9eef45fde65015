"""The health check as op, asset checks and sensor."""
