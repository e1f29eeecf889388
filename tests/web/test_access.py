"""Access control: API keys, the separate address of the metrics, pages of other sites, and what is logged."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from flask import Blueprint

import app as app_module
from api_checks import schemathesis
from digits.web import keys
from digits.web.settings import SettingError, Settings
from project import ROOT, SAMPLE
from raw_requests import bodies, connect, read_answer, received_for
from service import Server

# in the format of digits/web/keys.py: they don't begin with a dash
OLD, NEW = ("k" + secrets.token_urlsafe(32) for _ in range(2))
PREDICTIONS = bodies(b"0")


def hashed(key: str) -> str:
    return "sha256:" + hashlib.sha256(key.encode()).hexdigest()


@pytest.fixture(scope="module")
def guarded(start: Callable[..., Server]) -> Server:
    """A service that accepts the keys OLD and NEW."""
    return start(DIGITS_API_KEYS=f"{hashed(OLD)},{hashed(NEW)}")


def ask(server: Server, path: str, **headers: str) -> Any:
    return server.ask(path, PREDICTIONS[path], Content_Type="application/json", **headers)


@pytest.mark.parametrize("path", PREDICTIONS)
def test_predictions_require_one_of_the_keys(guarded: Server, path: str) -> None:
    for key in (OLD, NEW):
        assert ask(guarded, path, X_API_Key=key).status == 200
        assert ask(guarded, path, Authorization=f"Bearer {key}").status == 200
        assert ask(guarded, path, Authorization=f"bearer  {key} ").status == 200
        # may be meant for a proxy
        assert ask(guarded, path, Authorization="Basic eDp5", X_API_Key=key).status == 200
    for headers, error in (
        ({}, None),
        ({"X_API_Key": ""}, None),
        ({"Authorization": f"Basic {OLD}"}, None),
        ({"Authorization": OLD}, None),
        ({"X_API_Key": "wrong"}, "invalid_token"),
        ({"X_API_Key": "wrong", "Authorization": f"Bearer {OLD}"}, "invalid_token"),
        ({"X_API_Key": hashed(OLD)}, "invalid_token"),
        ({"X_API_Key": OLD[:-1]}, "invalid_token"),
        ({"X_API_Key": f"{OLD}, {NEW}"}, "invalid_token"),
        ({"X_API_Key": "k\xe9y"}, "invalid_token"),
    ):
        answer = ask(guarded, path, **headers)
        assert answer.status == 401, headers
        challenge = answer.headers["www-authenticate"]
        assert challenge.startswith('Bearer realm="digits"')
        assert (f'error="{error}"' in challenge) if error else ("error" not in challenge)
        if path in ("/predict", "/invocations"):
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json["status"] == 401
        else:
            assert list(answer.json) == ["error"]


def test_every_post_requires_a_key_and_nothing_else_does(guarded: Server) -> None:
    version = guarded.ask("/").json["model"]["version"]
    for template, operations in guarded.ask("/openapi.json").json["paths"].items():
        path = template.replace("{name}", "swagger-ui.css").replace("{filename}", "page.css")
        path = path.replace("{version}", str(int(version, 16)) if "/v1/" in path else version)
        for method in operations:
            answer = guarded.ask(path, b"{}" if method == "post" else None, method.upper())
            assert answer.status == (401 if method == "post" else 200), path
    # unknown routes are 404 without a key too
    assert guarded.ask("/nope", b"", "POST").status == 404
    assert guarded.ask("/predict").status == 405


def test_without_a_key_the_body_is_neither_read_nor_parsed_as_a_request(guarded: Server) -> None:
    with connect(guarded) as sock:
        for body in (b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n", b"x" * 20_000):
            sock.sendall(
                b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body
            )
            assert read_answer(sock).startswith(b"HTTP/1.1 401 ")
        sock.sendall(b"GET /model HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"h5_sha256" in read_answer(sock)


def test_every_hash_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bytes] = []

    def compare(a: bytes, b: bytes) -> bool:
        compared.append(a)
        return a == b

    monkeypatch.setattr("digits.web.keys.hmac.compare_digest", compare)
    hashes = sorted(keys.parse(f"{hashed(OLD)} {hashed(NEW)} {hashed('third')}", "here"))
    for key, right in ((OLD, True), (NEW, True), ("wrong", False)):
        compared.clear()
        assert keys.accepted(key, hashes) is right
        assert compared == hashes


def test_the_command_prints_a_key_and_its_hash() -> None:
    pairs = set()
    for _ in range(2):
        out = subprocess.run(
            [sys.executable, "-m", "digits.web.keys"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        key, digest = (line.split()[-1] for line in out.splitlines())
        assert len(key) == 43
        assert digest == hashed(key)
        assert keys.accepted(key, keys.parse(digest, "here"))
        pairs.add(key)
    assert len(pairs) == 2


def test_keys_are_read_from_setting_and_file_together(tmp_path: Path) -> None:
    assert keys.load(Settings()) == frozenset()
    file = tmp_path / "keys"
    file.write_text(f"# since May\n{hashed(OLD).upper().replace('SHA', 'sha')}  # the robot's\n\n")
    found = keys.load(Settings(api_keys=hashed(NEW), api_keys_file=str(file)))
    assert found == {bytes.fromhex(hashed(key).removeprefix("sha256:")) for key in (OLD, NEW)}


@pytest.mark.parametrize("content", ["", "# none left\n", "sha256:12", OLD, "md5:" + "0" * 32, "\xff"])
def test_a_setting_without_valid_hashes_is_refused_and_not_quoted(tmp_path: Path, content: str) -> None:
    file = tmp_path / "keys"
    file.write_bytes(content.encode("latin-1"))
    with pytest.raises(SettingError, match="DIGITS_API_KEYS_FILE") as error:
        keys.load(Settings(api_keys_file=str(file)))
    assert OLD not in str(error.value)
    with pytest.raises(SettingError):
        keys.load(Settings(api_keys_file=str(tmp_path / "none")))


def test_a_key_instead_of_its_hash_prevents_the_start_and_is_not_logged(start: Callable[..., Server]) -> None:
    server = start(wait=False, DIGITS_API_KEYS=OLD)
    assert server.process.wait(20) == 1
    output = server.output.read_text()
    assert "must be hashes like" in output
    assert "Traceback" not in output
    assert OLD not in output


def status_becomes(server: Server, key: str, expected: int) -> bool:
    deadline = time.monotonic() + 15
    while (
        status := ask(server, "/predict", X_API_Key=key).status
    ) != expected and time.monotonic() < deadline:
        time.sleep(0.05)
    # the old workers may still answer for a moment
    return status == expected


def test_keys_are_rotated_by_sighup_and_a_bad_file_changes_nothing(
    start: Callable[..., Server], tmp_path: Path
) -> None:
    file = tmp_path / "keys"
    file.write_text(hashed(OLD))
    server = start(DIGITS_API_KEYS_FILE=str(file), WEB_CONCURRENCY="1")
    assert status_becomes(server, OLD, 200)
    assert ask(server, "/predict", X_API_Key=NEW).status == 401
    file.write_text(f"{hashed(OLD)}\n{hashed(NEW)}\n")
    server.process.send_signal(signal.SIGHUP)
    assert status_becomes(server, NEW, 200)
    assert ask(server, "/predict", X_API_Key=OLD).status == 200
    file.write_text(hashed(NEW))
    server.process.send_signal(signal.SIGHUP)
    assert status_becomes(server, OLD, 401)
    assert ask(server, "/predict", X_API_Key=NEW).status == 200

    file.write_text("")
    server.process.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + 15
    while not any("keeping the old API keys" in line["message"] for line in server.log()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    # a worker that is started later does not read the file either
    for worker in server.children():
        os.kill(worker, signal.SIGKILL)
    deadline = time.monotonic() + 15
    while True:
        try:
            assert ask(server, "/predict", X_API_Key=NEW).status == 200
            assert ask(server, "/predict", X_API_Key=OLD).status == 401
            break
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_the_client_sends_its_key(guarded: Server) -> None:
    def run(*args: str, **environ: str) -> subprocess.CompletedProcess[str]:
        env = {k: v for k, v in os.environ.items() if k != "DIGITS_API_KEY"} | environ
        command = [sys.executable, "predicted.py", "--url", guarded.url, *args]
        return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)

    for done in (run(DIGITS_API_KEY=f"{OLD}\n"), run("--api-key", NEW)):
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["predicted_digit"] == 7
    for done in (run(), run("--format", "csv"), run(DIGITS_API_KEY="wrong")):
        assert done.returncode == 1
        assert "401" in done.stderr
        assert "Traceback" not in done.stderr
    for key in ("a\nb", "kéy"):
        done = run(DIGITS_API_KEY=key)
        assert done.returncode == 2
        assert "not allowed in a header" in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.e2e
def test_schemathesis_finds_nothing_with_keys(start: Callable[..., Server]) -> None:
    # its check ignored_auth calls each route for predictions without a key and with a wrong one
    server = start(DIGITS_MAX_BATCH="4", DIGITS_API_KEYS=hashed(OLD))
    few = ("--max-examples", "3", "--phases", "examples,coverage,fuzzing")
    output = schemathesis(server.url, *few, "--include-method", "POST", "-H", f"X-API-Key: {OLD}")
    posts = sum("post" in path for path in server.ask("/openapi.json").json["paths"].values())
    assert f"Tested: {posts}\n" in output


# metrics


def get(url: str, **headers: str) -> int:
    """The status of the answer to a GET request."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=names), timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_metrics_can_have_a_separate_address(start: Callable[..., Server]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = start(DIGITS_METRICS_BIND=f"127.0.0.1:{port}")
    own = f"http://127.0.0.1:{port}"
    assert server.ask("/predict", SAMPLE).status == 200
    # headers can't give access to the other address
    for path in ("/metrics", "/metrics/", "//metrics", "/metrics?x", "/%6detrics", "/static/../metrics"):
        for headers in (
            {},
            {"Host": f"127.0.0.1:{port}"},
            {"X_Forwarded_Port": str(port), "X_Forwarded_Host": f"127.0.0.1:{port}"},
            {"X_Forwarded_For": "127.0.0.1", "Forwarded": "for=127.0.0.1"},
        ):
            assert get(server.url + path, **headers) == 404, (path, headers)
    answer = received_for(
        server, f"GET {own}/metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode(), False
    )
    assert answer.startswith(b"HTTP/1.1 404 ")
    with urllib.request.urlopen(f"{own}/metrics", timeout=10) as answer:
        assert b'url_rule="/predict"' in answer.read()
    for path in ("/", "/health/live", "/model", "/predict", "/static/page.css"):
        assert get(own + path) == 404


