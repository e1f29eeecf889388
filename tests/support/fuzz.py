"""Fuzzes the service (`make fuzz`): it sends mutated requests, and fails at the first 5xx, crash, hang or dead
worker.

An input is a raw HTTP request. Most inputs go through gunicorn's parser and the app in one process, with
coverage-guided fuzzing (atheris, which is libFuzzer for Python). The others are sent over sockets to a real
gunicorn. With KEEP=1, inputs that reach new code are kept in tests/corpus.zip, from where tests/web/test_fuzz.py
replays them. An input that fails is written to tmp/fuzz-found.

    make fuzz                      # 100,000 inputs in process and 20,000 over sockets
    make fuzz RUNS=1000000         # more inputs
    make fuzz KEEP=1               # keep the inputs that reach new code
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import logging
import logging.config
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import corpus
import costly
from project import ROOT

FOUND = ROOT / "tmp" / "fuzz-found"
ADVICE = "`make corpus FILES=tmp/fuzz-found/...` keeps the request for the tests."
# maximum seconds for one input, even on a busy machine
SLOWEST = 10

sys.path.insert(0, str(ROOT))


# seeds


def seeds() -> dict[str, bytes]:
    """A valid request of each kind, and GET requests for all routes."""
    from PIL import Image, ImageDraw

    picture = Image.new("L", (40, 40), 255)
    ImageDraw.Draw(picture).line((14, 8, 26, 8, 18, 32), fill=0, width=3)
    number = Image.new("L", (90, 40), 255)
    for x in (0, 18, 50):
        number.paste(picture.crop((10, 4, 30, 36)), (x, 4))

    def encoded(kind: str, picture: Image.Image = picture) -> bytes:
        file = io.BytesIO()
        picture.save(file, kind)
        return file.getvalue()

    image = [[90 * (x in (13, 14)) for x in range(28)] for _ in range(28)]
    flat = [value for row in image for value in row]
    text = base64.b64encode(encoded("PNG")).decode()
    part = b'--b\r\nContent-Disposition: form-data; name="f"; filename="x"\r\n\r\n' + encoded("PNG") + b"\r\n"
    tensor = {"name": "image", "datatype": "UINT8", "shape": [1, 784]}
    head = json.dumps({"inputs": [tensor | {"parameters": {"binary_data_size": 784}}]}).encode()
    behind = "Inference-Header-Content-Length"
    outputs = [{"name": "digit", "parameters": {"binary_data": True}}, {"name": "probabilities"}]

    def js(value: Any) -> bytes:
        return json.dumps(value, separators=(",", ":")).encode()

    octets, v1, v2 = "application/octet-stream", "/v1/models/mnist:predict", "/v2/models/mnist/infer"
    row = ",".join(map(str, flat))
    made = {
        "json": request("/predict", js({"image": image})),
        "json-flat": request("/predict?detail=1", js({"image": flat})),
        "json-deep": request("/predict", js({"image": [[[value] for value in row] for row in image]})),
        "json-many": request("/predict", js({"images": [flat, flat]})),
        "json-picture": request("/predict?prepare=mnist", js({"image": f"data:image/png;base64,{text}"})),
        "json-pictures": request("/predict", js({"images": [text, text]})),
        "raw": request("/predict", bytes(flat) * 2, octets),
        "form": request("/predict", part * 2 + b"--b--\r\n", "multipart/form-data; boundary=b"),
        "read": request("/read?length=3&alternatives=2", encoded("PNG", number), "image/png"),
        "read-json": request("/read?check=luhn", js({"images": [text, text]})),
        "read-form": request("/read", part * 2 + b"--b--\r\n", "multipart/form-data; boundary=b"),
        "v1-rows": request(v1, js({"instances": [image], "signature_name": ""}).replace(b"90", b"1")),
        "v1-named": request(v1, js({"instances": [{"image": flat}]}).replace(b"90", b"1")),
        "v1-columns": request(v1, js({"inputs": {"image": [flat]}}).replace(b"90", b"0.5")),
        "v1-picture": request(v1, js({"instances": [{"b64": text}]})),
        "v2": request(v2, js({"id": "1", "inputs": [tensor | {"data": flat}]})),
        "v2-outputs": request(v2, js({"inputs": [tensor | {"data": image}], "outputs": outputs})),
        "v2-bytes": request(v2, head + bytes(flat), octets, **{behind: str(len(head))}),
        "mlflow": request("/invocations", js({"inputs": [image, image]})),
        "mlflow-rows": request("/invocations", js({"instances": [flat], "params": {}})),
        "mlflow-frame": request("/invocations", js({"dataframe_split": {"columns": flat, "data": [flat]}})),
        "mlflow-csv": request("/invocations", f"{row}\n{row}\r\n".encode(), "text/csv"),
        "mlflow-names": request("/invocations", (",".join(['"a"'] * 784) + f"\n{row}").encode(), "text/csv"),
        "mlflow-picture": request("/invocations", js({"image": text})),
        "chunked": b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/octet-stream\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n310\r\n" + bytes(flat) + b"\r\n0\r\n\r\n",
    }
    for kind in ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"):
        made[kind.lower()] = request("/predict", encoded(kind), f"image/{kind.lower()}")
    paths = "/ /ping /model /metrics /health/ready /openapi.json /docs /docs/swagger-ui.css /static/page.css"
    paths += " /v1/models/mnist /v1/models/mnist/versions/1 /v1/models/mnist/metadata"
    paths += " /v2 /v2/models/mnist /v2/models/mnist/ready"
    for path in paths.split():
        made["get" + path.replace("/", "-")] = f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    return made


def costly_seeds() -> list[bytes]:
    """Requests that cost more than they should, and get an error."""
    return [request(path, body, kind) for path, kind, body in costly.seeds().values()]


def request(path: str, body: bytes, kind: str = "application/json", **headers: str) -> bytes:
    """A raw POST."""
    more = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    start = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{more}\r\n"
    return start.encode() + body


# mutations

TYPES = [
    b"application/json",
    b"application/octet-stream",
    b"multipart/form-data; boundary=b",
    b"multipart/form-data",
    *(b"image/" + kind for kind in (b"png", b"jpeg", b"webp", b"bmp", b"gif", b"tiff")),
    b"text/plain; charset=utf-16",
    b"text/csv",
    b";;;",
    b"\xff/\xfe",
]
PATHS = [
    b"/predict",
    b"/predict?detail=1&prepare=none",
    b"/predict?detail=%ff&detail=1",
    b"/invocations",
    b"/read",
    b"/read?length=50&check=luhn&alternatives=10",
    b"/read?length=%ff&alternatives=-1",
    b"/v1/models/mnist:predict",
    b"/v1/models/mnist/versions/99999999999999999999999:predict",
    b"/v2/models/mnist/infer",
    b"/v2/models/mnist/versions/%00/infer",
    b"/static/..%2f..%2fapp.py",
    b"/static/%2e%2e/%00",
    b"/docs/%ff",
    b"//x",
    b"/%ff%fe",
    b"*",
]
HEADERS = [
    b"X-Request-ID: " + b"a" * 129,
    b"X-Request-ID: \xff",
    b"X-API-Key: \xff",
    b"Authorization: Bearer",
    b"Accept: text/html;q=x, */*;q=-1",
    b"Accept: text/html",
    b"Range: bytes=0-,5-1",
    b"If-None-Match: \xff",
    b"If-Modified-Since: Thu, 99 Foo 99999 99:99:99 GMT",
    b"Content-Encoding: gzip",
    b"Expect: 100-continue",
    b"Origin: null",
    b"Cookie: \xff=;;=",
    b"Transfer-Encoding: chunked",
    b"Content-Length: 99999999999999999999",
    b"Inference-Header-Content-Length: 99",
    b"Inference-Header-Content-Length: \xb2",
    b"Host: \xff:99999",
    b"Upgrade: h2c\r\nHTTP2-Settings: x\r\nConnection: Upgrade, HTTP2-Settings",
]
TOKENS = [
    *(b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-0", b"1e-999", b"0.1", b"256", b"-1", b"1" * 400),
    *(
        b"18446744073709551616",
        b"null",
        b"true",
        b"{}",
        b"[]",
        b'""',
        b"[[[[]]]]",
        b'"\\ud800"',
        b'"\\u0000"',
    ),
    *(
        b'{"b64":""}',
        b'{"b64":1}',
        b'"data:image/png;base64,"',
        b'"data:,"',
        b"\xff",
        b"\xed\xa0\x80",
        b"[" * 3000,
    ),
]
VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 255, 256, 0.5, 1e300, 10**400, float("nan"), float("inf")),
    *("", "x", "image", "digit", "FP32", "UINT8", "\ud800", "\0", "data:image/png;base64,AAAA", "AAAA"),
    *(
        [],
        [[]],
        {},
        [0] * 784,
        [0.5] * 784,
        {"b64": "AAAA"},
        {"image": [0] * 784},
        [1, 784],
        [-1],
        [2**63, 2],
    ),
]
KEYS = [
    "image",
    "images",
    "instances",
    "inputs",
    "outputs",
    "data",
    "shape",
    "parameters",
    "binary_data_size",
    "b64",
    "dataframe_split",
    "columns",
]


def mutated(rng: random.Random, raw: bytes, other: bytes, havoc: Callable[[bytes], bytes]) -> bytes:
    """Change a request in one to three places. other: a request to take pieces from. havoc: changes bytes."""
    head, gap, body = raw.partition(b"\r\n\r\n")
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        way = rng.random()
        if way < 0.02:
            return havoc(raw)
        if way < 0.05:
            head = havoc(head)
        elif way < 0.16:
            head = re.sub(rb" \S+ HTTP", lambda _: b" " + rng.choice(PATHS) + b" HTTP", head, count=1)
        elif way < 0.22:
            head = re.sub(rb"Content-Type: [^\r]*", lambda _: b"Content-Type: " + rng.choice(TYPES), head)
        elif way < 0.28:
            head += b"\r\n" + rng.choice(HEADERS)
        elif way < 0.33:
            body = costly.grown(rng, body)
        elif way < 0.5:
            body = changed_json(rng, body) or havoc(body)
        elif way < 0.65:
            places = list(re.finditer(rb'-?\d[\d.eE+-]*|"[^"]*"|null|true', body))
            if places:
                place = rng.choice(places)
                body = body[: place.start()] + rng.choice(TOKENS) + body[place.end() :]
        elif way < 0.72:
            theirs = other.partition(b"\r\n\r\n")[2]
            body = body[: rng.randrange(len(body) + 1)] + theirs[rng.randrange(len(theirs) + 1) :]
        else:
            body = havoc(body)
    if rng.random() < 0.05 and b"\r\nContent-Length" in head:
        head = re.sub(rb"\r\nContent-Length: [^\r]*", b"\r\nTransfer-Encoding: chunked", head)
        cut = rng.randrange(len(body) + 1)
        body = b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in (body[:cut], body[cut:]) if p) + b"0\r\n\r\n"
    elif rng.random() < 0.95:
        head = re.sub(rb"(?<=\r\nContent-Length: )\d+", b"%d" % len(body), head)
    return head + gap + body


def changed_json(rng: random.Random, body: bytes) -> bytes | None:
    """`body` with one value or name changed, or None if it is not JSON."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return None
    containers = []

    def visit(value: Any) -> None:
        if isinstance(value, dict | list) and value:
            containers.append(value)
            # a few rows of pixels are enough to choose from
            for inner in list(value.values() if isinstance(value, dict) else value)[:30]:
                visit(inner)

    visit(document)
    if not containers:
        return json.dumps(rng.choice(VALUES)).encode()
    where: Any = rng.choice(containers)
    place = rng.choice(list(where)) if isinstance(where, dict) else rng.randrange(len(where))
    way = rng.randrange(6)
    if way == 0:
        del where[place]
    elif way == 1 and isinstance(where, dict):
        where[rng.choice(KEYS)] = where.pop(place)
    elif way == 2:
        where[place] = [where[place]]
    elif way == 3 and isinstance(where, list):
        where.extend(where[: rng.randrange(40)])
    elif way == 4 and isinstance(where, dict):
        where[rng.choice(KEYS)] = rng.choice(VALUES)
    else:
        where[place] = rng.choice(VALUES)
    return json.dumps(document, separators=(",", ":")).encode()


