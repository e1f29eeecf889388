"""predicted.py as a process, with the real service and with one that fails on purpose."""

from __future__ import annotations

import base64
import csv
import io
import itertools
import json
import os
import pty
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pictures import number as draw_number
from predicted import pause
from project import ROOT, SAMPLE
from service import Server

IMAGE = SAMPLE["image"]
SEVEN = {"predicted_digit": 7, "predicted_probability": 0.9}


def run(*args: Any, url: str = "", stdin: bytes = b"", **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the client, and return its output as text."""
    command = [sys.executable, str(ROOT / "predicted.py"), *map(str, args), *(["--url", url] if url else [])]
    env = {k: v for k, v in os.environ.items() if k not in ("DIGITS_API_KEY", "DIGITS_URL")} | environ
    done = subprocess.run(command, input=stdin, capture_output=True, timeout=60, env=env)
    return subprocess.CompletedProcess(
        command, done.returncode, done.stdout.decode("utf-8", "surrogateescape"), done.stderr.decode()
    )


def png(size: int = 112) -> bytes:
    """The sample as a picture."""
    image = Image.new("L", (28, 28))
    image.putdata([value for row in IMAGE for value in row])
    out = io.BytesIO()
    image.resize((size, size)).save(out, "PNG")
    return out.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Folders with valid and invalid pictures and requests."""
    (tmp_path / "sub" / "deeper").mkdir(parents=True)
    (tmp_path / "a.png").write_bytes(png())
    (tmp_path / "b.json").write_text(json.dumps(SAMPLE, indent=1))
    (tmp_path / "c.png").write_bytes(png()[:300])
    (tmp_path / "d.json").write_text("no json")
    (tmp_path / "notes.txt").write_text("not an input")
    (tmp_path / "sub" / "e.JPG").write_bytes(png(300))
    (tmp_path / "sub" / "deeper" / "f.json").write_text(json.dumps({"images": [IMAGE, 5]}))
    (tmp_path / "sub" / "deeper" / "g.jsonl").write_text(f"{json.dumps(SAMPLE)}\n\n{{}}\n")
    return tmp_path


def test_without_a_url_it_uses_port_5000_on_localhost() -> None:
    assert "http://localhost:5000" in run("--help").stdout


def test_the_answer_to_the_sample_is_printed_unchanged(server: Server) -> None:
    done = run(url=server.url)
    assert done.returncode == 0
    assert json.loads(done.stdout) == server.ask("/predict", SAMPLE).json
    assert done.stderr == ""


def test_a_folder_gives_a_row_per_image_in_order_including_failures(server: Server, folder: Path) -> None:
    done = run(folder, "--format", "jsonl", url=server.url)
    assert done.returncode == 1
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    names = [os.path.relpath(row["input"], folder) for row in rows]
    deep = "sub/deeper/"
    assert names == [
        *("a.png", "b.json", "c.png", "d.json", "sub/e.JPG"),
        *(f"{deep}f.json[0]", f"{deep}f.json[1]", f"{deep}g.jsonl:1", f"{deep}g.jsonl:3"),
    ]
    good = [0, 1, 4, 5, 7]
    assert [row["predicted_digit"] for i, row in enumerate(rows) if i in good] == [7] * 5
    for i in (2, 3, 6, 8):
        assert rows[i]["error"]
        assert "predicted_digit" not in rows[i]
    assert rows[2]["status"] == 422
    assert done.stderr.endswith("4 of 9 failed\n")


def test_text_and_csv_have_the_same_rows(server: Server, folder: Path) -> None:
    lines = run(folder, url=server.url).stdout.splitlines()
    rows = list(csv.DictReader(io.StringIO(run(folder, "--format=csv", url=server.url).stdout)))
    assert len(lines) == len(rows) == 9
    for line, row in zip(lines, rows, strict=True):
        name, digit, rest = line.split("\t")
        assert name == row["input"]
        if digit == "failed":
            assert rest == row["error"]
            assert row["predicted_digit"] == ""
        else:
            assert (digit, rest) == (row["predicted_digit"], row["predicted_probability"])


@pytest.mark.parametrize("batch", [1, 2, 5, 64])
def test_a_refused_image_does_not_affect_the_others(server: Server, tmp_path: Path, batch: int) -> None:
    bad = {3, 4, 11}
    with (tmp_path / "many.jsonl").open("w") as file:
        for i in range(20):
            file.write(json.dumps({"image": IMAGE if i not in bad else [[0] * 28] * 27}) + "\n")
    done = run(tmp_path / "many.jsonl", "--format=jsonl", "--batch", batch, url=server.url)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["input"].rsplit(":")[-1] for row in rows] == [str(i + 1) for i in range(20)]
    assert {i for i, row in enumerate(rows) if "error" in row} == bad
    assert all("a list of 27" in rows[i]["error"] for i in bad)


