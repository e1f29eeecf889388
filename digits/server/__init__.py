"""What hangs on gunicorn: the worker, the master's hooks, the number of CPUs. gunicorn.conf.py names them;
nothing outside imports them."""
