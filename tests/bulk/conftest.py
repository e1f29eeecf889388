"""Leaves out these tests where their packages are missing. `make test-bulk` installs them."""

import importlib.util

collect_ignore_glob = [] if importlib.util.find_spec("distributed") else ["test_*.py"]
