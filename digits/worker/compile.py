"""Compiles an .h5 that was not compiled yet when the master got SIGHUP: `python -m digits.worker.compile
MODEL.h5`. digits/worker/master.py starts it. The compiled form goes into the cache beside the model. Whether it
succeeds or fails, it sends SIGHUP to its parent, which then loads the model or logs that it can't."""

from __future__ import annotations

import logging.config
import os
import signal
import sys
from pathlib import Path

from digits import logs
from digits.compiling import load
from digits.model import ModelError


def main() -> None:
    """Compile the file given on the command line, then signal the parent."""
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
