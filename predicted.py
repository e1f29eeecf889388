"""The command-line client: asks a running service which digits are in images. It only needs the standard library,
so you can copy this one file to another machine.

    python predicted.py                          # sends sample_request.json to http://localhost:5000
    python predicted.py scan.png request.json    # pictures and JSON requests; prints a row for each
    python predicted.py scans/ --csv             # a folder with everything below it
    python predicted.py --read page.jpg          # every digit in a picture, line by line
    cat requests.jsonl | python predicted.py -   # standard input: a picture, a JSON request, or JSON Lines

Exit code 0: every image has an answer. 1: some were refused or could not be read; the rows say which. 2: the usage
is wrong, or no service answers. 3, with --sure: some answers are unsure. docs/client.md shows more.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import csv
import glob
import json
import os
import random
import signal
import socket
import ssl
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlencode, urlsplit

SAMPLE = Path(__file__).resolve().parent / "sample_request.json"

MAGIC = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\0", b"MM\0*")
PICTURES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
LINES = frozenset({".jsonl", ".ndjson"})
REQUESTS = LINES | {".json"}

# far below the 32 MiB that the service accepts by default
BATCH_BYTES = 4 << 20
# larger files are not scans of digits, and would fill the memory
FILE_BYTES = 64 << 20

# (the name of the list of answers, the fields of an answer that a row contains)
PREDICTIONS: tuple[str, tuple[str, ...]] = ("predictions", ("predicted_digit", "predicted_probability"))
READINGS: tuple[str, tuple[str, ...]] = ("readings", ("text", "lines", "marks"))

TRY_AGAIN = frozenset({429, 502, 503})
# the reason may be a single image, so parts of the batch may succeed
SPLIT = frozenset({400, 413, 422})
# including the jitter
LONGEST_WAIT = 30.0
UNEXPECTED = "{} sent an unexpected answer. Is it this service?"


class Stop(Exception):
    """The run can't continue; the message says why. code: the exit code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class Refused(Exception):
    """The service refused a request; the message says why."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass
class Item:
    """An image to send: its name in the output, and its JSON text or the error that prevents sending it."""

    name: str
    kind: str = ""
    text: bytes = b""
    error: str = ""


# reading


def find_files(paths: Iterable[str]) -> list[str]:
    """Replace folders with the pictures and JSON files below them, sorted by name, and patterns such as *.png,
    which some shells don't expand, with the files that match.
    """
    found: list[str] = []
    for path in paths:
        if not os.path.isdir(path):
            matches = [] if path == "-" or os.path.exists(path) else sorted(glob.glob(path, recursive=True))
            found += matches or [path]
            continue
        for folder, folders, files in os.walk(path):
            folders.sort()
            names = (name for name in sorted(files) if not name.startswith("."))
            inputs = PICTURES | REQUESTS
            found += [
                os.path.join(folder, name) for name in names if os.path.splitext(name)[1].lower() in inputs
            ]
    return found


def read(path: str) -> Iterator[Item]:
    """The images in a file. Each that can't be read becomes an Item with an error."""
    name = "standard input" if path == "-" else path
    try:
        if path == "-":
            yield from read_stream(sys.stdin.buffer, name, lines=None)
            return
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size > FILE_BYTES:
                yield Item(name, error=f"The file is larger than {FILE_BYTES >> 20} MiB.")
                return
            yield from read_stream(file, name, lines=os.path.splitext(path)[1].lower() in LINES)
    except OSError as error:
        yield Item(name, error=f"The file can't be read: {error.strerror or error}.")


def read_stream(file: BinaryIO, name: str, lines: bool | None) -> Iterator[Item]:
    """The images in `file`. lines: whether it contains JSON Lines rather than one picture or one JSON request;
    None decides by its first line."""
    first = file.readline() if lines is not False else b""
    number = 0
    if lines is None:
        while first.isspace():
            first, number = file.readline(), number + 1
        lines = not is_picture(first) and is_json(first)
    if not lines:
        data = first + file.read()
        yield from [picture(name, data)] if is_picture(data) else request_items(name, data)
        return
    while first:
        number += 1
        if first.strip():
            yield from request_items(f"{name}:{number}", first)
        first = file.readline()


