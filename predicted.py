"""The command-line client: asks a running service which digits are in images. It only needs the standard library,
so you can copy this one file to another machine.

    python predicted.py                          # sends sample_request.json to http://localhost:5000
    python predicted.py scan.png request.json    # pictures and JSON requests; prints a row for each
    python predicted.py scans/ --csv             # a folder with everything below it
    python predicted.py --read page.jpg          # every digit in a picture, line by line
    cat requests.jsonl | python predicted.py -   # standard input: a picture, a JSON request, or JSON Lines

Exit code 0: every image has an answer. 1: some were refused or could not be read; the rows say which. 2: the usage
is wrong, or no service answers. 3, with --fail-unsure: some answers are unsure. docs/client.md shows more.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import csv
import glob
import ipaddress
import itertools
import json
import os
import random
import re
import signal
import socket
import ssl
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode, urlsplit

SAMPLE = Path(__file__).resolve().parent / "sample_request.json"

PICTURES = {
    *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff"),
    *(".pdf", ".heic", ".heif", ".avif", ".jp2", ".j2k", ".jpx", ".jpf", ".j2c", ".ico", ".tga"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
}
LINES = (".jsonl", ".ndjson")
REQUESTS = (".json", *LINES)

# bytes of a request, far below the 32 MiB that the service accepts by default
BATCH_BYTES = 4 << 20
# bytes of a file; larger ones are not scans of digits, and would fill the memory
FILE_BYTES = 64 << 20

# statuses after which a later attempt may succeed
TRY_AGAIN = frozenset({429, 502, 503})
# statuses whose reason may be a single image, so parts of the batch may succeed
SPLIT = frozenset({400, 413, 415, 422})
# seconds between two attempts, including the jitter
LONGEST_WAIT = 30.0

# columns of the tables: of predictions, lines, words and digits
PREDICTION = ("input", "predicted_digit", "predicted_probability", "error", "unsure")
LINE = ("file", "page", "line", "text", "words", "probability", "unsure", "error")
BOX = ("x", "y", "width", "height")
WORD = ("file", "page", "line", "column", "text", "unsure", *BOX, "error")
DIGIT = ("file", "page", "line", "digit", "probability", "unsure", *BOX, "error")

Row = dict[str, Any]


class Stop(Exception):
    """The run can't continue; the message says why. code: the exit code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class Refused(Stop):
    """The service refused a request; the message says why. code: its status."""


class Item(NamedTuple):
    """An image to send: its name in the output, and its JSON text or the error that prevents sending it."""

    name: str
    kind: str = ""
    text: bytes = b""
    error: str = ""


# reading


def find_files(paths: Iterable[str]) -> tuple[list[str], Counter[str]]:
    """Replace folders with the pictures and requests in them and below, and patterns such as *.png, which some
    shells don't expand, with the files that match. Also returns how many other files there are, by their suffixes.
    """
    found, skipped = [], Counter[str]()
    for path in paths:
        matches = [] if path == "-" or os.path.lexists(path) else sorted(glob.glob(path, recursive=True))
        for match in matches or [path]:
            for file in walk(match) if os.path.isdir(match) else [match]:
                if file == match or file.lower().endswith((*PICTURES, *REQUESTS)):
                    found.append(file)
                else:
                    skipped[os.path.splitext(file)[1].lower() or "without a suffix"] += 1
    return found, skipped


def walk(top: str) -> Iterator[str]:
    """The files in a folder and below, also in linked folders, without hidden ones and those that systems add."""
    seen = set()
    for folder, folders, files in os.walk(top, followlinks=True):
        place = os.path.realpath(folder)
        if place in seen:
            folders.clear()
            continue
        seen.add(place)
        folders[:] = sorted(name for name in folders if name[0] != "." and name not in ("@eaDir", "__MACOSX"))
        yield from (os.path.join(folder, name) for name in sorted(files) if name[0] != ".")


