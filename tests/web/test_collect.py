"""Collecting answers and correcting them: what is kept, what is refused, and that neither a slow store nor a
killed process costs an answer or loses what was acknowledged."""

from __future__ import annotations

import base64
import io
import json
import os
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from app import create_app
from digits.web import collect
from digits.web.problems import Problem
from digits.web.settings import Settings
from digits.web.store import Store
from pictures import number
from project import ROOT, SAMPLE
from service import Server, samples, until

SEVEN = (ROOT / "digits/web/static/samples/7.png").read_bytes()
NUMBER = (ROOT / "digits/web/static/samples/number.png").read_bytes()
PAGE = {"page": 1, "text": "7", "boxes": [[0, 0, 9, 9]]}
# the test image with noise, of which no network is sure
NOISE = {"image": np.random.default_rng(1).integers(0, 255, (28, 28)).tolist()}


def kept(store: Path, kind: str = "collected") -> dict[str, dict[str, Any]]:
    """All documents of a kind by request id."""
    return {path.stem: json.loads(path.read_bytes()) for path in store.glob(f"{kind}/*/*.json")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("collect")


@pytest.fixture(scope="module")
def collecting(start: Callable[..., Server], folder: Path) -> Server:
    """A service with two workers that keeps everything."""
    return start(DIGITS_COLLECT=str(folder), DIGITS_COLLECT_SHARE="1")


def correct(server: Server, request_id: str, *digits: Any, **more: Any) -> Any:
    return server.ask("/corrections", {"request_id": request_id, "digits": [*digits]} | more)


def test_an_answer_is_kept_with_its_picture_model_and_time(collecting: Server, folder: Path) -> None:
    answer = collecting.ask("/predict", SEVEN, Content_Type="image/png", X_Request_ID="seven")
    detail = collecting.ask("/predict?detail=1", SEVEN, Content_Type="image/png")
    item = until(lambda: kept(folder).get("seven"))
    assert item["request_id"] == "seven"
    assert item["route"] == "/predict"
    assert item["model_version"] == answer.headers["x-model-version"]
    assert datetime.now(UTC) - datetime.fromisoformat(item["time"]) < timedelta(minutes=1)
    (picture,) = item["pictures"]
    assert base64.b64decode(picture["picture"]) == SEVEN
    # and with what the network saw of it
    assert list(base64.b64decode(picture["pixels"])) == np.ravel(detail.json["image"]).tolist()
    assert picture["answer"] == answer.json
    # the answer says nothing of it
    assert answer.json.keys() == {"predicted_digit", "predicted_probability", "unsure"}


def test_pixels_and_readings_are_kept_too(collecting: Server, folder: Path) -> None:
    collecting.ask("/predict", SAMPLE, X_Request_ID="pixels")
    reading = collecting.ask("/read?page_image=1", NUMBER, Content_Type="image/png", X_Request_ID="reading")
    (picture,) = until(lambda: kept(folder).get("pixels"))["pictures"]
    assert list(base64.b64decode(picture["pixels"])) == np.ravel(SAMPLE["image"]).tolist()
    item = until(lambda: kept(folder).get("reading"))
    assert item["model_version"] == reading.headers["x-model-version"]
    # the file is kept, so an image of its page is not
    assert item["pictures"][0]["answer"] | {"page_image": reading.json["page_image"]} == reading.json


def test_a_correction_is_found_whichever_worker_gets_it(collecting: Server, folder: Path) -> None:
    for i in range(20):
        # each request opens a connection, which any worker accepts
        collecting.ask("/predict", SAMPLE, X_Request_ID=f"race-{i}")
        answer = correct(collecting, f"race-{i}", i % 10)
        assert (answer.status, answer.json) == (200, {"request_id": f"race-{i}", "pictures": 1})
    corrected = kept(folder, "corrected")
    assert [corrected[f"race-{i}"]["digits"] for i in range(20)] == [[i % 10] for i in range(20)]
    # the correction has all that was kept, so nothing else refers to it
    assert not {name for name in kept(folder) if name.startswith("race-")}
    assert corrected["race-3"]["pictures"][0]["answer"]["predicted_digit"] == 7


def test_a_different_correction_replaces_another_only_if_it_says_so(collecting: Server, folder: Path) -> None:
    collecting.ask("/predict", SAMPLE, X_Request_ID="twice")
    assert correct(collecting, "twice", 1).status == 200
    assert correct(collecting, "twice", 1).status == 200
    assert correct(collecting, "twice", 2).status == 409
    assert kept(folder, "corrected")["twice"]["digits"] == [1]
    assert correct(collecting, "twice", "no digit", replace=True).status == 200
    assert kept(folder, "corrected")["twice"]["digits"] == ["no digit"]


@pytest.mark.parametrize("name", ["..", ".", "...", ".json", "a.tmp", "-rf", "a:b", "x" * 128])
def test_ids_that_look_like_paths_are_names_of_files(collecting: Server, folder: Path, name: str) -> None:
    answer = collecting.ask("/predict", SAMPLE, X_Request_ID=name)
    assert answer.headers["x-request-id"] == name
    assert correct(collecting, name, 3).status == 200
    assert kept(folder, "corrected")[name]["digits"] == [3]
    assert {len(path.relative_to(folder).parts) for path in folder.rglob("*") if path.is_file()} == {3}


def test_of_different_corrections_at_once_one_is_kept(collecting: Server, folder: Path) -> None:
    collecting.ask("/predict", SAMPLE, X_Request_ID="at-once")
    statuses: dict[int, int] = {}

    def ask(digit: int) -> None:
        statuses[digit] = correct(collecting, "at-once", digit).status

    clients = [threading.Thread(target=ask, args=[digit]) for digit in range(8)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    (digit,) = [digit for digit, status in statuses.items() if status == 200]
    assert sorted(statuses.values()) == [200] + 7 * [409]
    assert kept(folder, "corrected")["at-once"]["digits"] == [digit]


def test_the_lines_of_a_reading_are_corrected_with_their_boxes(collecting: Server, folder: Path) -> None:
    collecting.ask("/read", NUMBER, Content_Type="image/png", X_Request_ID="line")
    said = {"text": "40\n7", "boxes": [[1, 2, 30, 40], [31, 2, 30, 40], [0, 50, 30, 40]]}
    assert correct(collecting, "line", said).status == 200
    assert kept(folder, "corrected")["line"]["digits"] == [said]
    # a digit does not say where it is
    alone = correct(collecting, "line", 7, replace=True)
    assert (alone.status, alone.json["field"]) == (422, "digits")
    assert correct(collecting, "line", "no digit", replace=True).status == 200


def test_a_file_with_an_unsure_page_is_kept_and_corrected_by_page(tmp_path: Path) -> None:
    client = create_app(Settings(collect=str(tmp_path), collect_share=0.0)).test_client()
    pages = [number(text) for text in ("12", "407", "38")]
    file = io.BytesIO()
    pages[0].save(file, "TIFF", save_all=True, append_images=pages[1:])

    def ask(path: str, request_id: str) -> Any:
        headers = {"X-Request-ID": request_id}
        return client.post(path, data=file.getvalue(), content_type="image/tiff", headers=headers)

    def say(request_id: str, said: Any) -> Any:
        return client.post("/corrections", json={"request_id": request_id, "digits": [said], "replace": True})

    readings = ask("/read?keep=1", "form").json
    assert [page["text"] for page in readings["readings"]] == ["12", "407", "38"]
    (picture,) = until(lambda: kept(tmp_path).get("form"))["pictures"]
    assert base64.b64decode(picture["picture"]) == file.getvalue()
    assert picture["answer"] == readings

    boxes = [[digit["box"] for digit in page["lines"][0]["digits"]] for page in readings["readings"]]
    second = {"page": 2, "text": "4 07", "boxes": boxes[1]}
    assert say("form", [second, {"page": 3, "text": "38", "boxes": boxes[2]}]).json["pictures"] == 1
    (correction,) = kept(tmp_path, "corrected").values()
    assert correction["digits"] == [[second, {"page": 3, "text": "38", "boxes": boxes[2]}]]
    # what names no page, or one that the file does not have
    for said in ({"text": "407", "boxes": boxes[1]}, [second | {"page": 4}]):
        refused = say("form", said)
        assert (refused.status_code, refused.json["field"]) == (422, "digits")
        assert "3 pages" in refused.json["detail"]

    # POST /predict takes a page of the file, and says which
    answer = ask("/predict?keep=1", "one").json
    (picture,) = until(lambda: kept(tmp_path).get("one"))["pictures"]
    assert picture["answer"] == answer
    assert say("one", {"text": "407", "boxes": boxes[1]}).status_code == 422
    assert say("one", [second]).status_code == 200
    assert say("one", 4).status_code == 200


def test_of_several_images_those_with_null_are_not_corrected(collecting: Server) -> None:
    collecting.ask("/predict", {"images": [SAMPLE["image"]] * 3}, X_Request_ID="three")
    wrong = correct(collecting, "three", 1)
    assert (wrong.status, wrong.json["found"]) == (422, "1 items")
    assert correct(collecting, "three", None, {"text": "1", "boxes": [[0, 0, 9, 9]]}, None).status == 422
    assert correct(collecting, "three", None, 4, None).json["pictures"] == 1


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"request_id": "never-asked", "digits": [1]}, 404, "request_id"),
        ([], 422, ""),
        ({"digits": [1]}, 422, "request_id"),
        ({"request_id": "../../etc", "digits": [1]}, 422, "request_id"),
        ({"request_id": "x", "digits": 1}, 422, "digits"),
        ({"request_id": "x", "digits": []}, 422, "digits"),
        ({"request_id": "x", "digits": [None]}, 422, "digits"),
        ({"request_id": "x", "digits": [10]}, 422, "digits[0]"),
        ({"request_id": "x", "digits": [True]}, 422, "digits[0]"),
        ({"request_id": "x", "digits": [1.0]}, 422, "digits[0]"),
        ({"request_id": "x", "digits": ["7"]}, 422, "digits[0]"),
        ({"request_id": "x", "digits": [{"text": "7"}]}, 422, "digits[0]"),
        ({"request_id": "x", "digits": [{"text": "7a", "boxes": [[0, 0, 1, 1]]}]}, 422, "digits[0].text"),
        ({"request_id": "x", "digits": [{"text": "", "boxes": []}]}, 422, "digits[0].text"),
        ({"request_id": "x", "digits": [{"text": "77", "boxes": [[0, 0, 1, 1]]}]}, 422, "digits[0].boxes"),
        (
            {"request_id": "x", "digits": [{"text": "7", "boxes": [[0, 0, 1]]}]},
            422,
            "digits[0].boxes[0]",
        ),
        (
            {"request_id": "x", "digits": [{"text": "7", "boxes": [[0, -1, 1, 1]]}]},
            422,
            "digits[0].boxes[0]",
        ),
        (
            {"request_id": "x", "digits": [{"text": "7", "boxes": [[0, 0, 0, 1]]}]},
            422,
            "digits[0].boxes[0]",
        ),
        ({"request_id": "x", "digits": [[]]}, 422, "digits[0]"),
        ({"request_id": "x", "digits": [[7]]}, 422, "digits[0][0]"),
        ({"request_id": "x", "digits": [[{"text": "7", "boxes": [[0, 0, 1, 1]]}]]}, 422, "digits[0][0]"),
        ({"request_id": "x", "digits": [[PAGE | {"page": 0}]]}, 422, "digits[0][0]"),
        ({"request_id": "x", "digits": [[PAGE | {"page": True}]]}, 422, "digits[0][0]"),
        ({"request_id": "x", "digits": [[PAGE, PAGE]]}, 422, "digits[0]"),
        ({"request_id": "x", "digits": [[PAGE, PAGE | {"page": 2, "text": ""}]]}, 422, "digits[0][1].text"),
        ({"request_id": "x", "digits": [1], "replace": 1}, 422, "replace"),
        ({"request_id": "x", "digits": [1], "also": 1}, 422, None),
        ({"request_id": "x", "digits": [1] * 1025}, 413, "images"),
    ],
)
def test_other_corrections_are_refused(collecting: Server, body: Any, status: int, field: str | None) -> None:
    answer = collecting.ask("/corrections", body)
    assert (answer.status, answer.json.get("field")) == (status, field)