def is_picture(data: bytes) -> bool:
    """Whether `data` begins with the signature of a picture's format."""
    return data.startswith(MAGIC) or (data.startswith(b"RIFF") and data[8:12] == b"WEBP")


def is_json(data: bytes) -> bool:
    """Whether `data` is a complete JSON document."""
    try:
        json.loads(data)
    except (ValueError, RecursionError):
        return False
    return True


def picture(name: str, data: bytes) -> Item:
    """A picture as an Item. The service decodes it."""
    return Item(name, "picture", b'"' + base64.b64encode(data) + b'"')


def request_items(name: str, data: bytes) -> Iterator[Item]:
    """The images in a request to POST /predict: the one in `image`, or each in `images`."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        yield Item(name, error="This is neither a picture nor JSON.")
        return
    if isinstance(document, dict) and document.get("images") == []:
        yield Item(name, error="The list images is empty.")
        return
    if isinstance(document, dict) and "image" in document:
        named = [(name, document["image"])]
    elif isinstance(document, dict) and isinstance(document.get("images"), list):
        named = [(f"{name}[{i}]", image) for i, image in enumerate(document["images"])]
    else:
        yield Item(name, error='The JSON has neither "image" nor a list "images".')
        return
    for each, image in named:
        yield Item(each, "picture" if isinstance(image, str) else "pixels", json.dumps(image).encode())


def batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Divide items into lists of at most `size` items and BATCH_BYTES, in order. All items in a list are of one
    kind, because the service does not accept pixels and pictures in one request."""
    batch: list[Item] = []
    total = 0
    for item in items:
        if batch and (total + len(item.text) > BATCH_BYTES or item.kind != batch[0].kind):
            yield batch
            batch, total = [], 0
        batch.append(item)
        total += len(item.text)
        # a full batch is sent at once, without waiting for another item
        if len(batch) == size:
            yield batch
            batch, total = [], 0
    if batch:
        yield batch