def read(path: str) -> Iterator[Item]:
    """The images in a file, or with - in standard input. Each that can't be read becomes an Item with an error."""
    stdin = path == "-"
    name = "standard input" if stdin else path
    try:
        with open(0 if stdin else path, "rb", closefd=not stdin) as file:
            lines = enumerate(iter(lambda: file.readline(FILE_BYTES + 1), b""), 1)
            first = next((line for line in lines if not line[1].isspace()), (0, b""))
            if path.lower().endswith(LINES) or (stdin and parse(first[1]) is not None):
                for number, line in itertools.chain([first], lines):
                    if line.strip():
                        yield from requests(f"{name}:{number}", line)
                return
            data = first[1] + file.read(FILE_BYTES)
    except OSError as error:
        yield Item(name, error=f"The file can't be read: {error.strerror or error}.")
        return
    if len(data) > FILE_BYTES:
        yield Item(name, error=f"The file is larger than {FILE_BYTES >> 20} MiB.")
    elif path.lower().endswith(".json") or re.match(rb"(\xef\xbb\xbf)?\s*[\[{]", data):
        yield from requests(name, data)
    else:
        yield Item(name, "picture", b'"' + base64.b64encode(data) + b'"')


def parse(data: bytes) -> Any:
    """The JSON document in `data`, or None."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def requests(name: str, data: bytes) -> Iterator[Item]:
    """The images in a request to POST /predict: the one in `image`, or each in `images`."""
    document = parse(data)
    images = document.get("images") if isinstance(document, dict) else None
    if isinstance(document, dict) and "image" in document:
        named = [(name, document["image"])]
    elif images and isinstance(images, list):
        named = [(f"{name}[{i}]", image) for i, image in enumerate(images)]
    else:
        lacks = "JSON" if document is None else 'JSON with "image", or with images in a list "images"'
        yield Item(name, error=f"The file has no {lacks}.")
        return
    for each, image in named:
        yield Item(each, "picture" if isinstance(image, str) else "pixels", json.dumps(image).encode())


def batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Divide items into lists of at most `size` items and BATCH_BYTES, in order. All items in a list are of one
    kind, because the service does not accept pixels and pictures in one request."""
    batch: list[Item] = []
    for item in items:
        length = sum(len(each.text) for each in [*batch, item])
        if batch and (item.kind != batch[0].kind or length > BATCH_BYTES):
            yield batch
            batch = []
        batch.append(item)
        # a full batch is sent at once, without waiting for another item
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


# requests


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """Doesn't follow redirects, because they would turn a POST into a GET without a body, and might send the
    API key to another server."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


def is_here(host: str) -> bool:
    """Whether a host is this machine, which a proxy can't reach."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost" or host.endswith(".localhost")


