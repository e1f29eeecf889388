"""Compiles an .h5 that a SIGHUP found uncompiled: `python -m digits.server.compile MODEL.h5`.
digits/server/master.py starts it. The compiled form goes into the cache beside the model; done or failed,
the parent gets a SIGHUP, by which it loads the model or says that it can't."""

from __future__ import annotations

import logging.config
import os
import signal
import sys
from pathlib import Path

from digits import logs
from digits.model import ModelError, load


def main() -> None:
    """Compile the file that the command line names, then tell the parent."""
    master = os.getppid()
    logging.config.dictConfig(logs.config())
    try:
        load(Path(sys.argv[1]))
    except ModelError as error:
        logging.getLogger("digits.model").error(str(error))
    finally:
        if os.getppid() == master:
            os.kill(master, signal.SIGHUP)


if __name__ == "__main__":
    main()