def havoc_by(rng: random.Random) -> Callable[[bytes], bytes]:
    """Changes random bytes, for use without libFuzzer."""

    def havoc(data: bytes) -> bytes:
        out = bytearray(data)
        for _ in range(rng.choice((1, 1, 2, 4, 8))):
            place = rng.randrange(len(out) + 1)
            way = rng.randrange(5)
            if way == 0:
                del out[place : place + rng.choice((1, 2, 16, 200))]
            elif way == 1:
                out[place:place] = rng.choice(TOKENS)
            elif way == 2:
                out[place:place] = out[place : place + rng.randrange(60)]
            elif way == 3 and place < len(out):
                out[place] ^= 1 << rng.randrange(8)
            elif place < len(out):
                out[place] = rng.randrange(256)
        return bytes(out)

    return havoc


# in one process


class Checked(io.TextIOBase):
    """The stream for the log. Each line must be JSON."""

    def write(self, text: str) -> int:
        for line in text.splitlines():
            json.loads(line)
        return len(text)


class Target:
    """The app behind gunicorn's parser and the worker's stream of the body, in this process."""

    def __init__(self) -> None:
        from gunicorn.config import Config
        from gunicorn.http import wsgi
        from gunicorn.http.errors import NoMoreData, ParseException
        from gunicorn.http.parser import RequestParser

        from app import create_app
        from digits import logs
        from digits.web.settings import Settings
        from digits.worker.body import Body, Room

        settings = Settings(max_batch=8, max_body_bytes=1 << 16)
        self.app = create_app(settings)
        self.body = lambda asked: Body(asked, Room(settings))
        handler = logging.StreamHandler(Checked())
        formatter = logs.config()["formatters"]["json"]
        made = logging.config.DictConfigurator({}).configure_formatter(formatter)  # type: ignore[attr-defined]
        handler.setFormatter(made)
        self.log, self.handler = logging.getLogger("digits"), handler
        self.log.addHandler(handler)
        self.log.setLevel("INFO")
        self.config = Config()
        # the values in gunicorn.conf.py
        self.config.set("forwarder_headers", "")
        self.config.set("secure_scheme_headers", {})
        self.parse, self.create = RequestParser, wsgi.create
        self.refusals = (NoMoreData, ParseException, StopIteration)
        self.peer, self.server = ("127.0.0.1", 4711), ("127.0.0.1", 5000)
        self.ours, self.theirs = socket.socketpair()
        self.theirs.setblocking(False)

    def close(self) -> None:
        """Restore the state of the process."""
        self.log.removeHandler(self.handler)
        self.log.setLevel("NOTSET")
        self.ours.close()
        self.theirs.close()

    def answer(self, raw: bytes) -> int:
        """The status of the answer, 0 if gunicorn's parser refuses the request. Raises AssertionError for a wrong
        answer."""
        try:
            asked = next(self.parse(self.config, iter([raw]), self.peer))
        except self.refusals:
            return 0
        if asked._expected_100_continue:
            asked._expected_100_continue = False
        asked.body = self.body(asked)
        response, environ = self.create(asked, self.ours, self.peer, self.server, self.config)
        chunks = self.app(environ, response.start_response)
        body = b"".join(chunks)
        if hasattr(chunks, "close"):
            chunks.close()
        status = response.status_code
        assert status is not None
        assert status < 500, f"{status}: {body[:500]!r}"
        kind = {name.lower(): value for name, value in response.headers}.get("content-type", "")
        if kind.endswith("json") and asked.method != "HEAD" and body:
            json.loads(body, parse_constant=lambda name: (_ for _ in ()).throw(AssertionError(name)))
        return status


