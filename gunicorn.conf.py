"""How gunicorn runs the service; it reads this file by itself. What an operator may want to change is in
digits/serving/settings.py and comes from the environment."""

# before anything imports what it replaces; also in the master, or each worker would complain at its exit
from gevent import monkey

monkey.patch_all()

import os  # noqa: E402

from digits import logs  # noqa: E402
from digits.server import master  # noqa: E402
from digits.server.cpus import usable_cpus  # noqa: E402
from digits.server.errorlog import ErrorLog  # noqa: E402
from digits.serving.settings import SettingError, Settings  # noqa: E402

try:
    settings = Settings.from_env(os.environ)
    workers = settings.workers or usable_cpus()
    master.prepare_metrics_folder(workers)
except SettingError as error:
    raise SystemExit(f"Error: {error}") from None
except OSError as error:
    raise SystemExit(f"Error: no place for the workers' metrics files: {error}") from None

bind = f"[{settings.host}]:{settings.port}" if ":" in settings.host else f"{settings.host}:{settings.port}"
if settings.metrics_bind:
    bind = [bind, settings.metrics_bind]
worker_class = "digits.server.worker.Worker"
# a connection takes a descriptor and some kilobytes; when nearly all are taken, the longest idle one is closed
worker_connections = master.descriptors(4096)

# above the 60 s after which load balancers drop an idle connection: whoever closes, it must not be us
keepalive = 75
graceful_timeout = settings.grace_seconds
timeout = 30

# a heartbeat on a slow disk would get healthy workers killed (benoitc/gunicorn#1863)
worker_tmp_dir = master.shared_memory()
# nothing here uses it, and it needs a writable home
control_socket_disable = True

# nothing here asks for scheme, client address or a path prefix, so nobody is trusted to set them by a header
forwarder_headers = ""
secure_scheme_headers = {}

logger_class = ErrorLog
logconfig_dict = logs.config(settings.log_level)

on_starting = master.on_starting
on_reload = master.on_reload
pre_fork = master.pre_fork
post_fork = master.post_fork
post_worker_init = master.post_worker_init
child_exit = master.child_exit
