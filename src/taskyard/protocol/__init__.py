"""What travels between the components. Pure (sans-IO): bytes in, events out; messages in, bytes out."""
