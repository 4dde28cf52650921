"""Drives a session over a WebSocket: the only code that touches the sockets of the links."""