@pytest.mark.parametrize(
    "stdin",
    [
        png(),
        json.dumps(SAMPLE).encode(),
        json.dumps(SAMPLE, indent=2).encode(),
        json.dumps({"image": base64.b64encode(png()).decode()}).encode(),
    ],
    ids=["picture", "json", "indented json", "picture in json"],
)
def test_the_format_of_standard_input_is_recognized(server: Server, stdin: bytes) -> None:
    done = run("-", url=server.url, stdin=stdin)
    assert done.stdout.split("\t")[1] == "7"
    assert done.returncode == 0


def test_blank_lines_before_the_first_request_are_skipped(server: Server) -> None:
    sample = json.dumps(SAMPLE).encode()
    done = run("-", url=server.url, stdin=b"\n \r\n" + sample + b"\n\n" + sample)
    assert [line.split("\t")[:2] for line in done.stdout.splitlines()] == [
        ["standard input:3", "7"],
        ["standard input:5", "7"],
    ]
    indented = run("-", url=server.url, stdin=b"\n" + json.dumps(SAMPLE, indent=1).encode())
    assert indented.stdout.split("\t")[1] == "7"


def test_lines_on_standard_input_are_answered_as_they_come(server: Server) -> None:
    command = [sys.executable, ROOT / "predicted.py", "-", "--batch=1", "--jobs=1", "--url", server.url]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as client:
        assert client.stdin
        assert client.stdout
        for number in (1, 2, 3):
            client.stdin.write(json.dumps(SAMPLE).encode() + b"\n")
            line = client.stdout.readline()
            assert line.startswith(f"standard input:{number}\t7\t".encode())
        client.stdin.close()
        assert client.wait(10) == 0


@pytest.mark.parametrize("words", [[], ["--csv"], ["--read"], ["--read", "--csv"]])
def test_characters_of_names_that_the_output_can_not_hold_are_escaped(
    server: Server, tmp_path: Path, words: list[str]
) -> None:
    for name in (b"\xe9\xff.png", "7é.png".encode(), "七.png".encode()):
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(number("7"))
    done = run(tmp_path, *words, url=server.url, PYTHONIOENCODING="cp1252")
    assert (done.returncode, done.stderr) == (0, "")
    names = [re.split("[\t,]", line)[0].rpartition("/")[2] for line in done.stdout.splitlines()[-3:]]
    assert names == ["7\udce9.png", "\\u4e03.png", "\\udce9\\udcff.png"]
    done = run(tmp_path, "--json", *words[:-1], url=server.url, PYTHONIOENCODING="cp1252")
    (row,) = [json.loads(line) for line in done.stdout.splitlines() if "udcff" in line]
    assert os.fsencode(row["input"]).endswith(b"/\xe9\xff.png")


def test_a_missing_file_is_reported_and_the_others_are_sent(server: Server, tmp_path: Path) -> None:
    done = run(tmp_path / "gone.png", ROOT / "sample_request.json", url=server.url)
    first, second = done.stdout.splitlines()
    assert "gone.png\tfailed\tThe file can't be read: No such file" in first
    assert second.split("\t")[1] == "7"
    assert done.returncode == 1


def test_a_refused_connection_is_reported_at_once() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        done = run(url=f"http://127.0.0.1:{unused.getsockname()[1]}")
    assert done.returncode == 2
    assert "No answer from" in done.stderr
    assert "Traceback" not in done.stderr
    # five retries would take more than 15 s
    assert "Trying again" not in done.stderr