# requests


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """Doesn't follow redirects, because they would turn a POST into a GET without a body, and might send the
    API key to another server."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


class Client:
    """Sends requests to the service at `url`. Threads may share it.

    timeout: seconds to wait for an answer. retries: how often a request is sent again after 429, 502, 503 or a
    lost connection. key: API key or None. route: predict or read, optionally with a query. say: called with a
    message before each retry.
    """

    def __init__(
        self,
        url: str,
        timeout: float = 30,
        retries: int = 5,
        key: str | None = None,
        route: str = "predict",
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.url = url.rstrip("/")
        self.target = f"{self.url}/{route}"
        self.answers, self.fields = READINGS if route.startswith("read") else PREDICTIONS
        self.timeout, self.retries, self.say = timeout, retries, say
        self.headers = {"Content-Type": "application/json", "User-Agent": "predicted.py"}
        if key:
            self.headers["Authorization"] = f"Bearer {key}"
        self.opener = urllib.request.build_opener(NoRedirect)
        self.closed = threading.Event()
        # whether the service has ever answered
        self.met = False

    def send(self, body: bytes) -> Any:
        """Send `body` and return the JSON of the answer. Raises Refused and Stop."""
        for tried in range(self.retries + 1):
            last = tried == self.retries
            try:
                answer = self._send_once(body)
                self.met = True
                return answer
            except urllib.error.HTTPError as error:
                self.met = True
                with error:
                    reason, after = _detail(error), error.headers.get("Retry-After")
                if error.code not in TRY_AGAIN or last:
                    raise Refused(error.code, f"The service answered {error.code}: {reason}") from None
                why, wait = f"{error.code}: {reason}", pause(tried, after)
            except (OSError, HTTPException) as error:
                cause = getattr(error, "reason", error)
                # the service has probably not been started, so retrying would not help
                never = not self.met and isinstance(cause, ConnectionRefusedError)
                if last or never or isinstance(cause, socket.gaierror | ssl.SSLCertVerificationError):
                    raise Stop(
                        f"No answer from {self.url} ({cause}). Is it running? `make serve`", 2
                    ) from None
                why, wait = f"{str(cause) or type(cause).__name__}.", pause(tried)
            self.say(f"{why} Trying again in {wait:.1f} s.")
            if self.closed.wait(wait):
                raise Stop("The run was stopped.", 2)
        raise AssertionError("the last try returns or raises")

    def _send_once(self, body: bytes) -> Any:
        request = urllib.request.Request(self.target, body, self.headers)  # noqa: S310
        with self.opener.open(request, timeout=self.timeout) as response:
            data = response.read()
        try:
            return json.loads(data)
        except ValueError:
            raise Stop(f"The answer from {self.url} is not JSON. Is it this service?", 2) from None

    def ask(self, batch: list[Item]) -> list[dict[str, Any]]:
        """A row for each item, in order: the answer, or `error` and its `status`. Raises Stop.

        If the service refuses a batch, each half is sent again, until the images that cause it are found.
        """
        if batch[0].error:
            return [{"input": item.name, "error": item.error} for item in batch]
        try:
            if len(batch) == 1:
                found = [self.send(b'{"image":' + batch[0].text + b"}")]
            else:
                images = b",".join(item.text for item in batch)
                found = self.send(b'{"images":[' + images + b"]}")[self.answers]
            rows = [
                {"input": item.name}
                | {key: answer[key] for key in self.fields}
                # older services don't send it
                | ({"unsure": answer["unsure"]} if "unsure" in answer else {})
                for item, answer in zip(batch, found, strict=True)
            ]
        except Refused as refused:
            if refused.status in SPLIT and len(batch) > 1:
                half = len(batch) // 2
                return self.ask(batch[:half]) + self.ask(batch[half:])
            if refused.status not in SPLIT | TRY_AGAIN and refused.status < 500:
                # the address or key is wrong, so all other requests would fail as well
                raise Stop(f"{self.url}: {refused}", 1) from None
            return [{"input": item.name, "error": str(refused), "status": refused.status} for item in batch]
        except (KeyError, TypeError, ValueError):
            raise Stop(UNEXPECTED.format(self.url), 2) from None
        return rows


def pause(tried: int, after: str | None = None) -> float:
    """Seconds to wait before the next attempt: Retry-After (seconds or a date) if given, else 0.25, 0.5, 1, ...

    A random jitter of up to half is added, so that clients that failed together don't retry together. All of it is
    at most LONGEST_WAIT.
    """
    seconds = 0.25 * 2**tried
    if after:
        with contextlib.suppress(ValueError, TypeError, OverflowError):
            seconds = float(after) if after.strip().isdigit() else _until(after)
    return min(max(seconds, 0.0), LONGEST_WAIT / 1.5) * (1 + random.random() / 2)  # noqa: S311


def _until(date: str) -> float:
    return parsedate_to_datetime(date).timestamp() - time.time()


def _detail(error: urllib.error.HTTPError) -> str:
    if location := error.headers.get("Location"):
        return f"It redirected to {location}."
    try:
        problem = json.load(error)
        return problem["detail"] + (f" Found: {problem['found']}." if problem.get("found") else "")
    except (ValueError, KeyError, TypeError, OSError, HTTPException):
        return f"{error.reason}."


def ask_all(client: Client, items: Iterable[Item], size: int, jobs: int) -> Iterator[list[dict[str, Any]]]:
    """The rows of each batch, in the order of the items. `jobs` batches are sent at the same time."""
    pending: deque[Future[list[dict[str, Any]]]] = deque()
    with ThreadPoolExecutor(jobs) as pool:
        try:
            for batch in batches(items, size):
                pending.append(pool.submit(client.ask, batch))
                while pending and (len(pending) >= jobs or pending[0].done()):
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            # after a Stop or a closed pipe, waiting batches must not be sent
            client.closed.set()
            for future in pending:
                future.cancel()


# output


def shown(value: Any) -> str:
    """The text of a value without characters that move the cursor, change colours or begin a line. They are
    written as escapes, as in \\x1b. Bytes of a file's name that are no characters stay as they are."""
    return "".join(
        c if c.isprintable() or "\udc80" <= c <= "\udcff" else c.encode("unicode_escape").decode()
        for c in str(value)
    )