class Client:
    """Sends requests to the service. Threads may share it.

    Args:
        args: the options of the command line.
        say: called with a message before each retry.
    """

    def __init__(self, args: argparse.Namespace, say: Callable[[str], None]) -> None:
        self.url, self.timeout, self.retries = args.url.rstrip("/"), args.timeout, max(args.retries, 0)
        options = {name: getattr(args, name) for name in ("length", "check", "alternatives")}
        options["columns"] = int(args.words)
        options["prepare"] = None if args.prepare == "mnist" else args.prepare
        query = urlencode({name: value for name, value in options.items() if value})
        self.target = f"{self.url}/{'read' if args.read else 'predict'}" + f"?{query}" * bool(query)
        # the name of the list of answers, and a field of each
        self.answers, self.field = ("readings", "lines") if args.read else ("predictions", "predicted_digit")
        self.headers = {"Content-Type": "application/json", "User-Agent": "predicted.py"}
        if args.api_key:
            self.headers["Authorization"] = f"Bearer {args.api_key}"
        here = is_here(urlsplit(self.url).hostname or "")
        proxies = urllib.request.ProxyHandler({} if here else None)
        self.opener = urllib.request.build_opener(NoRedirect, proxies)
        self.say, self.closed = say, threading.Event()
        # whether the service has ever answered
        self.answered = False

    def send(self, body: bytes) -> Any:
        """Send `body` and return the JSON of the answer. Raises Refused and Stop."""
        request = urllib.request.Request(self.target, body, self.headers)  # noqa: S310
        for tried in itertools.count():
            after = None
            try:
                with self.opener.open(request, timeout=self.timeout) as response:
                    self.answered = True
                    return json.loads(response.read())
            except urllib.error.HTTPError as error:
                self.answered = True
                with error:
                    why, after = f"{error.code}: {_detail(error)}", error.headers.get("Retry-After")
                if error.code not in TRY_AGAIN or tried == self.retries:
                    raise Refused(f"The service answered {why}", error.code) from None
            except ValueError:
                raise self.unexpected() from None
            except (OSError, HTTPException) as error:
                cause = getattr(error, "reason", error)
                never = isinstance(cause, socket.gaierror | ssl.SSLCertVerificationError)
                # the service has probably not been started, so retrying would not help
                never = never or (isinstance(cause, ConnectionRefusedError) and not self.answered)
                if never or tried == self.retries:
                    why = f"No answer from {self.url} ({cause}). Is it running? `make serve`"
                    raise Stop(why, 2) from None
                why = f"{str(cause) or type(cause).__name__}."
            wait = pause(tried, after)
            self.say(f"{why} Trying again in {wait:.1f} s.")
            if self.closed.wait(wait):
                break
        raise Stop("The run was stopped.", 2)

    def ask(self, batch: list[Item]) -> list[Row]:
        """The rows of the items, in order: the answer (of each page, if there are several), or `error` and its
        `status`. If a batch is refused, each half is sent again, until the images that cause it are found. Raises
        Stop.
        """
        if batch[0].error:
            return [{"input": item.name, "error": item.error} for item in batch]
        images = b",".join(item.text for item in batch)
        body = b'{"image":%b}' % images if len(batch) == 1 else b'{"images":[%b]}' % images
        try:
            return list(self.rows(batch, self.send(body)))
        except Refused as refused:
            if refused.code in SPLIT and len(batch) > 1:
                half = len(batch) // 2
                return self.ask(batch[:half]) + self.ask(batch[half:])
            if refused.code not in SPLIT | TRY_AGAIN and refused.code < 500:
                # the address or key is wrong, so all other requests would fail as well
                raise Stop(f"{self.url}: {refused}", 1) from None
            return [{"input": item.name, "error": str(refused), "status": refused.code} for item in batch]
        except (AttributeError, LookupError, TypeError, ValueError):
            raise self.unexpected() from None

    def rows(self, batch: list[Item], answer: Row) -> Iterator[Row]:
        """A row for each answer. Raises LookupError or ValueError for the answers of another service."""
        found = [answer] if len(batch) == 1 else answer[self.answers]
        for item, each in zip(batch, found, strict=True):
            # the answer for a file of several pages has one for each
            for page in each.get("readings", [each]):
                page[self.field]
                yield {"input": item.name} | page

    def unexpected(self) -> Stop:
        """The error for an answer that can't be from this service."""
        return Stop(f"{self.url} sent an unexpected answer. Is it this service?", 2)


def pause(tried: int, after: str | None = None) -> float:
    """Seconds to wait before the next attempt: Retry-After (seconds or a date) if given, else 0.25, 0.5, 1, ...

    A random jitter of up to half is added, so that clients that failed together don't retry together. All of it is
    at most LONGEST_WAIT.
    """
    seconds = 0.25 * 2**tried
    if after:
        with contextlib.suppress(ValueError, TypeError, OverflowError):
            digits = after.strip().isdigit()
            seconds = float(after) if digits else parsedate_to_datetime(after).timestamp() - time.time()
    return min(max(seconds, 0.0), LONGEST_WAIT / 1.5) * (1 + random.random() / 2)  # noqa: S311


def _detail(error: urllib.error.HTTPError) -> str:
    if location := error.headers.get("Location"):
        return f"It redirected to {location}."
    try:
        problem = json.load(error)
        return problem["detail"] + (f" Found: {problem['found']}." if problem.get("found") else "")
    except (ValueError, KeyError, TypeError, OSError, HTTPException):
        return f"{error.reason}."


def ask_all(client: Client, items: Iterable[Item], size: int, jobs: int) -> Iterator[list[Row]]:
    """The rows of each batch, in the order of the items.

    Args:
        client: sends the batches.
        items: the images.
        size: number of images in a batch.
        jobs: number of batches that are sent at the same time.
    """
    pending: deque[Future[list[Row]]] = deque()
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
            pool.shutdown(wait=False, cancel_futures=True)


# output


def shown(value: Any) -> str:
    """The text of a value, true and false as in JSON. Characters that move the cursor, change colours or begin a
    line, and bytes of a file's name that are no characters, are written as escapes, as in \\x1b."""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class Progress:
    """Shows a progress bar, counts and the time left on standard error, if it is a terminal."""

    def __init__(self, total: int | None) -> None:
        self.total, self.done, self.failed, self.begun = total, 0, 0, time.monotonic()
        self.on = sys.stderr.isatty()

    def clear(self) -> None:
        """Remove the progress bar, so that something else can be written."""
        if self.on:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()

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

    def say(self, text: str) -> None:
        """Write a message on a line of its own, whether or not standard error is a terminal."""
        self.clear()
        print(shown(text), file=sys.stderr)


