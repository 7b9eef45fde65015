"""What a load since the last one is to load, as the ledger of its table tells."""
