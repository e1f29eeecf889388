"""The Open Inference Protocol V2 with the real service, with Triton's client and with plain requests."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from project import SAMPLE
from service import Server

UINT8 = np.array(SAMPLE["image"], np.uint8)
FP32 = UINT8.astype(np.float32) / 255
MODEL = "/v2/models/mnist"


def tensor(data: Any, shape: list[int], datatype: str = "UINT8", **more: Any) -> dict[str, Any]:
    return {"inputs": [{"name": "image", "shape": shape, "datatype": datatype, "data": data}]} | more


@pytest.fixture(scope="module")
def triton(server: Server) -> Any:
    """tritonclient, unmodified."""
    http = pytest.importorskip("tritonclient.http")
    with http.InferenceServerClient(server.url.removeprefix("http://")) as client:
        yield client


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
@pytest.mark.parametrize("pixels", [UINT8, FP32], ids=["UINT8", "FP32"])
def test_tritonclient_infers(
    triton: Any, server: Server, pixels: np.ndarray, binary_in: bool, binary_out: bool
) -> None:
    from tritonclient.http import InferInput, InferRequestedOutput

    batch = np.stack([pixels, pixels[::-1], pixels])[..., None]
    given = InferInput("image", list(batch.shape), "UINT8" if pixels is UINT8 else "FP32")
    given.set_data_from_numpy(batch, binary_data=binary_in)
    outputs = [
        InferRequestedOutput("digit", binary_data=binary_out),
        InferRequestedOutput("probabilities", binary_data=binary_out),
    ]
    result = triton.infer("mnist", [given], outputs=outputs, request_id="r-1")
    probabilities = result.as_numpy("probabilities")
    assert probabilities.shape == (3, 10)
    assert probabilities.dtype == np.float32
    assert probabilities.sum(1) == pytest.approx([1, 1, 1], abs=1e-4)
    assert result.as_numpy("digit").tolist() == probabilities.argmax(1).tolist()
    assert result.as_numpy("digit")[[0, 2]].tolist() == [7, 7]
    expected = server.ask("/predict", SAMPLE).json["predicted_probability"]
    assert probabilities[0].max() == pytest.approx(expected, abs=2e-6)
    assert result.get_response()["id"] == "r-1"


@pytest.mark.parametrize(("sure", "unsure"), [("0", False), ("1", True)])
def test_tritonclient_gets_unsure_if_it_requests_it(
    start: Callable[..., Server], sure: str, unsure: bool
) -> None:
    http = pytest.importorskip("tritonclient.http")
    server = start(DIGITS_SURE=sure, WEB_CONCURRENCY="1")
    given = http.InferInput("image", [3, 28, 28], "FP32")
    given.set_data_from_numpy(np.stack([FP32] * 3))
    for binary_out in (True, False):
        outputs = [http.InferRequestedOutput(name, binary_data=binary_out) for name in ("unsure", "digit")]
        with http.InferenceServerClient(server.url.removeprefix("http://")) as client:
            result = client.infer("mnist", [given], outputs=outputs)
        assert result.as_numpy("unsure").dtype == np.bool_
        assert result.as_numpy("unsure").tolist() == [unsure] * 3
        assert result.as_numpy("digit").tolist() == [7] * 3


def test_unsure_is_one_byte_per_image_in_binary_format(server: Server) -> None:
    outputs = [{"name": "unsure", "parameters": {"binary_data": True}}]
    body = tensor(np.stack([UINT8] * 3).tolist(), [3, 28, 28], outputs=outputs)
    answer = server.ask(f"{MODEL}/infer", body)
    length = int(answer.headers["inference-header-content-length"])
    (output,) = json.loads(answer.body[:length])["outputs"]
    assert output == {
        "name": "unsure",
        "datatype": "BOOL",
        "shape": [3],
        "parameters": {"binary_data_size": 3},
    }
    assert answer.body[length:] == bytes(3)


def test_tritonclient_gets_digits_and_probabilities_if_it_names_none(triton: Any) -> None:
    from tritonclient.http import InferInput

    given = InferInput("image", [1, 28, 28], "FP32")
    given.set_data_from_numpy(FP32[None])
    result = triton.infer("mnist", [given])
    assert result.as_numpy("digit").tolist() == [7]
    assert result.as_numpy("probabilities").argmax() == 7
    assert [output["name"] for output in result.get_response()["outputs"]] == ["probabilities", "digit"]


def test_tritonclient_gets_health_and_metadata(triton: Any) -> None:
    assert triton.is_server_live()
    assert triton.is_server_ready()
    assert triton.is_model_ready("mnist")
    assert not triton.is_model_ready("other")
    assert "binary_tensor_data" in triton.get_server_metadata()["extensions"]
    metadata = triton.get_model_metadata("mnist")
    assert triton.get_model_metadata("mnist", metadata["versions"][0]) == metadata
    assert metadata["inputs"] == [{"name": "image", "datatype": "FP32", "shape": [-1, 28, 28, 1]}]
    assert [output["name"] for output in metadata["outputs"]] == ["probabilities", "digit"]


def test_tritonclient_understands_an_error(triton: Any) -> None:
    from tritonclient.http import InferInput
    from tritonclient.utils import InferenceServerException

    given = InferInput("image", [1, 27, 28], "UINT8")
    given.set_data_from_numpy(UINT8[None, :27])
    with pytest.raises(InferenceServerException, match=r"shape \[1, 27, 28\]"):
        triton.infer("mnist", [given])


@pytest.mark.parametrize(
    ("data", "shape", "datatype"),
    [
        (UINT8.tolist(), [1, 28, 28, 1], "UINT8"),
        (UINT8.reshape(-1).tolist(), [1, 28, 28, 1], "UINT8"),
        ([UINT8.tolist()], [1, 28, 28], "UINT8"),
        (UINT8.reshape(-1).tolist(), [1, 784], "UINT8"),
        (FP32.tolist(), [1, 28, 28], "FP32"),
        (FP32.reshape(-1).tolist(), [1, 784], "FP32"),
    ],
)
def test_data_is_nested_or_flat(server: Server, data: Any, shape: list[int], datatype: str) -> None:
    answer = server.ask(f"{MODEL}/infer", tensor(data, shape, datatype, id="a/b é"))
    assert answer.status == 200
    assert answer.json["id"] == "a/b é"
    assert answer.json["model_name"] == "mnist"
    assert answer.json["model_version"] == answer.headers["x-model-version"]
    probabilities, digit = answer.json["outputs"]
    assert (digit["name"], digit["datatype"], digit["shape"], digit["data"]) == ("digit", "INT64", [1], [7])
    assert (probabilities["name"], probabilities["shape"]) == ("probabilities", [1, 10])
    assert len(probabilities["data"]) == 10


def test_the_answer_has_no_id_if_the_request_has_none(server: Server) -> None:
    assert "id" not in server.ask(f"{MODEL}/infer", tensor(UINT8.tolist(), [1, 28, 28])).json


def test_only_requested_outputs_are_sent_and_in_their_order(server: Server) -> None:
    def names(*asked: str) -> list[str]:
        body = tensor(UINT8.tolist(), [1, 28, 28], outputs=[{"name": name} for name in asked])
        return [output["name"] for output in server.ask(f"{MODEL}/infer", body).json["outputs"]]

    assert names("digit") == ["digit"]
    assert names("digit", "probabilities") == ["digit", "probabilities"]
    assert names("unsure", "digit") == ["unsure", "digit"]


def test_versions_are_checked(server: Server) -> None:
    version = server.ask(MODEL).json["versions"][0]
    body = tensor(UINT8.tolist(), [1, 28, 28])
    for path, sent in (("", None), ("/ready", None), ("/infer", body)):
        assert (
            server.ask(f"{MODEL}/versions/{version}{path}", sent).json == server.ask(MODEL + path, sent).json
        )
        assert server.ask(f"{MODEL}/versions/1{path}", sent).status == 404


def test_readiness_is_reported(client: Any) -> None:
    assert client.get("/v2/health/ready").json == {"ready": True}
    assert client.get(f"{MODEL}/ready").json == {"name": "mnist", "ready": True}
    assert client.get("/v2/health/live").status_code == 200


GOOD = tensor(UINT8.tolist(), [1, 28, 28])


def changed(**changes: Any) -> dict[str, Any]:
    """GOOD with changes to its tensor; None removes a member."""
    return {"inputs": [{k: v for k, v in (GOOD["inputs"][0] | changes).items() if v is not None}]}


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"{", "JSON"),
        (b"", "JSON"),
        ([], "object"),
        ({}, "inputs"),
        ({"inputs": []}, "one tensor"),
        ({"inputs": GOOD["inputs"] * 2}, "one tensor"),
        (changed(name="x"), "whose name is image"),
        (changed(datatype="BYTES"), "datatype"),
        (changed(datatype=[]), "datatype"),
        (changed(datatype="FP32"), "outside 0 to 1"),
        (changed(shape=[1, 28, 27]), "do not fit"),
        (changed(shape=[28, 28, 1]), "shape"),
        (changed(shape=[0, 28, 28], data=[]), "empty"),
        (changed(shape=[1, -28, 28]), "whole numbers"),
        (changed(shape=[1, 28.0, 28]), "whole numbers"),
        (changed(shape=None), "whole numbers"),
        (changed(data=None), "data or binary_data_size"),
        (changed(data=[[1], [2, 3]]), "unequal"),
        (changed(data=["1"] * 784), "numbers"),
        (changed(data=[True] * 784), "numbers"),
        (changed(data=[1] * 783 + [True]), "numbers"),
        (changed(data=[0.5] * 784), "whole numbers"),
        (changed(data=[256] * 784), "outside 0 to 255"),
        (changed(data=[-1] * 784), "outside 0 to 255"),
        (changed(parameters={"binary_data_size": 784}), "data or binary_data_size"),
        (changed(data=None, parameters={"binary_data_size": 784}), "there are 0"),
        (changed(parameters={"shared_memory_region": "x"}), "not supported"),
        (changed(parameters=5), "object"),
        (GOOD | {"id": 5}, "id"),
        (GOOD | {"id": "\ud800"}, "id"),
        (changed(name="\ud800"), "whose name is image"),
        (changed(data=[float("nan")] * 784, datatype="FP32"), "outside 0 to 1"),
        (GOOD | {"outputs": [{"name": "\ud800"}]}, "probabilities, digit, unsure"),
        (GOOD | {"outputs": 5}, "outputs"),
        (GOOD | {"outputs": [{"name": "x"}]}, "probabilities, digit, unsure"),
        (GOOD | {"outputs": [{"name": "digit"}] * 2}, "twice"),
        (GOOD | {"outputs": [{"name": "digit", "parameters": {"classification": 3}}]}, "not supported"),
        (GOOD | {"outputs": [{"name": "digit", "parameters": {"binary_data": 1}}]}, "true or false"),
        (GOOD | {"parameters": []}, "object"),
    ],
)
def test_a_bad_request_is_400_in_the_protocols_format(server: Server, body: Any, says: str) -> None:
    answer = server.ask(f"{MODEL}/infer", body)
    assert answer.status == 400
    assert answer.json.keys() == {"error"}
    assert says in answer.json["error"]


@pytest.mark.parametrize(
    ("length", "tail", "says"),
    [
        ("x", b"", "must be a number of bytes"),
        ("-1", b"", "must be a number of bytes"),
        ("999999", b"", "must be a number of bytes"),
        (None, bytes(783), "784 bytes after the JSON, but there are 783"),
        (None, bytes(785), "784 bytes after the JSON, but there are 785"),
    ],
)
def test_a_wrong_length_of_bytes_is_400(server: Server, length: str | None, tail: bytes, says: str) -> None:
    head = json.dumps(changed(data=None, parameters={"binary_data_size": 784})).encode()
    answer = server.ask(
        f"{MODEL}/infer", head + tail, Inference_Header_Content_Length=length or str(len(head))
    )
    assert answer.status == 400
    assert says in answer.json["error"]


def test_bytes_beyond_the_tensors_are_400(server: Server) -> None:
    head = json.dumps(GOOD).encode()
    answer = server.ask(f"{MODEL}/infer", head + b"x", Inference_Header_Content_Length=str(len(head)))
    assert answer.status == 400


def test_nan_in_bytes_is_400(server: Server) -> None:
    head = json.dumps(changed(data=None, datatype="FP32", parameters={"binary_data_size": 3136})).encode()
    for tail, status in ((FP32.tobytes(), 200), (np.full(784, np.nan, "<f4").tobytes(), 400)):
        answer = server.ask(f"{MODEL}/infer", head + tail, Inference_Header_Content_Length=str(len(head)))
        assert answer.status == status


def test_big_endian_bytes_are_named_as_such(server: Server) -> None:
    head = json.dumps(changed(data=None, datatype="FP32", parameters={"binary_data_size": 3136})).encode()
    for pixels in (FP32, (FP32 > 0.5).astype(np.float32)):
        tail = pixels.astype(">f4").tobytes()
        answer = server.ask(f"{MODEL}/infer", head + tail, Inference_Header_Content_Length=str(len(head)))
        assert answer.status == 400
        assert "its bytes must be little-endian" in answer.json["error"]


def test_other_errors_have_that_format_too(server: Server) -> None:
    for path, body, headers, status in [
        ("/v2/models/other", None, {}, 404),
        ("/v2/nothing", None, {}, 404),
        (f"{MODEL}/infer", None, {}, 405),
        (f"{MODEL}/infer", tensor([0] * 784 * 1025, [1025, 784]), {}, 413),
        (f"{MODEL}/infer", GOOD, {"Content_Encoding": "gzip"}, 415),
    ]:
        answer = server.ask(path, body, **headers)
        assert (answer.status, list(answer.json)) == (status, ["error"])
