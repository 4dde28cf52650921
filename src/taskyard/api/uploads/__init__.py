"""Receives files: forms, zip files, and where their bytes are kept until a task refers to them."""