def cells(row: Row, fields: tuple[str, ...]) -> Iterator[Row]:
    """The rows of a table with these fields: one for a prediction or an error, else one for each line, word or
    digit, or one without any if nothing was read."""
    page = {"file": row["input"]} | row
    if "lines" not in row:
        yield page
        return
    page |= {"page": row.get("page", 1), "text": ""}
    for number, line in enumerate(row["lines"], 1):
        page |= {"line": number, "unsure": line["unsure"]}
        if fields is LINE:
            yield page | line | {"words": len(line["words"])}
        for each in line["words"] if fields is WORD else line["digits"] if fields is DIGIT else ():
            yield page | each | dict(zip(BOX, each["box"], strict=True))
    if not row["text"]:
        yield page


def writer(kind: str, fields: tuple[str, ...], named: bool) -> Callable[[Row], None]:
    """Return a function that writes a row to standard output.

    Args:
        kind: text, jsonl or csv.
        fields: the columns.
        named: whether to begin each line of text with the picture's name.
    """
    if kind == "jsonl":
        return lambda row: print(json.dumps(row))
    if kind == "csv":
        table = csv.DictWriter(sys.stdout, fields, extrasaction="ignore", lineterminator="\n")
        table.writeheader()
        return lambda row: table.writerows(
            {name: shown(each[name]) for name in fields if name in each} for each in cells(row, fields)
        )

    def text(row: Row) -> None:
        for each in cells(row, fields):
            name = row["input"] + (f"#page={row['page']}" if "page" in row else "")
            if "error" in row:
                line = [name, "failed", row["error"]]
            elif "lines" in row:
                line = [name, each["text"]] if named or "page" in row else [each["text"]] * bool(row["lines"])
            else:
                line = [name, row["predicted_digit"], row["predicted_probability"]]
            if line:
                print(*map(shown, line), *["unsure"] * bool(each.get("unsure")), sep="\t")

    return text


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Ask a running service which digits are in pictures.",
        epilog="Set the API key in the environment as DIGITS_API_KEY, so that it is not in the list of processes.",
    )
    add = parser.add_argument
    what = 'a picture, JSON like {"image": [[...]]}, JSON Lines (.jsonl), a folder, or - for standard input'
    add("inputs", nargs="*", metavar="INPUT", help=what)
    url = os.environ.get("DIGITS_URL") or "http://localhost:5000"
    add("--url", default=url, help="address of the service (default: DIGITS_URL, or http://localhost:5000)")
    what = "format of the rows (default: text; for a single JSON file, the service's answer)"
    add("--format", choices=("text", "jsonl", "csv"), help=what)
    for name, kind in (("--json", "jsonl"), ("--csv", "csv")):
        add(name, action="store_const", const=kind, dest="format", help=f"the same as --format {kind}")
    add("--read", action="store_true", help="read every digit in each picture; --csv writes a row per line")
    either = parser.add_mutually_exclusive_group().add_argument
    either("--words", action="store_true", help="with --read and --csv: a row per word, with its column")
    either("--digits", action="store_true", help="with --read and --csv: a row per digit")
    add("--length", type=_positive, help="with --read: number of digits in each word")
    add("--check", choices=("luhn",), help="with --read: each word ends with this check digit")
    add("--alternatives", type=_positive, help="with --read and --json: number of other readings per line")
    add("--batch", type=_positive, help="images per request (default: 64; with --read: 1)")
    add("--jobs", type=_positive, default=2, help="requests at the same time (default: %(default)s)")
    what = "none: use pictures of 28x28 pixels as they are (default: %(default)s)"
    add("--prepare", choices=("mnist", "none"), default="mnist", help=what)
    add("--fail-unsure", action="store_true", help="exit with 3 if any answer is unsure")
    # their names before 0.10
    add("--no-prepare", action="store_const", const="none", dest="prepare", help=argparse.SUPPRESS)
    add("--sure", action="store_true", dest="fail_unsure", help=argparse.SUPPRESS)
    add("--timeout", type=float, default=30, help="seconds to wait for an answer (default: %(default)s)")
    retried = "retries after 429, 502, 503 or a lost connection (default: %(default)s)"
    add("--retries", type=int, default=5, help=retried)
    add("--api-key", default=os.environ.get("DIGITS_API_KEY"), help="API key, if the service requires one")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be a positive whole number")
    return number