def run_target(arguments: list[str]) -> None:
    """Run libFuzzer's loop, which does not return."""
    import atheris

    # of the libraries, instrument those that parse requests
    with atheris.instrument_imports(
        include=["digits", "gunicorn.http", "werkzeug.formparser", "werkzeug.sansio", "werkzeug.http"]
    ):
        import app  # noqa: F401
    target = Target()
    pool = [*seeds().values(), *costly_seeds()]
    counts: Counter[int] = Counter()

    def one(raw: bytes) -> None:
        counts[target.answer(raw)] += 1
        if counts.total() % 1000 == 0:
            Path(os.environ["FUZZ_COUNTS"]).write_text(json.dumps(counts))

    def mutate(raw: bytes, most: int, seed: int) -> bytes:
        rng = random.Random(seed)
        # mutating requests that the parser refuses is of little use
        if rng.random() < 0.5 and not re.match(rb"[A-Z]+ /\S* HTTP/1\.1\r\nHost: x\r\n", raw):
            raw = rng.choice(pool)
        return mutated(rng, raw, rng.choice(pool), lambda data: atheris.Mutate(data, len(data) + 64))[:most]

    # -merge restarts the program by its name
    itself = f"'{sys.executable}' '{__file__}' --target"
    atheris.Setup([itself, *arguments], one, custom_mutator=mutate, internal_libfuzzer=True)
    atheris.Fuzz()