def test_other_types_and_broken_json_are_refused(collecting: Server) -> None:
    assert collecting.ask("/corrections", b"{", Content_Type="application/json").status == 400
    assert collecting.ask("/corrections", SEVEN, Content_Type="image/png").status == 415


def test_what_is_kept_and_corrected_is_counted_and_logged(collecting: Server) -> None:
    def counted(name: str) -> float:
        return samples(collecting.ask("/metrics").body.decode())[name]

    before = counted("digits_collected_total"), counted("digits_corrected_total")
    collecting.ask("/predict", SAMPLE, X_Request_ID="counted")
    assert correct(collecting, "counted", 2).status == 200
    assert (counted("digits_collected_total"), counted("digits_corrected_total")) == (
        before[0] + 1,
        before[1] + 1,
    )
    assert counted('digits_collect_dropped_total{where="queue"}') == 0
    logged = [line for line in collecting.log() if line["message"] == "corrected"]
    assert logged[-1]["request_id"] == "counted"


def test_where_keys_are_required_a_correction_needs_one() -> None:
    settings = Settings(api_keys="sha256:" + "0" * 64)
    client = create_app(settings).test_client()
    assert client.post("/corrections", json={}).status_code == 401


def test_a_service_that_does_not_collect_keeps_nothing(client: Any) -> None:
    answer = client.post("/corrections", json={"request_id": "x", "digits": [1]})
    assert answer.status_code == 404
    assert "DIGITS_COLLECT" in answer.json["detail"]