@pytest.mark.parametrize(
    "args",
    [
        ["--url", "ftp://x"],
        ["--url", "http://"],
        ["--batch", "0"],
        ["--nope"],
        ["--read"],
        # options that exclude each other
        ["--read", "--prepare=none", "x.png"],
        ["--length", "3", "x.png"],
        ["--digits", "--csv", "x.png"],
        ["--read", "--digits", "x.png"],
        ["--read", "--words", "x.png"],
        ["--read", "--csv", "--words", "--digits", "x.png"],
    ],
)
def test_wrong_usage_is_2(args: list[str]) -> None:
    assert run(*args).returncode == 2


def test_an_empty_folder_is_wrong_usage(tmp_path: Path) -> None:
    assert run(tmp_path).returncode == 2


def test_a_quoted_pattern_of_json_files_is_expanded(server: Server, tmp_path: Path) -> None:
    for name in ("a.json", "b.json"):
        (tmp_path / name).write_text(json.dumps(SAMPLE))
    done = run(tmp_path / "*.json", url=server.url)
    assert [line.split("\t")[:2] for line in done.stdout.splitlines()] == [
        [str(tmp_path / "a.json"), "7"],
        [str(tmp_path / "b.json"), "7"],
    ]
    assert done.returncode == 0


def test_a_folder_named_like_a_json_file_is_read(server: Server, tmp_path: Path) -> None:
    (tmp_path / "old.json").mkdir()
    (tmp_path / "old.json" / "a.png").write_bytes(png())
    (tmp_path / "old.json" / "note.txt").write_text("")
    done = run(tmp_path / "old.json", url=server.url)
    assert done.stdout.split("\t")[1] == "7"
    assert done.stderr == "1 other file skipped (1 .txt)\n"


def test_a_folder_is_read_without_hidden_files_and_says_what_else_it_skips(
    server: Server, tmp_path: Path
) -> None:
    (tmp_path / "scans").mkdir()
    for name in (".ipynb_checkpoints", "@eaDir", "__MACOSX", "deep.png"):
        (tmp_path / "scans" / name).mkdir()
        (tmp_path / "scans" / name / "a.png").write_bytes(png())
    for name in ("._a.png", ".hidden.png", "a.jfif", "b.PNG", "c.txt", "d.TXT", "e.xml", "f"):
        (tmp_path / "scans" / name).write_bytes(png())
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "g.jpe").write_bytes(png())
    (tmp_path / "scans" / "link").symlink_to(tmp_path / "linked")
    # a folder that contains itself
    (tmp_path / "linked" / "loop").symlink_to(tmp_path / "scans")
    (tmp_path / "scans" / "h.png").symlink_to(tmp_path / "linked" / "g.jpe")
    done = run(tmp_path / "scans", "--csv", url=server.url)
    names = [os.path.relpath(row["input"], tmp_path / "scans") for row in table(done)]
    assert names == ["a.jfif", "b.PNG", "h.png", "deep.png/a.png", "link/g.jpe"]
    assert done.stderr == "4 other files skipped (2 .txt, 1 .xml, 1 without a suffix)\n"
    assert done.returncode == 0