@pytest.mark.parametrize("value", ["9100", "127.0.0.1", "127.0.0.1:x", ":9100", "127.0.0.1:5000"])
def test_an_invalid_address_for_metrics_is_refused(value: str) -> None:
    with pytest.raises(SettingError, match="DIGITS_METRICS_BIND"):
        Settings.from_env({"DIGITS_METRICS_BIND": value})


# browsers


def client_with(**changes: str) -> Any:
    from app import create_app

    return create_app(Settings.from_env(changes)).test_client()


PREFLIGHT = {
    "Origin": "https://good.example",
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "x-api-key,content-type",
}


def test_without_the_setting_pages_of_other_sites_may_not_call(client: Any) -> None:
    for answer in (
        client.options("/predict", headers=PREFLIGHT),
        client.post("/predict", json=SAMPLE, headers={"Origin": "https://good.example"}),
    ):
        assert not [name for name, _ in answer.headers if name.startswith("Access-Control")]


def test_pages_of_listed_origins_may_call() -> None:
    client = client_with(
        DIGITS_CORS_ORIGINS="https://good.example, http://localhost:3000", DIGITS_API_KEYS=hashed(OLD)
    )
    asked = client.options("/predict", headers=PREFLIGHT)
    assert asked.status_code == 200
    assert asked.headers["Access-Control-Allow-Origin"] == "https://good.example"
    assert "POST" in asked.headers["Access-Control-Allow-Methods"]
    allowed = asked.headers["Access-Control-Allow-Headers"].lower()
    assert {"x-api-key", "content-type", "authorization"} <= set(allowed.split(", "))
    assert "Access-Control-Allow-Credentials" not in asked.headers
    for key, status in ((OLD, 200), ("wrong", 401)):
        headers = {"Origin": "http://localhost:3000", "X-API-Key": key}
        answer = client.post("/predict", json=SAMPLE, headers=headers)
        # the page can read errors too
        assert answer.status_code == status
        assert answer.headers["Access-Control-Allow-Origin"] == "http://localhost:3000"
        assert "X-Request-ID" in answer.headers["Access-Control-Expose-Headers"]
        assert "Origin" in answer.headers["Vary"]
    for origin in (
        "https://bad.example",
        "https://good.example.bad.example",
        "http://good.example",
        "null",
        "https://good.example:444",
        "HTTPS://GOOD.EXAMPLE",
    ):
        answer = client.options("/predict", headers=PREFLIGHT | {"Origin": origin})
        assert "Access-Control-Allow-Origin" not in answer.headers
        # otherwise a cache might send this answer to a page of a listed origin
        assert "Origin" in answer.headers["Vary"]
    assert "Access-Control-Allow-Methods" not in client.options("/predict").headers


