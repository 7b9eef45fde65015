"""Programs of others that connect by themselves: what they find in their environment, and how they run."""