def test_a_file_of_another_format_is_sent_if_it_is_named_and_its_row_has_the_services_reason(
    server: Server, tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_text("Dear all,")
    (tmp_path / "b.png").write_bytes(b"")
    done = run(tmp_path / "a.txt", tmp_path / "b.png", url=server.url)
    for line, data in zip(done.stdout.splitlines(), (b"Dear all,", b""), strict=True):
        expected = server.ask("/predict", {"image": base64.b64encode(data).decode()})
        assert f"failed\tThe service answered {expected.status}: {expected.json['detail']}" in line
    assert done.returncode == 1


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_a_proxy_is_not_asked_for_this_machine(server: Server, host: str) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        proxy = f"http://127.0.0.1:{unused.getsockname()[1]}"
        proxies = dict.fromkeys(("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy"), proxy)
        done = run(url=f"http://{host}:{server.port}", **proxies, no_proxy="")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_proxy_is_asked_for_other_machines(flaky: Flaky) -> None:
    done = run(url="http://digits.example", http_proxy=flaky.url, no_proxy="")
    assert (done.returncode, json.loads(done.stdout)) == (0, SEVEN)


def test_the_address_comes_from_the_environment_or_the_command_line(flaky: Flaky) -> None:
    assert json.loads(run(DIGITS_URL=flaky.url).stdout) == SEVEN
    assert json.loads(run(url=flaky.url, DIGITS_URL="http://127.0.0.1:9").stdout) == SEVEN
    assert run(DIGITS_URL="nowhere").returncode == 2


def test_a_closed_output_ends_the_client_silently(server: Server, tmp_path: Path) -> None:
    (tmp_path / "many.jsonl").write_text((json.dumps(SAMPLE) + "\n") * 3000)
    client = [
        sys.executable,
        ROOT / "predicted.py",
        tmp_path / "many.jsonl",
        "--batch=1",
        "--url",
        server.url,
    ]
    with subprocess.Popen(client, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(20) == 141


def test_a_long_run_shows_its_progress_on_a_terminal_only(flaky: Flaky, tmp_path: Path) -> None:
    for i in range(8):
        (tmp_path / f"{i}.png").write_bytes(png())
    flaky.seconds = 0.3
    args = [tmp_path, "--batch=2", "--jobs=1", "--url", flaky.url]
    ours, theirs = pty.openpty()
    command = [sys.executable, ROOT / "predicted.py", *args]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=theirs) as process:
        process.wait(30)
        shown = os.read(ours, 1 << 16).decode()
    os.close(ours)
    os.close(theirs)
    assert "50% of 8, 4 done" in shown
    # removed at the end
    assert shown.endswith("\x1b[K")
    assert run(*args).stderr == ""


class Flaky(ThreadingHTTPServer):
    """A service that handles each request with the next step of `plan`, and after these answers `found` for each
    image. By default `found` is the answer of an older service, which does not say which answers are unsure."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), FlakyHandler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.plan: list[Callable[[FlakyHandler], None]] = []
        self.asked: list[tuple[float, Any]] = []
        self.seconds = 0.0
        self.found: list[dict[str, Any]] = [SEVEN]


class FlakyHandler(BaseHTTPRequestHandler):
    """The handler of Flaky's requests."""

    server: Flaky

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((time.monotonic(), self.headers))
        if self.server.plan:
            self.server.plan.pop(0)(self)
            return
        time.sleep(self.server.seconds)
        found = itertools.cycle(self.server.found)
        if "image" in body:
            answer = next(found)
        else:
            answer = {"predictions": list(itertools.islice(found, len(body["images"])))}
        self.answer(200, json.dumps(answer).encode())

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


def refuse(status: int, **headers: str) -> Callable[[FlakyHandler], None]:
    """Answer with `status`."""
    return lambda handler: handler.answer(status, b'{"detail": "not now"}', **headers)


def hang_up(handler: FlakyHandler) -> None:
    """Close the connection without an answer."""
    handler.connection.shutdown(socket.SHUT_RDWR)


def half(handler: FlakyHandler) -> None:
    """Close the connection in the middle of an answer."""
    handler.wfile.write(b'HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"predicted')
    handler.connection.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def flaky() -> Iterator[Flaky]:
    """A running Flaky."""
    with Flaky() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    "failure",
    [refuse(429), refuse(502), refuse(503), hang_up, half],
    ids=["429", "502", "503", "no answer", "half an answer"],
)
def test_temporary_failures_are_retried_with_growing_pauses(
    flaky: Flaky, failure: Callable[[FlakyHandler], None]
) -> None:
    flaky.plan = [failure, failure]
    done = run(url=flaky.url)
    assert done.returncode == 0
    assert json.loads(done.stdout) == SEVEN
    first, second, third = (at for at, _ in flaky.asked)
    assert second - first >= 0.25
    assert third - second >= 0.5
    assert done.stderr.count("Trying again") == 2


def test_retry_after_is_honoured(flaky: Flaky) -> None:
    flaky.plan = [refuse(503, Retry_After="1")]
    assert run(url=flaky.url).returncode == 0
    (first, _), (second, _) = flaky.asked
    assert second - first >= 1