def test_a_star_allows_all_origins() -> None:
    answer = client_with(DIGITS_CORS_ORIGINS="*").options("/predict", headers=PREFLIGHT)
    assert answer.headers["Access-Control-Allow-Origin"] == "*"


@pytest.mark.parametrize(
    "value", ["good.example", "https://good.example/", "null", "https://*.example", "a, *"]
)
def test_an_invalid_origin_is_refused(value: str) -> None:
    with pytest.raises(SettingError, match="DIGITS_CORS_ORIGINS"):
        Settings.from_env({"DIGITS_CORS_ORIGINS": value})


@pytest.mark.parametrize(
    "path", ["/", "/static/page.js", "/static/none", "/model", "/docs", "/docs/swagger-ui-bundle.js"]
)
def test_pages_have_security_headers(server: Server, path: str) -> None:
    headers = server.ask(path, Accept="text/html").headers
    policy = dict(part.partition(" ")[::2] for part in headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-resource-policy"] == "same-origin"


def test_no_answer_has_a_type_that_a_browser_would_run(server: Server) -> None:
    attack = "<script>alert(1)</script>"
    for answer in (
        server.ask(f"/{attack.replace('<', '%3C').replace('>', '%3E')}"),
        server.ask("/predict?detail=%3Cscript%3E", SAMPLE),
        server.ask("/predict", attack.encode(), Content_Type=attack),
        server.ask("/v2/models/%3Cscript%3E"),
    ):
        assert answer.status >= 400
        assert answer.headers["content-type"] in ("application/json", "application/problem+json")


# logs


def test_clients_cannot_forge_log_lines_and_no_secret_or_image_is_logged(
    start: Callable[..., Server],
) -> None:
    server = start(DIGITS_LOG_LEVEL="debug", DIGITS_API_KEYS=hashed(OLD), WEB_CONCURRENCY="1")
    pixels = "137,251,139,241,149,239,151"
    image = f'{{"image":[{",".join(["0"] * 777)},{pixels}]}}'.encode()
    assert server.ask("/predict", image, Content_Type="application/json", X_API_Key=OLD).status == 200
    before = len(server.log())
    forged = '{"level":"INFO","logger":"digits.request","message":"forged"}'
    inside = [
        "\n" + forged,
        "\r\n" + forged,
        "\u2028" + forged,
        "\x1b[2J" + forged,
        '","message":"forged"}' + forged,
    ]
    key = b"X-API-Key: " + OLD.encode()
    for each in inside:
        raw = each.encode()
        quoted = "".join(f"%{byte:02x}" for byte in raw).encode()
        for request in (
            b"POST /" + quoted + b" HTTP/1.1\r\nHost: x\r\n" + key + b"\r\nContent-Length: 0\r\n\r\n",
            b"GET /?" + quoted + b" HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET /v2/models/mnist/versions/" + quoted + b" HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\nX-Request-ID: " + raw + b"\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\nUser-Agent: " + raw + b"\r\n" + raw + b"\r\n\r\n",
            b"GET" + raw.replace(b"\r", b"").replace(b"\n", b"") + b" / HTTP/1.1\r\nHost: x\r\n\r\n",
            raw + b"\r\n\r\n",
        ):
            with connect(server) as sock:
                sock.sendall(request)
                sock.shutdown(socket.SHUT_WR)
                while sock.recv(65536):
                    pass
    # a key or an image in unexpected places
    predict = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    for request in (
        predict + key,
        predict + key.replace(b":", b"") + b"\r\n\r\n",
        predict + key.replace(b": ", b" : ") + b"\r\n\r\n",
        predict + b" " + key + b"\r\n\r\n",
        predict + key + b"\x01\r\n\r\n",
        predict + b"Content-Length: " + OLD.encode() + b"\r\n\r\n",
        predict + b"Expect: " + OLD.encode() + b"\r\n\r\n",
        b"POST /predict?key=" + OLD.encode() + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        OLD.encode() + b"\r\n\r\n",
        b"GET / " + OLD.encode() + b"\r\n\r\n",
        predict + key + b"\r\nTransfer-Encoding: chunked\r\n\r\n" + pixels.encode() + b"\r\n" + image,
        predict + key + b"\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n" + image + b"\r\n",
        predict + key + b"\r\nContent-Length: 5000\r\n\r\n" + image,
        predict + key + b"\r\nContent-Length: %d\r\n\r\n" % (len(image) - 1) + image[:-1],
        predict + key + b"x\r\nContent-Length: %d\r\n\r\n" % len(image) + image,
        predict.replace(b"json", b"x-%s" % pixels.encode()) + key + b"\r\nContent-Length: 0\r\n\r\n",
    ):
        with connect(server) as sock:
            sock.sendall(request)
            sock.shutdown(socket.SHUT_WR)
            try:
                while sock.recv(65536):
                    pass
            except ConnectionError:
                pass
    output = server.output.read_text()
    assert len(server.log()) > before + len(inside) * 6
    for line in output.splitlines()[1:]:
        if not line.startswith("INFO: Created TensorFlow Lite"):
            assert json.loads(line)["message"] != "forged", line
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029]", output)
    for secret in (OLD, hashed(OLD).removeprefix("sha256:"), pixels, pixels.replace(",", ", ")):
        assert secret not in output


def test_a_view_without_declared_access_is_refused(monkeypatch):
    bp = Blueprint("careless", __name__)
    bp.add_url_rule("/careless", view_func=lambda: "")
    monkeypatch.setattr(app_module, "ROUTES", (*app_module.ROUTES, SimpleNamespace(bp=bp)))
    with pytest.raises(RuntimeError, match=r"careless\.<lambda>"):
        app_module.create_app()
