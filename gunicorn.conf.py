"""gunicorn's configuration, which gunicorn reads on its own when it is started in this folder. The settings for
operators are environment variables, see digits/web/settings.py."""

# its locks for metrics are never held while greenlets switch, so they need not be gevent's, which are slower
import prometheus_client  # noqa: F401

# before other imports, so that they get the patched modules; in the master too, or each worker would log an error
# when it exits
from gevent import monkey

monkey.patch_all()

import os  # noqa: E402

from digits import logs  # noqa: E402
from digits.web.settings import SettingError, Settings  # noqa: E402
from digits.worker import master  # noqa: E402

try:
    settings = Settings.from_env(os.environ)
    workers = settings.workers or master.usable_cpus()
    master.prepare_metrics_folder(workers)
except SettingError as error:
    raise SystemExit(f"Error: {error}") from None
except OSError as error:
    raise SystemExit(f"Error: the folder for metrics can't be created: {error}") from None

bind = f"[{settings.host}]:{settings.port}" if ":" in settings.host else f"{settings.host}:{settings.port}"
if settings.metrics_bind:
    bind = [bind, settings.metrics_bind]
worker_class = master.WORKER_CLASS
# a connection takes a descriptor and some kilobytes; when nearly all are in use, the longest idle one is closed
worker_connections = master.max_connections(4096)

# longer than the 60 s after which load balancers close idle connections, so that it is never the service that
keepalive = 75
# when the grace time ends, workers have this long to answer what still runs, before the master kills them
graceful_timeout = settings.grace_seconds + master.CUT_OFF_SECONDS
timeout = 30

# a heartbeat on a slow disk would get healthy workers killed (benoitc/gunicorn#1863)
worker_tmp_dir = master.shared_memory()
# it would go past the buffer that sends an answer's head and body together
sendfile = False
# not used, and it needs a writable home folder
control_socket_disable = True

# the service uses neither the scheme nor the client's address nor a path prefix from headers, so none is trusted
# the address of a client would only be compared with the trusted ones, so it need not be parsed
forwarded_allow_ips = "*"
forwarder_headers = ""
secure_scheme_headers = {}

logconfig_dict = logs.config(settings.log_level)

on_starting = master.on_starting
on_reload = master.on_reload
pre_fork = master.pre_fork
child_exit = master.child_exit