@pytest.mark.parametrize("after", ["86400", "9" * 400, "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_no_pause_is_longer_than_30_seconds(after: str) -> None:
    assert 20 <= pause(0, after) <= 30
    assert pause(20) <= 30


@pytest.mark.parametrize("words", [["--format=text"], ["--csv"], ["--json"], ["--read"], ["--read", "--csv"]])
def test_nothing_in_an_answer_or_a_name_controls_the_terminal(
    flaky: Flaky, tmp_path: Path, words: list[str]
) -> None:
    picture = tmp_path / "a\x1b]0;b\n\u202e.png"
    picture.write_bytes(png())
    detail = json.dumps({"detail": "\x1b[31mred\x9b1m\r\n"}).encode()
    flaky.plan = [lambda handler: handler.answer(503, detail)] * 2
    done = run(picture, *words, "--retries=1", url=flaky.url)
    for text in (done.stdout, done.stderr):
        assert text.replace("\n", "").replace("\t", "").isprintable()
        assert "\\x1b[31mred" in text or "\\u001b[31mred" in text
    # a row, perhaps after a header
    assert len(done.stdout.splitlines()) == 1 + ("--csv" in words)


def test_where_an_answer_redirects_to_does_not_control_the_terminal(flaky: Flaky) -> None:
    flaky.plan = [lambda handler: handler.answer(302, b"", Location="http://x/\x1b[31mred")]
    assert "http://x/\\x1b[31mred" in run(url=flaky.url).stderr


def test_after_the_last_retry_it_continues_with_the_others(flaky: Flaky) -> None:
    flaky.plan = [refuse(503), refuse(503)]
    sample = str(ROOT / "sample_request.json")
    done = run(sample, sample, "--retries=1", "--batch=1", "--jobs=1", url=flaky.url)
    assert done.returncode == 1
    assert [line.split("\t")[1] for line in done.stdout.splitlines()] == ["failed", "7"]
    assert "503: not now" in done.stdout


@pytest.mark.parametrize("status", [400, 404, 500, 307])
def test_permanent_failures_are_not_retried(flaky: Flaky, status: int) -> None:
    flaky.plan = [refuse(status, Location="http://127.0.0.1:9/")]
    done = run(url=flaky.url)
    assert done.returncode == 1
    assert str(status) in done.stderr
    assert len(flaky.asked) == 1


def test_a_wrong_key_stops_the_run(flaky: Flaky) -> None:
    flaky.plan = [refuse(401)] * 9
    sample = str(ROOT / "sample_request.json")
    done = run(*[sample] * 9, "--batch=1", "--jobs=1", url=flaky.url)
    assert done.returncode == 1
    assert "401" in done.stderr
    assert len(flaky.asked) == 1


def test_the_api_key_comes_from_the_environment_or_the_command_line(flaky: Flaky) -> None:
    run(url=flaky.url)
    run(url=flaky.url, DIGITS_API_KEY="from-env")
    run("--api-key", "from-args", url=flaky.url, DIGITS_API_KEY="from-env")
    sent = [headers["Authorization"] for _, headers in flaky.asked]
    assert sent == [None, "Bearer from-env", "Bearer from-args"]


UNSURE = {"predicted_digit": 7, "predicted_probability": 0.62, "unsure": True}
ONE = {"predicted_digit": 1, "predicted_probability": 0.99, "unsure": False}


def test_a_row_says_that_it_is_unsure(flaky: Flaky, tmp_path: Path) -> None:
    flaky.found = [UNSURE, ONE]
    (tmp_path / "two.json").write_text(json.dumps({"images": [IMAGE, IMAGE]}))
    text, table, lines = (
        run(tmp_path / "two.json", f"--format={kind}", url=flaky.url) for kind in ("text", "csv", "jsonl")
    )
    assert [line.split("\t")[1:] for line in text.stdout.splitlines()] == [
        ["7", "0.62", "unsure"],
        ["1", "0.99"],
    ]
    assert [row["unsure"] for row in csv.DictReader(io.StringIO(table.stdout))] == ["true", "false"]
    assert [json.loads(line)["unsure"] for line in lines.stdout.splitlines()] == [True, False]
    # without --fail-unsure, unsure answers are not an error
    assert {done.returncode for done in (text, table, lines)} == {0}
    assert text.stderr == ""


@pytest.mark.parametrize("options", [[], ["--format=text"]], ids=["a single request", "rows"])
@pytest.mark.parametrize(("found", "code"), [([ONE], 0), ([ONE, UNSURE], 3)], ids=["sure", "unsure"])
def test_sure_exits_with_3_if_any_answer_is_unsure(
    flaky: Flaky, tmp_path: Path, found: list[dict[str, Any]], code: int, options: list[str]
) -> None:
    flaky.found = found
    (tmp_path / "two.json").write_text(json.dumps({"images": [IMAGE, IMAGE]}))
    done = run(tmp_path / "two.json", "--fail-unsure", *options, url=flaky.url)
    assert done.returncode == code
    assert done.stdout
    assert ("1 of 2 unsure" in done.stderr) == (code == 3 and bool(options))


def test_a_single_image_that_is_unsure_exits_with_3_too(flaky: Flaky) -> None:
    flaky.found = [UNSURE]
    done = run("--fail-unsure", url=flaky.url)
    assert (done.returncode, json.loads(done.stdout)) == (3, UNSURE)


def test_a_failure_counts_for_more_than_an_unsure_answer(flaky: Flaky, tmp_path: Path) -> None:
    flaky.found = [UNSURE]
    done = run(ROOT / "sample_request.json", tmp_path / "gone.png", "--fail-unsure", url=flaky.url)
    assert done.returncode == 1
    assert "1 of 2 unsure" in done.stderr


@pytest.mark.parametrize("options", [[], ["--format=text"]], ids=["a single request", "rows"])
def test_an_older_service_works_without_the_option_sure(flaky: Flaky, options: list[str]) -> None:
    sample = ROOT / "sample_request.json"
    done = run(sample, *options, url=flaky.url)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (f"{sample}\t7\t0.9\n" if options else json.dumps(SEVEN) + "\n")
    done = run(sample, "--fail-unsure", *options, url=flaky.url)
    assert done.returncode == 2
    assert "does not say which answers are unsure" in done.stderr


@pytest.mark.parametrize("body", [b"<html>", b"[1, 2]", b'{"status": "fine"}'])
def test_an_answer_from_another_service_is_reported(flaky: Flaky, body: bytes) -> None:
    flaky.plan = [lambda handler: handler.answer(200, body)]
    done = run(ROOT / "sample_request.json", "--format=text", url=flaky.url)
    assert done.returncode == 2
    assert "Is it this service?" in done.stderr


def number(*lines: str) -> bytes:
    """A picture with lines of digits."""
    out = io.BytesIO()
    draw_number(*lines).save(out, "PNG")
    return out.getvalue()


def test_read_prints_the_lines(server: Server, tmp_path: Path) -> None:
    (tmp_path / "scan.png").write_bytes(number("4725", "316"))
    done = run("--read", tmp_path / "scan.png", url=server.url)
    assert (done.returncode, done.stderr) == (0, "")
    # an unsure line is marked after a tab
    assert [line.removesuffix("\tunsure") for line in done.stdout.splitlines()] == ["4725", "316"]
    assert run("--read", "-", url=server.url, stdin=number("4725")).stdout.removesuffix("\n") == "4725"


def test_read_accepts_folders_and_patterns_and_names_each_picture(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(number("4725", "316"))
    (tmp_path / "b.png").write_bytes(number("4")[:99])
    (tmp_path / "c.png").write_bytes(number(""))
    done = run("--read", tmp_path, url=server.url)
    lines = [line.removeprefix(f"{tmp_path}/").split("\t") for line in done.stdout.splitlines()]
    assert [line[:2] for line in lines] == [
        ["a.png", "4725"],
        ["a.png", "316"],
        ["b.png", "failed"],
        ["c.png", ""],
    ]
    assert (done.returncode, done.stderr) == (1, "1 of 3 failed\n")
    assert run("--read", f"{tmp_path}/*.png", url=server.url).stdout == done.stdout


def table(done: subprocess.CompletedProcess[str]) -> list[dict[str, str]]:
    """The rows of a CSV table."""
    return list(csv.DictReader(io.StringIO(done.stdout)))


def test_read_writes_everything_as_json_and_a_row_per_line_or_digit_as_csv(
    server: Server, tmp_path: Path
) -> None:
    picture = number("4725", "316")
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(picture)
    (tmp_path / "torn.png").write_bytes(picture[:99])
    expected = server.ask("/read?alternatives=2", picture, Content_Type="image/png").json
    done = run("--read", tmp_path, "--json", "--alternatives=2", "--batch=2", url=server.url)
    *read, torn = [json.loads(line) for line in done.stdout.splitlines()]
    assert read == [{"input": f"{tmp_path}/{name}"} | expected for name in ("a.png", "b.png")]
    assert torn.keys() == {"input", "error", "status"}

    done = run("--read", tmp_path, "--csv", url=server.url)
    assert done.stdout.splitlines()[0] == "file,page,line,text,words,probability,unsure,error"
    *rows, failed = table(done)
    assert [row["file"] for row in rows] == [f"{tmp_path}/{name}.png" for name in "aabb"]
    for row, (i, line) in zip(rows, [*enumerate(expected["lines"], 1)] * 2, strict=True):
        assert (row["page"], row["line"], row["text"]) == ("1", str(i), line["text"])
        assert (int(row["words"]), float(row["probability"])) == (len(line["words"]), line["probability"])
        assert json.loads(row["unsure"]) == line["unsure"]
    assert (failed["line"], failed["error"]) == ("", torn["error"])

    *rows, failed = table(run("--read", tmp_path, "--csv", "--digits", url=server.url))
    digits = [(i, digit) for i, line in enumerate(expected["lines"], 1) for digit in line["digits"]]
    for row, (i, digit) in zip(rows, digits * 2, strict=True):
        assert (row["page"], row["line"], row["digit"]) == ("1", str(i), str(digit["digit"]))
        assert [int(row[side]) for side in ("x", "y", "width", "height")] == digit["box"]
        assert json.loads(row["unsure"]) == digit["unsure"]
    assert failed["error"] == torn["error"]


def test_read_writes_a_row_per_word_with_its_column(server: Server, tmp_path: Path) -> None:
    picture = number("20  31  47", "85      72")
    (tmp_path / "table.png").write_bytes(picture)
    lines = server.ask("/read?columns=1", picture, Content_Type="image/png").json["lines"]
    rows = table(run("--read", tmp_path / "table.png", "--csv", "--words", url=server.url))
    expected = [(i, line["unsure"], word) for i, line in enumerate(lines, 1) for word in line["words"]]
    for row, (i, unsure, word) in zip(rows, expected, strict=True):
        assert (row["page"], row["line"], row["text"]) == ("1", str(i), word["text"])
        assert [int(row[side]) for side in ("x", "y", "width", "height")] == word["box"]
        assert json.loads(row["unsure"]) == unsure
    found = [(row["line"], row["column"], row["text"]) for row in rows]
    assert found == [("1", "0", "20"), ("1", "1", "31"), ("1", "2", "47"), ("2", "0", "85"), ("2", "2", "72")]


@pytest.mark.parametrize("words", [[], ["--words"], ["--digits"]])
def test_a_blank_picture_has_a_row_in_a_table(server: Server, tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "blank.png").write_bytes(number(""))
    (row,) = table(run("--read", tmp_path / "blank.png", "--csv", *words, url=server.url))
    assert {name: cell for name, cell in row.items() if cell} == {
        "file": f"{tmp_path}/blank.png",
        "page": "1",
    }


def test_read_sends_its_options_and_counts_unsure_lines(server: Server, tmp_path: Path) -> None:
    (tmp_path / "scan.png").write_bytes(number("4725"))
    done = run("--read", tmp_path / "scan.png", "--length=3", "--fail-unsure", url=server.url)
    text, unsure = done.stdout.split()
    assert (len(text), unsure, done.returncode, done.stderr) == (3, "unsure", 3, "1 lines unsure\n")


def test_it_only_needs_the_standard_library() -> None:
    code = "import sys, predicted; print(*{name.split('.')[0] for name in sys.modules} - sys.stdlib_module_names)"
    loaded = subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert set(loaded) <= {"predicted", "__main__", "__mp_main__"}
