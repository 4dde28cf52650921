"""Version 2: the full API, one module per resource. Every router here has a place in :mod:`taskyard.api.app`."""