class Progress:
    """Shows a progress bar, counts and the time left on standard error, if it is a terminal."""

    def __init__(self, total: int | None) -> None:
        self.total, self.done, self.failed, self.begun = total, 0, 0, time.monotonic()
        self.shown = False
        self.on = sys.stderr.isatty()

    def clear(self) -> None:
        """Remove the progress bar, so that something else can be written."""
        if self.shown:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()
            self.shown = False

    def show(self) -> None:
        """Show the progress bar, unless the run has only just begun."""
        seconds = time.monotonic() - self.begun
        if not self.on or seconds < 0.5:
            return
        failed = f", {self.failed} failed" if self.failed else ""
        text = f"{self.done} done{failed}, {self.done / seconds:.0f}/s"
        if self.total:
            share = min(self.done / self.total, 1)
            left = seconds / share - seconds if share else 0
            text = f"[{'#' * round(share * 30):<30}] {share:4.0%} of {self.total}, {text}, {left:.0f} s left"
        sys.stderr.write("\r\033[K" + text)
        sys.stderr.flush()
        self.shown = True

    def say(self, text: str) -> None:
        """Write a message on a line of its own, whether or not standard error is a terminal."""
        self.clear()
        print(shown(text), file=sys.stderr)


def writer(kind: str) -> Callable[[dict[str, Any]], None]:
    """Return a function that writes a row to standard output as text, jsonl or csv."""
    if kind == "jsonl":
        return lambda row: print(json.dumps(row))
    if kind == "csv":
        fields = ["input", "predicted_digit", "predicted_probability", "error", "unsure"]
        table = csv.DictWriter(sys.stdout, fields, extrasaction="ignore", lineterminator="\n")
        table.writeheader()
        # true and false, as in JSON
        return lambda row: table.writerow(
            {name: shown(row.get(name, "")) for name in fields}
            | {"unsure": json.dumps(row["unsure"]) if "unsure" in row else ""}
        )

    def text(row: dict[str, Any]) -> None:
        if "error" in row:
            fields = [row["input"], "failed", row["error"]]
        else:
            fields = [row["input"], row["predicted_digit"], row["predicted_probability"]]
            fields += ["unsure"] * bool(row.get("unsure"))
        print(*map(shown, fields), sep="\t")

    return text