def test_unsure_answers_are_kept_and_a_share_of_the_others(tmp_path: Path) -> None:
    client = create_app(Settings(collect=str(tmp_path), collect_share=0.0)).test_client()
    for i in range(10):
        assert client.post("/predict", json=SAMPLE, headers={"X-Request-ID": f"sure-{i}"}).status_code == 200
    both = {"images": [SAMPLE["image"], NOISE["image"]]}
    answers = client.post("/predict", json=both, headers={"X-Request-ID": "both"}).json["predictions"]
    assert [answer["unsure"] for answer in answers] == [False, True]
    until(lambda: "both" in kept(tmp_path))
    assert kept(tmp_path).keys() == {"both"}
    assert [picture["index"] for picture in kept(tmp_path)["both"]["pictures"]] == [1]


def test_a_client_can_ask_to_keep_an_answer(tmp_path: Path) -> None:
    client = create_app(Settings(collect=str(tmp_path), collect_share=0.0)).test_client()
    number = {"image": base64.b64encode(NUMBER).decode()}
    for path, body in (("/predict", SAMPLE), ("/read", number)):
        for keep in ("0", "1"):
            headers = {"X-Request-ID": f"{path[1:]}-{keep}"}
            assert client.post(f"{path}?keep={keep}", json=body, headers=headers).status_code == 200
        assert client.post(f"{path}?keep=yes", json=body).status_code == 422
    until(lambda: len(kept(tmp_path)) == 2)
    assert kept(tmp_path).keys() == {"predict-1", "read-1"}


