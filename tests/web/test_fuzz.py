"""Replays the inputs that `make fuzz` (fuzz.py) has kept, in process and over sockets. None may get a 5xx."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

import corpus
from fuzz import Target, ask, costly_seeds, havoc_by, mutated, seeds
from service import Server

KEPT = corpus.read()


@pytest.fixture(scope="module")
def target() -> Iterator[Target]:
    target = Target()
    yield target
    target.close()


def test_every_seed_is_a_good_request(target: Target) -> None:
    statuses = {name: target.answer(raw) for name, raw in seeds().items()}
    # except for the version, which is not known in advance
    assert statuses.pop("get-v1-models-mnist-versions-1") == 404
    assert set(statuses.values()) == {200}, statuses


def test_every_costly_seed_is_answered_without_5xx(target: Target) -> None:
    statuses = [target.answer(raw) for raw in costly_seeds()]
    assert len(statuses) > 20
    assert 422 in statuses


def test_earlier_findings_are_answered_without_5xx(target: Target) -> None:
    assert len(KEPT) > 50
    for raw in KEPT.values():
        # this contains assertions
        target.answer(raw)


def test_earlier_findings_are_answered_without_5xx_over_sockets(server: Server) -> None:
    host, _, port = server.url.removeprefix("http://").rpartition(":")
    workers = set(server.children())
    good = seeds()["raw"]
    for number, (name, raw) in enumerate(KEPT.items()):
        statuses = ask((host, int(port)), raw, good if number % 2 else None)
        assert all(status < 500 for status in statuses), name
    # the second may have started meanwhile
    assert workers <= set(server.children())
    assert server.ask("/health/live").status == 200


def test_mutations_also_work_without_atheris(target: Target) -> None:
    rng, pool = random.Random(7), [*seeds().values(), *costly_seeds()]
    statuses = {
        target.answer(mutated(rng, rng.choice(pool), rng.choice(pool), havoc_by(rng))) for _ in range(500)
    }
    # some must pass gunicorn's parser, and some must be refused
    assert {0, 200, 400, 422} <= statuses


def test_a_server_error_is_detected(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(target.app.extensions["digits"].classifier, "probabilities", None)
    with pytest.raises(AssertionError, match="500"):
        target.answer(seeds()["raw"])


def test_the_archive_is_as_the_program_packs_it() -> None:
    assert corpus.packed(KEPT.values()) == corpus.ARCHIVE.read_bytes()


def test_a_request_is_added_once(tmp_path: Path) -> None:
    file, archive = tmp_path / "crash", tmp_path / "corpus.zip"
    file.write_bytes(b"GET / HTTP/1.1\r\n\r\n")
    archive.write_bytes(corpus.packed([b"other"]))
    for _ in range(2):
        corpus.add([file], archive)
        assert sorted(corpus.read(archive).values()) == sorted([b"other", file.read_bytes()])
