"""The truth: what was acknowledged is here."""
