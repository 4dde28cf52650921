"""The API Server: the HTTP face for users, the task repository, and the connector to the manager."""