def count_unsure(url: str, answers: Iterable[Row]) -> int:
    """The number of unsure answers, rows or lines of readings.

    Raises Stop if the service at `url` is too old to mark unsure answers.
    """
    parts = [part for each in answers if "error" not in each for part in each.get("lines", [each])]
    if not all("unsure" in part for part in parts):
        raise Stop(f"--fail-unsure needs a newer service: {url} does not say which answers are unsure.", 2)
    return sum(bool(part["unsure"]) for part in parts)


def run(args: argparse.Namespace) -> int:
    """Send all inputs and write their rows; returns the exit code. Raises Stop."""
    files, skipped = find_files(args.inputs)
    if skipped:
        which = ", ".join(f"{count} {kind}" for kind, count in skipped.most_common())
        plural = "" if skipped.total() == 1 else "s"
        print(shown(f"{skipped.total()} other file{plural} skipped ({which})"), file=sys.stderr)
    if not files:
        raise Stop("No pictures or JSON files were found.", 2)
    # counting lines would mean reading the files twice
    unknown = any(file == "-" or file.lower().endswith(LINES) for file in files)
    progress = Progress(None if unknown else len(files))
    client = Client(args, progress.say)
    fields = PREDICTION if not args.read else DIGIT if args.digits else WORD if args.words else LINE
    # with a single picture, its lines need no name
    named = files != args.inputs or len(files) > 1 or files[0].lower().endswith(REQUESTS)
    write = writer(args.format or "text", fields, named)

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
            progress.done += sum(row.get("page", 1) == 1 for row in rows)
            progress.failed += sum("error" in row for row in rows)
            if args.fail_unsure:
                unsure += count_unsure(client.url, rows)
            progress.show()
    except Stop as stop:
        done = f" ({progress.done} were done before.)" if progress.done else ""
        raise Stop(f"{stop}{done}", stop.code) from None
    finally:
        progress.clear()
    if progress.failed:
        print(f"{progress.failed} of {progress.done} failed", file=sys.stderr)
    if unsure:
        print(f"{unsure} {'lines' if args.read else f'of {progress.done}'} unsure", file=sys.stderr)
    return 1 if progress.failed else 3 if unsure else 0


def ask_one(args: argparse.Namespace) -> int:
    """Send a JSON request unchanged and print the service's answer; returns the exit code. Raises Stop."""
    (path,) = args.inputs
    client = Client(args, Progress(None).say)
    try:
        try:
            request = Path(path).read_bytes()
        except OSError as error:
            raise Stop(f"{path} can't be read: {error.strerror}.", 2) from None
        answer = client.send(request)
        print(json.dumps(answer), flush=True)
        unsure = args.fail_unsure and count_unsure(client.url, answer.get(client.answers, [answer]))
    except Refused as refused:
        raise Stop(f"{path}: {refused}", 1) from None
    except (AttributeError, TypeError):
        raise client.unexpected() from None
    return 3 if unsure else 0


def main() -> int:
    parser = arguments()
    args = parser.parse_args()
    args.api_key, good = (args.api_key or "").strip(), False
    with contextlib.suppress(ValueError):
        parts = urlsplit(args.url)
        good = bool(parts.scheme in ("http", "https") and parts.hostname and parts.port != 0)
    if not good:
        parser.error(shown(f"--url {args.url} is not an address like http://host:5000"))
    if not (args.api_key.isascii() and args.api_key.isprintable()):
        # the message must not contain the key
        parser.error("the API key contains characters that are not allowed in a header")
    if args.read and (not args.inputs or args.prepare == "none"):
        parser.error("--read needs pictures, and can't be used with --prepare none")
    if not args.read and (args.length or args.check or args.alternatives or args.words or args.digits):
        parser.error("--length, --check, --alternatives, --words and --digits need --read")
    if (args.words or args.digits) and args.format != "csv":
        parser.error("--words and --digits need --csv")
    args.inputs = args.inputs or [str(SAMPLE)]
    # a terminal or pipe may not know all characters of a name
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        alone = len(args.inputs) == 1 and args.inputs[0].lower().endswith(".json")
        alone = alone and find_files(args.inputs)[0] == args.inputs  # no pattern or folder
        return ask_one(args) if alone and not (args.format or args.read) else run(args)
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
