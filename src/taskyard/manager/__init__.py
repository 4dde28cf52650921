"""The Service Manager: takes tasks, hands them to executors, and keeps what becomes of them."""