def fuzz_in_process(runs: int, seconds: int, keep: bool) -> int:
    """Run libFuzzer in a separate process, and return the number of inputs. Exits if it finds a failure."""
    work = ROOT / "tmp" / "fuzz"
    shutil.rmtree(work, ignore_errors=True)
    for folder, requests in (("seeds", seeds()), ("kept", corpus.read()), ("new", {})):
        (work / folder).mkdir(parents=True)
        for name, raw in requests.items():
            (work / folder / name).write_bytes(raw)
    FOUND.mkdir(parents=True, exist_ok=True)
    environ = os.environ | {"FUZZ_COUNTS": str(work / "counts")}

    def libfuzzer(*arguments: object) -> str:
        command = [sys.executable, __file__, "--target", *map(str, arguments)]
        done = subprocess.run(
            command, env=environ, stderr=subprocess.PIPE, text=True, errors="replace", check=False
        )
        if done.returncode:
            sys.exit(f"{done.stderr[-6000:]}\nA failure was found. {ADVICE}")
        return done.stderr

    limits = (
        f"-timeout={SLOWEST}",
        "-rss_limit_mb=2048",
        "-max_len=16384",
        f"-artifact_prefix={FOUND}/",
    )
    output = libfuzzer(
        f"-runs={runs}",
        f"-max_total_time={seconds}",
        *limits,
        *(work / name for name in ("new", "seeds", "kept")),
    )
    tried, took = map(int, re.search(r"Done (\d+) runs in (\d+) second", output).groups())  # type: ignore[union-attr]
    counts = {int(k): v for k, v in json.loads((work / "counts").read_text()).items()}
    refused = counts.pop(0, 0)
    print(f"in process: {tried} inputs in {took} s, no 5xx")
    shares = ", ".join(f"{status}: {n}" for status, n in sorted(counts.items()))
    print(f"  refused by gunicorn's parser: {refused}; answered: {shares} (to the last thousand)")
    if keep:
        # the smallest set of files that reaches the same code
        (work / "merged").mkdir()
        libfuzzer("-merge=1", *limits, work / "merged", work / "kept", work / "new")
        corpus.add(list((work / "merged").iterdir()))
        print(f"  tests/corpus.zip now has {len(corpus.read())} requests")
    return tried