def test_the_summary_says_whether_the_service_collects(client: Any, tmp_path: Path) -> None:
    assert client.get("/").json["collects"] is False
    assert create_app(Settings(collect=str(tmp_path))).test_client().get("/").json["collects"] is True


def test_a_store_that_fails_costs_no_answer_and_is_counted_and_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    app = create_app(Settings(collect=str(tmp_path / "file"), collect_share=1.0))
    metrics = app.extensions["digits"].metrics
    client = app.test_client()
    assert client.post("/predict", json=SAMPLE).status_code == 200
    until(lambda: metrics.not_collected["store"]._value.get() == 1)
    answer = client.post("/corrections", json={"request_id": "x", "digits": [1]})
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "10")
    assert {"not collected", "correction not kept"} <= {record.message for record in caplog.records}


def test_an_address_of_an_unknown_kind_costs_no_answer(tmp_path: Path) -> None:
    app = create_app(Settings(collect="nowhere://bucket", collect_share=1.0))
    metrics = app.extensions["digits"].metrics
    assert app.test_client().post("/predict", json=SAMPLE).status_code == 200
    until(lambda: metrics.not_collected["store"]._value.get() == 1)


def test_while_the_store_hangs_answers_go_on_and_what_has_no_room_is_dropped(
    start: Callable[..., Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = create_app(Settings(collect=str(tmp_path), collect_share=1.0))
    service = app.extensions["digits"]
    collector, metrics = service.collector, service.metrics
    pid = until(lambda: collector.pid)
    os.kill(pid, signal.SIGSTOP)
    monkeypatch.setattr(collect, "MOST_CALLS", 5)
    monkeypatch.setattr(collect, "STORE_SECONDS", 0.1)
    client = app.test_client()
    try:
        for i in range(collect.AT_ONCE + 10):
            headers = {"X-Request-ID": f"hung-{i}"}
            assert client.post("/predict", json=SAMPLE, headers=headers).status_code == 200
        assert metrics.not_collected["queue"]._value.get() > 0
        answer = client.post("/corrections", json={"request_id": "hung-0", "digits": [1]})
        assert answer.status_code == 503
    finally:
        os.kill(pid, signal.SIGCONT)
    until(lambda: not collector.held)
    # and then it goes on
    monkeypatch.setattr(collect, "STORE_SECONDS", 10)
    assert client.post("/corrections", json={"request_id": "hung-0", "digits": [1]}).status_code == 200


def test_a_store_that_hangs_ends_after_the_service(start: Callable[..., Server], tmp_path: Path) -> None:
    server = start(DIGITS_COLLECT=str(tmp_path), DIGITS_COLLECT_SHARE="1", WEB_CONCURRENCY="1")
    day = tmp_path / "collected" / datetime.now(UTC).strftime("%Y-%m-%d")
    day.mkdir(parents=True)
    # opening it takes until someone writes to it
    os.mkfifo(day / "hangs.json")
    children = psutil.Process(server.process.pid).children(recursive=True)
    (process,) = [child for child in children if "digits.web.store" in child.cmdline()]
    answer = correct(server, "hangs", 1)
    assert (answer.status, answer.headers["retry-after"]) == (503, "10")
    assert server.ask("/predict", SAMPLE).status == 200
    server.stop()
    assert process.is_running()
    process.wait(20)


def test_a_store_process_that_was_killed_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collect, "RESTART_SECONDS", 0.05)
    app = create_app(Settings(collect=str(tmp_path), collect_share=1.0))
    collector = app.extensions["digits"].collector
    os.kill(until(lambda: collector.pid), signal.SIGKILL)
    client = app.test_client()

    def ask() -> bool:
        client.post("/predict", json=SAMPLE, headers={"X-Request-ID": "again"})
        return "again" in kept(tmp_path)

    until(ask)


def document(request_id: str, days_ago: int = 0, size: int = 100) -> dict[str, Any]:
    now = datetime.now(UTC) - timedelta(days=days_ago)
    pixels = base64.b64encode(bytes(size)).decode()
    picture = {"index": 0, "answer": {}, "pixels": pixels}
    return {"request_id": request_id, "time": now.isoformat(), "images": 1, "pictures": [picture]}


def say(store: Store, request_id: str, digit: int = 3, replace: bool = False) -> int:
    return store.correct(request_id, [digit], replace, datetime.now(UTC).isoformat())["status"]


@pytest.fixture(params=["folder", "objects"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of an empty store: a folder, or fsspec's store of objects in memory."""
    if request.param == "folder":
        yield str(tmp_path)
        return
    from fsspec.implementations.memory import MemoryFileSystem

    MemoryFileSystem.store.clear()
    yield "memory://bucket/digits"
    MemoryFileSystem.store.clear()


def test_what_is_too_old_is_removed_unless_it_is_corrected(address: str) -> None:
    store = Store(address, 1 << 20, 30)
    for days in (0, 29, 31, 32):
        store.keep(document(f"days-{days}", days))
    assert say(store, "days-32") == 200
    store.sweep()
    assert [say(store, f"days-{days}") for days in (0, 29, 31, 32)] == [200, 200, 404, 200]


def test_above_the_limit_the_oldest_are_removed_and_corrections_never(address: str) -> None:
    store = Store(address, 10_000, 30)
    for i in range(60):
        store.keep(document(f"document-{i}"))
        if i < 5:
            assert say(store, f"document-{i}") == 200
    total = sum(size for kind in ("collected", "corrected") for _, size, _ in store._files(kind))
    assert total <= 10_000
    assert say(store, "document-59") == 200
    assert say(store, "document-5") == 404
    assert all(say(store, f"document-{i}") == 200 for i in range(5))


def test_a_store_full_of_corrections_takes_no_more(address: str) -> None:
    store = Store(address, 1500, 30)
    for i in range(3):
        store.keep(document(f"document-{i}"))
        assert say(store, f"document-{i}") == 200
    with pytest.raises(OSError, match="full of corrections"):
        store.keep(document("another", size=500))


def test_on_a_full_disk_nothing_half_is_left_and_later_it_goes_on(tmp_path: Path) -> None:
    store = Store(str(tmp_path), 1 << 20, 30)
    store.keep(document("before"))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # writing more than this raises OSError, as it does on a full disk
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            store.keep(document("full"))
        with pytest.raises(OSError, match="File too large"):
            say(store, "before")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["before.json"]
    assert say(store, "before") == 200


def test_a_correction_that_was_cut_off_is_finished_by_the_next_one(address: str) -> None:
    store = Store(address, 1 << 20, 30)
    known = document("cut-off")
    store.keep(known)
    assert say(store, "cut-off", 3) == 200
    # as if the process had been killed before it removed what was collected
    store.keep(known)
    assert say(store, "cut-off", 4) == 409
    assert say(store, "cut-off", 3) == 200
    assert not store._files("collected")


def test_of_two_processes_that_correct_at_once_one_is_refused(address: str) -> None:
    first, second = Store(address, 1 << 20, 30), Store(address, 1 << 20, 30)
    first.keep(document("both"))
    known = second._find("collected", "both")
    assert say(first, "both", 3) == 200
    # as if the second had looked before the first wrote
    found = second._find
    second._find = lambda kind, request_id: known if kind == "collected" else None  # type: ignore[method-assign]
    assert say(second, "both", 4) == 409
    second._find = found  # type: ignore[method-assign]
    assert say(second, "both", 3) == 200


def test_an_id_that_is_used_again_does_not_mix_two_pictures(address: str) -> None:
    store = Store(address, 1 << 20, 30)
    store.keep(document("same"))
    assert say(store, "same", 3) == 200
    store.keep(document("same", size=200))
    assert say(store, "same", 3) == 409
    assert say(store, "same", 3, replace=True) == 200
    corrected = store._find("corrected", "same")
    assert corrected
    assert len(base64.b64decode(corrected["pictures"][0]["pixels"])) == 200


def test_files_left_by_a_killed_process_are_no_documents_and_are_removed_later(tmp_path: Path) -> None:
    store = Store(str(tmp_path), 1 << 20, 30)
    store.keep(document("whole"))
    (day,) = (tmp_path / "collected").iterdir()
    left = day / "part.json.1.tmp"
    left.write_text('{"half": ')
    store.sweep()
    assert left.exists()
    os.utime(left, (0, 0))
    store.sweep()
    assert not left.exists()
    assert kept(tmp_path).keys() == {"whole"}


def test_corrections_wait_in_line_and_too_many_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = create_app(Settings(collect=str(tmp_path), max_wait_ms=1))
    collector = app.extensions["digits"].collector
    for _ in range(collect.CORRECTIONS_AT_ONCE):
        assert collector.corrections.acquire(timeout=1)
    with pytest.raises(Problem) as refused:
        collector.correct("x", [1], False)
    assert refused.value.status == 503


@pytest.mark.e2e
@pytest.mark.parametrize("victims", ["store", "worker", "master"])
def test_killed_at_any_moment_no_document_is_half_and_no_acknowledged_correction_is_lost(
    start: Callable[..., Server], tmp_path: Path, victims: str
) -> None:
    server = start(DIGITS_COLLECT=str(tmp_path), DIGITS_COLLECT_SHARE="1")
    acknowledged: dict[str, int] = {}
    rng = np.random.default_rng(5)
    stop = threading.Event()

    def ask(number: int) -> None:
        count = 0
        while not stop.is_set():
            name, digit = f"{number}-{count}", count % 10
            count += 1
            try:
                server.ask("/predict", SAMPLE, X_Request_ID=name)
                if correct(server, name, digit).status == 200:
                    acknowledged[name] = digit
            except OSError:
                continue

    clients = [threading.Thread(target=ask, args=[number]) for number in range(4)]
    for client in clients:
        client.start()
    master = psutil.Process(server.process.pid)
    try:
        for _ in range(5):
            there = len(acknowledged)
            until(lambda there=there: len(acknowledged) > there + 20)
            time.sleep(rng.uniform(0, 0.02))
            if victims == "master":
                break
            workers = {child.pid for child in master.children()}
            stores = [
                child.pid
                for child in master.children(recursive=True)
                if "digits.web.store" in child.cmdline()
            ]
            for pid in stores if victims == "store" else workers:
                os.kill(pid, signal.SIGKILL)
        if victims == "master":
            for process in [*master.children(recursive=True), master]:
                process.kill()
    finally:
        stop.set()
        for client in clients:
            client.join()
    assert len(acknowledged) > 20
    # reading fails for a half item
    corrected = kept(tmp_path, "corrected")
    assert {name: corrected[name]["digits"] for name in acknowledged} == {
        name: [digit] for name, digit in acknowledged.items()
    }
    kept(tmp_path)