def reading_writer(kind: str, named: bool) -> Callable[[dict[str, Any]], None]:
    """Like `writer`, for rows of readings. named: begin each line of text with the picture's name."""
    if kind == "jsonl":
        return writer(kind)
    if kind == "csv":
        fields = ["input", "line", "digit", "probability", "unsure", "x", "y", "width", "height", "error"]
        table = csv.DictWriter(sys.stdout, fields, lineterminator="\n")
        table.writeheader()

        def digits(row: dict[str, Any]) -> None:
            if "error" in row:
                table.writerow({"input": shown(row["input"]), "error": shown(row["error"])})
            for number, line in enumerate(row.get("lines", []), 1):
                for digit in line["digits"]:
                    cells = dict(zip(("x", "y", "width", "height"), digit["box"], strict=True))
                    cells |= {key: digit[key] for key in ("digit", "probability")}
                    cells |= {"input": row["input"], "line": number, "unsure": json.dumps(digit["unsure"])}
                    table.writerow({name: shown(cell) for name, cell in cells.items()})

        return digits

    def text(row: dict[str, Any]) -> None:
        if "error" in row:
            writer("text")(row)
            return
        # an empty line, so that each of several pictures has a row
        for line in row["lines"] or ([{"text": "", "unsure": False}] if named else []):
            fields = [*([row["input"]] if named else []), line["text"], *["unsure"] * line["unsure"]]
            print(*map(shown, fields), sep="\t")

    return text


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Ask a running service which digits are in images.",
        epilog="Set the API key in the environment as DIGITS_API_KEY, so that it is not in the list of processes.",
    )
    parser.add_argument(
        "inputs",
        nargs="*",
        metavar="INPUT",
        help='a picture, JSON like {"image": [[...]]}, JSON Lines (.jsonl), a folder, or - for standard input',
    )
    parser.add_argument(
        "--url", default="http://localhost:5000", help="address of the service (default: %(default)s)"
    )
    parser.add_argument(
        "--format",
        choices=("text", "jsonl", "csv"),
        help="format of the rows (default: text; for a single JSON file, the service's answer)",
    )
    for name, kind in (("--json", "jsonl"), ("--csv", "csv")):
        parser.add_argument(
            name, action="store_const", const=kind, dest="format", help=f"the same as --format {kind}"
        )
    parser.add_argument(
        "--read",
        action="store_true",
        help="read every digit in each picture, line by line; --csv writes a row per digit, --json everything",
    )
    parser.add_argument("--length", type=_positive, help="with --read: number of digits in each line")
    parser.add_argument(
        "--check", choices=("luhn",), help="with --read: each line ends with this check digit"
    )
    parser.add_argument(
        "--alternatives", type=_positive, help="with --read and --json: number of other readings per line"
    )
    parser.add_argument("--batch", type=_positive, help="images per request (default: 64; with --read: 1)")
    parser.add_argument(
        "--jobs", type=_positive, default=2, help="requests at the same time (default: %(default)s)"
    )
    parser.add_argument(
        "--no-prepare", action="store_true", help="pictures have 28x28 pixels and look like MNIST's"
    )
    parser.add_argument("--sure", action="store_true", help="exit with 3 if any answer is unsure")
    parser.add_argument(
        "--timeout", type=float, default=30, help="seconds to wait for an answer (default: %(default)s)"
    )
    parser.add_argument(
        "--retries",
        type=int,
        default=5,
        help="retries after 429, 502, 503 or a lost connection (default: %(default)s)",
    )
    parser.add_argument("--api-key", default=os.environ.get("DIGITS_API_KEY"), help="sent as a bearer token")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be a positive whole number")
    return number


def count_unsure(url: str, answers: Iterable[dict[str, Any]]) -> int:
    """The number of unsure answers, rows or lines of readings.

    Raises Stop if the service at `url` is too old to mark unsure answers.
    """
    answers = [answer for answer in answers if "error" not in answer]
    answers = [part for answer in answers for part in answer.get("lines", [answer])]
    if not all("unsure" in answer for answer in answers):
        raise Stop(f"--sure needs a newer service: {url} does not say which answers are unsure.", 2)
    return sum(bool(answer["unsure"]) for answer in answers)


def make_client(args: argparse.Namespace, say: Callable[[str], None]) -> Client:
    """Create a client from the command line's arguments."""
    options = {name: getattr(args, name) for name in ("length", "check", "alternatives")}
    options["prepare"] = "none" if args.no_prepare else None
    query = urlencode({name: value for name, value in options.items() if value})
    route = ("read" if args.read else "predict") + f"?{query}" * bool(query)
    return Client(args.url, args.timeout, max(args.retries, 0), args.api_key, route, say)


