"""Measures where the CPU time of a request goes, for one image as JSON. `make bench-profile` prints a
table.

It measures the CPU time of the service and of a server with a constant answer, each under gunicorn with one worker
and one connection. It then measures the parts of the difference in this process, by calling the app and turning
off one part after another.
"""

from __future__ import annotations

import datetime
import http.client
import io
import json
import logging
import logging.config
import os
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from bench import SERVERS, Running, Server
from report import CEILING, OURS

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
SAMPLE = json.loads((ROOT / "sample_request.json").read_text())
BODY = json.dumps(SAMPLE).encode()


def served(server: Server) -> float:
    """CPU time per request in µs of a server with one worker and its master, the minimum of ten rounds of
    1,000."""
    alone = replace(server, command=f"{server.command} -w 1", environment=None)
    image = np.array([SAMPLE["image"]], np.uint8)
    running = Running(alone, image, [7], ROOT / "models" / "mnist.h5")
    try:
        client = socket.create_connection(("127.0.0.1", running.port))
        head = "POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        request = f"{head}Content-Length: {len(BODY)}\r\n\r\n".encode() + BODY

        def ask() -> None:
            client.sendall(request)
            answer = http.client.HTTPResponse(client)
            answer.begin()
            assert answer.status == 200, answer.read()
            answer.read()

        def spent() -> float:
            times = [one.cpu_times() for one in running.processes()]
            return sum(t.user + t.system for t in times)

        rounds = []
        for _ in range(11):
            before = spent()
            for _ in range(1000):
                ask()
            rounds.append((spent() - before) * 1000)
        client.close()
        return min(rounds[1:])
    finally:
        running.stop()


def least(call: Callable[[], Any]) -> float:
    """CPU time of a call in µs, the minimum of 120 rounds of 50."""
    rounds = []
    for _ in range(120):
        begun = time.thread_time()
        for _ in range(50):
            call()
        rounds.append((time.thread_time() - begun) / 50 * 1e6)
    return min(rounds)


def in_process() -> dict[str, float]:
    """CPU time in µs of each part of answering a request after gunicorn has parsed it."""
    from digits import logs
    from digits.web import bodies
    from digits.worker import master

    master.prepare_metrics_folder(1)
    logging.config.dictConfig(logs.config("info"))
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for handler in logging.getLogger("digits").handlers:
        handler.fd = nowhere  # type: ignore[attr-defined]
    from flask import Flask, Response
    from werkzeug.test import create_environ

    from app import app

    environ = create_environ("/predict", method="POST", data=BODY, content_type="application/json")
    environ["wsgi.input_terminated"] = True

    def call(wsgi: Any) -> None:
        answer = wsgi(environ | {"wsgi.input": io.BytesIO(BODY)}, lambda status, headers, *_: None)
        b"".join(answer)
        answer.close()

    service = app.extensions["digits"]
    steps = [least(lambda: call(app))]
    logging.getLogger("digits.request").setLevel("WARNING")
    steps.append(least(lambda: call(app)))
    found = service.classifier.probabilities(np.zeros((1, 28, 28, 1), np.float32))
    service.classifier.probabilities = lambda batch: found
    steps.append(least(lambda: call(app)))
    batch, items = np.zeros((1, 28, 28, 1), np.float32), bodies.Items([np.zeros(784)], ["image"], True)
    bodies.items_of, bodies.to_batch = lambda *_: items, lambda *_: (batch, [])
    steps.append(least(lambda: call(app)))
    bare = Flask("bare")
    bare.ensure_sync = lambda func: func  # type: ignore[method-assign]
    bare.add_url_rule("/predict", view_func=lambda: Response(b"{}"), methods=["POST"])
    steps.append(least(lambda: call(bare)))
    names = (
        "the log line",
        "the network",
        "reading and decoding the body",
        "metrics, hooks, the answer's JSON",
        "Flask: routing, contexts, request and response",
    )
    return dict(zip(names, -np.diff([*steps, 0]), strict=True))


def main() -> None:
    """Print the table."""
    ours, constant = (
        served(next(server for server in SERVERS if server.name == name)) for name in (OURS, CEILING)
    )
    parts = in_process()
    rest = ours - constant - sum(parts.values())
    print(
        f"{datetime.date.today()}, {os.cpu_count()} cores, Python {sys.version.split()[0]}; one image as JSON\n"
    )
    print("| | µs of CPU | share |\n|---|---|---|")
    rows = {"gunicorn, its parser and the kernel (the constant answer)": constant} | parts
    rows["the remainder, which appears only under gunicorn: cold caches, wake-ups"] = rest
    for name, value in (rows | {"total": ours}).items():
        print(f"| {name} | {value:.0f} | {value / ours:.0%} |")


if __name__ == "__main__":
    main()
