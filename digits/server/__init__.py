"""The parts that depend on gunicorn: the worker, the master's hooks and the number of CPUs. Only gunicorn.conf.py
uses them."""
