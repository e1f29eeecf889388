"""What depends on gunicorn: the worker, the master's hooks and the number of CPUs."""