# over sockets


def fuzz_over_sockets(runs: int, seed: int) -> int:
    """Send mutated requests to a real gunicorn, and return their number. Exits if an answer or a worker is
    lost."""
    output = ROOT / "tmp" / "fuzz" / "server.log"
    output.parent.mkdir(parents=True, exist_ok=True)
    environ = {k: v for k, v in os.environ.items() if k != "PROMETHEUS_MULTIPROC_DIR"}
    environ |= {
        "PORT": "0",
        "WEB_CONCURRENCY": "2",
        # being refused on a busy machine is no failure
        "DIGITS_MAX_WAIT_MS": "60000",
        "DIGITS_MAX_BODY_BYTES": "65536",
        "DIGITS_MAX_BATCH": "8",
    }
    with output.open("wb") as out:
        server = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "app:app"], cwd=ROOT, env=environ, stdout=out, stderr=out
        )
    try:
        deadline = time.monotonic() + 30
        while not (listening := re.search(r"Listening at: http://([\d.]+):(\d+)", output.read_text())):
            if time.monotonic() > deadline or server.poll() is not None:
                sys.exit(output.read_text())
            time.sleep(0.1)
        address = (listening[1], int(listening[2]))
        ask(address, b"GET /health/ready HTTP/1.1\r\nHost: x\r\n\r\n", None)
        children = Path(f"/proc/{server.pid}/task/{server.pid}/children")
        time.sleep(1)
        workers = children.read_text()
        pool = [*seeds().values(), *costly_seeds(), *corpus.read().values()]
        good = seeds()["raw"]
        counts: Counter[int] = Counter()
        wrong: list[str] = []

        def send(number: int, share: int) -> None:
            rng = random.Random(f"{seed} {number}")
            havoc = havoc_by(rng)
            for _ in range(share):
                raw = mutated(rng, rng.choice(pool), rng.choice(pool), havoc)
                try:
                    # half of them on a persistent connection
                    found = ask(address, raw, good if rng.random() < 0.5 else None)
                except (OSError, AssertionError) as error:
                    wrong.append(f"{error!r} after {raw!r}")
                    return
                counts.update(found or [0])
                if any(status >= 500 for status in found):
                    (FOUND / f"socket-{number}").write_bytes(raw)
                    wrong.append(f"{found} for {raw!r}. {ADVICE}")
                    return

        begun = time.monotonic()
        threads = [threading.Thread(target=send, args=(n, runs // 4)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        took = time.monotonic() - begun
        log = output.read_text()
        if wrong or children.read_text() != workers or re.search(r'"message":"fault"|Traceback|SIGKILL', log):
            sys.exit(
                "\n".join(wrong)
                + f"\nworkers before: {workers}, after: {children.read_text()}\n{log[-3000:]}"
            )
    finally:
        server.terminate()
        server.wait(60)
    closed = counts.pop(0, 0)
    shares = ", ".join(f"{status}: {n}" for status, n in sorted(counts.items()))
    sent = runs // 4 * 4
    print(f"over sockets: {sent} inputs in {took:.0f} s, no 5xx, and both workers survived")
    print(f"  closed without an answer, because the request was incomplete: {closed}; answers: {shares}")
    return sent


def ask(address: tuple[str, int], raw: bytes, before: bytes | None) -> list[int]:
    """The statuses of the answers to `raw` until the connection closes. before: a request to send first."""
    with socket.create_connection(address, timeout=SLOWEST + 20) as sock:
        if before:
            sock.sendall(before)
            assert sock.recv(65536).startswith(b"HTTP/1.1 200")
        answer = b""
        try:
            sock.sendall(raw)
            sock.shutdown(socket.SHUT_WR)
            while received := sock.recv(65536):
                answer += received
        except (ConnectionResetError, BrokenPipeError):
            # the server answered before everything was sent
            pass
    return [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d{3}) ", answer)]


def main() -> None:
    """Run both kinds of fuzzing."""
    if "--target" in sys.argv:
        run_target(sys.argv[sys.argv.index("--target") + 1 :])
    parser = argparse.ArgumentParser(description="Throw mutated requests at the service.")
    parser.add_argument("--runs", type=int, default=100_000, help="inputs in process (%(default)s)")
    parser.add_argument("--sockets", type=int, default=20_000, help="inputs over sockets (%(default)s)")
    parser.add_argument("--seconds", type=int, default=3600, help="at most, in process (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the share over sockets (%(default)s)")
    parser.add_argument(
        "--keep", action="store_true", help="keep in tests/corpus.zip what reached something new"
    )
    args = parser.parse_args()
    tried = fuzz_in_process(args.runs, args.seconds, args.keep) + fuzz_over_sockets(args.sockets, args.seed)
    used = ", ".join(
        f"{name} {version(name)}" for name in ("atheris", "gunicorn", "flask", "pillow", "orjson")
    )
    print(
        f"{tried} inputs, no 5xx, no dead worker; Python {sys.version.split()[0]}, {used}; {os.cpu_count()} cores"
    )


if __name__ == "__main__":
    main()
