"""What depends on gunicorn: the worker and the master's hooks."""