def run(args: argparse.Namespace) -> int:
    """Send all inputs and write their rows; returns the exit code. Raises Stop."""
    files = find_files(args.inputs)
    # counting lines would mean reading the files twice
    unknown = any(file == "-" or os.path.splitext(file)[1].lower() in LINES for file in files)
    progress = Progress(None if unknown else len(files))
    client = make_client(args, progress.say)
    if not files:
        raise Stop("No pictures or JSON files were found.", 2)
    # file names may contain any bytes, and are written unchanged
    sys.stdout.reconfigure(errors="surrogateescape")  # type: ignore[union-attr]
    kind = args.format or "text"
    # with a single picture, its lines need no name
    named = files != args.inputs or len(files) > 1 or os.path.splitext(files[0])[1].lower() in REQUESTS
    write = reading_writer(kind, named) if args.read else writer(kind)

    def items() -> Iterator[Item]:
        for file in files:
            for i, item in enumerate(read(file)):
                if i and progress.total:
                    progress.total += 1
                yield item

    unsure = 0
    try:
        for rows in ask_all(client, items(), args.batch or (1 if args.read else 64), args.jobs):
            progress.clear()
            for row in rows:
                write(row)
            sys.stdout.flush()
            progress.done += len(rows)
            progress.failed += sum("error" in row for row in rows)
            if args.sure:
                unsure += count_unsure(client.url, rows)
            progress.show()
    except Stop as stop:
        raise Stop(
            f"{stop} ({progress.done} were done before.)" if progress.done else str(stop), stop.code
        ) from None
    finally:
        progress.clear()
    if progress.failed:
        print(f"{progress.failed} of {progress.done} failed", file=sys.stderr)
    if unsure:
        total = "lines" if args.read else f"of {progress.done}"
        print(f"{unsure} {total} unsure", file=sys.stderr)
    return 1 if progress.failed else 3 if unsure else 0


def ask_one(args: argparse.Namespace, path: Path) -> int:
    """Send a JSON request unchanged and print the service's answer; returns the exit code. Raises Stop."""
    try:
        body = path.read_bytes()
    except OSError as error:
        raise Stop(f"{path} can't be read: {error.strerror}.", 2) from None
    client = make_client(args, Progress(None).say)
    try:
        answer = client.send(body)
    except Refused as refused:
        raise Stop(f"{path}: {refused}", 1) from None
    print(json.dumps(answer), flush=True)
    if not args.sure:
        return 0
    try:
        return 3 if count_unsure(client.url, answer.get("predictions", [answer])) else 0
    except (AttributeError, TypeError):
        raise Stop(UNEXPECTED.format(client.url), 2) from None


def main() -> int:
    """Run the command line; returns the exit code."""
    parser = arguments()
    args = parser.parse_args()
    try:
        parts = urlsplit(args.url)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        good = False
    if not good:
        parser.error(f"--url {args.url} is not an address like http://host:5000")
    args.api_key = (args.api_key or "").strip()
    if not (args.api_key.isascii() and args.api_key.isprintable()):
        # the message must not contain the key
        parser.error("the API key contains characters that are not allowed in a header")
    if args.read and not args.inputs:
        parser.error("--read needs pictures")
    if args.read and args.no_prepare:
        parser.error("--no-prepare can't be used with --read")
    if not args.read and (args.length or args.check or args.alternatives):
        parser.error("--length, --check and --alternatives need --read")
    single = args.inputs or [str(SAMPLE)]
    try:
        if len(single) == 1 and single[0].lower().endswith(".json") and not (args.format or args.read):
            return ask_one(args, Path(single[0]))
        args.inputs = single
        return run(args)
    except Stop as stop:
        print(shown(stop), file=sys.stderr)
        return stop.code
    except BrokenPipeError:
        # the reader has closed the pipe, as `head` does; this also silences Python's flush at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


if __name__ == "__main__":
    # Ctrl-C stops at once, without a traceback and without waiting for answers
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(main())
