"""The health check as op, asset checks and sensor, and the inspection as asset checks."""
