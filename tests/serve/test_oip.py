"""The Open Inference Protocol, asked by a client of somebody else's making and by bare requests."""

import gzip
import json
import random
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelinscale.core.errors import RequestError
from modelinscale.package import open_package
from modelinscale.serve._oip import Translator
from modelinscale.testing.packages import ROWS, write_package
from modelinscale.testing.servers import Running

triton = pytest.importorskip("tritonclient.http")

FULL = [ROWS[0], ROWS[1], ROWS[3]]
TENSORS: dict[str, tuple[str, Any]] = {
    "amount": ("FP64", np.array([r["amount"] for r in FULL])),
    "count": ("INT64", np.array([r["count"] for r in FULL])),
    "paid": ("BOOL", np.array([r["paid"] for r in FULL])),
    "city": ("BYTES", np.array([r["city"].encode() for r in FULL], object)),
    "at": ("BYTES", np.array([r["at"].encode() for r in FULL], object)),
    "place": ("FP32", np.array([r["place"] for r in FULL], np.float32)),
}


def tensor(name: str, data: Any, datatype: str = "FP64", shape: Any = None, **parameters: Any) -> dict[str, Any]:
    return {"name": name, "shape": shape or [len(data)], "datatype": datatype, "data": data, **({"parameters": parameters} if parameters else {})}


@pytest.mark.parametrize("name", ["binary", "multiclass", "regression"])
@pytest.mark.parametrize("binary_in", [False, True])
@pytest.mark.parametrize("binary_out", [False, True])
@pytest.mark.parametrize("packed", [None, "gzip", "deflate"])
def test_tritons_client_gets_the_answers_of_the_package(
    server: Running, packages: dict[str, Path], name: str, binary_in: bool, binary_out: bool, packed: str | None
) -> None:
    expected = open_package(packages[name]).predict(FULL)
    with triton.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
        inputs = []
        for column, (datatype, values) in TENSORS.items():
            one = triton.InferInput(column, list(values.shape), datatype)
            one.set_data_from_numpy(values, binary_data=binary_in)
            inputs.append(one)
        wanted = ["prediction"] if name == "regression" else ["prediction", "probabilities"]
        outputs = [triton.InferRequestedOutput(o, binary_data=binary_out) for o in wanted]
        result = client.infer(name, inputs, outputs=outputs, request_id="7", request_compression_algorithm=packed, response_compression_algorithm=packed)
        assert result.get_response()["id"] == "7"
        assert result.get_response()["model_version"] == "3"
        found = result.as_numpy("prediction").tolist()
        if name == "regression":
            assert found == [e["prediction"] for e in expected]
            return
        assert [f.decode() if isinstance(f, bytes) else f for f in found] == [e["prediction"] for e in expected]
        assert result.as_numpy("probabilities").tolist() == [list(e["probabilities"].values()) for e in expected]


def test_tritons_client_reads_health_and_metadata(server: Running) -> None:
    with triton.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("binary")
        assert client.is_model_ready("binary", "3")
        assert not client.is_model_ready("binary", "4")
        assert not client.is_model_ready("nobody")
        assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
        about = client.get_model_metadata("multiclass")
        assert about["versions"] == ["3"]
        assert [(i["name"], i["datatype"], i["shape"]) for i in about["inputs"]] == [
            ("amount", "FP64", [-1]),
            ("count", "INT64", [-1]),
            ("paid", "BOOL", [-1]),
            ("city", "BYTES", [-1]),
            ("at", "BYTES", [-1]),
            ("place", "FP32", [-1, 2]),
        ]
        assert [(o["name"], o["datatype"], o["shape"]) for o in about["outputs"]] == [("prediction", "BYTES", [-1]), ("probabilities", "FP32", [-1, 3])]
        with pytest.raises(triton.InferenceServerException if hasattr(triton, "InferenceServerException") else Exception, match="no model 'nobody'"):
            client.get_model_metadata("nobody")


def ask(server: Running, *inputs: dict[str, Any], model: str = "binary", **more: Any) -> Any:
    return server.post(f"/v2/models/{model}/infer", {"inputs": list(inputs), **more})


def answer(server: Running, *inputs: dict[str, Any], **more: Any) -> list[float]:
    reply = ask(server, *inputs, **more)
    assert reply.status_code == 200, reply.text
    return [row[1] for row in np.array(reply.json()["outputs"][-1]["data"]).reshape(-1, 2).tolist()]


def by_rows(server: Running, *rows: dict[str, Any]) -> list[float]:
    return [p["probabilities"]["true"] for p in server.post("/predict", {"rows": list(rows)}).json()["predictions"]]


@pytest.mark.parametrize(
    ("one", "rows"),
    [
        (tensor("amount", [1.5, None, 3]), [{"amount": 1.5}, {}, {"amount": 3}]),
        (tensor("amount", [1.5, 2.5], shape=[2, 1]), [{"amount": 1.5}, {"amount": 2.5}]),
        (tensor("amount", [[1.5], [2.5]], shape=[2, 1]), [{"amount": 1.5}, {"amount": 2.5}]),
        (tensor("amount", [1.5], "FP32"), [{"amount": 1.5}]),
        (tensor("amount", [1.5], "FP16"), [{"amount": 1.5}]),
        (tensor("amount", [7], "UINT8"), [{"amount": 7}]),
        (tensor("amount", ["7.5", None], "BYTES"), [{"amount": 7.5}, {}]),
        (tensor("count", [7, None], "INT32"), [{"count": 7}, {}]),
        (tensor("count", [7.0, None], "FP64"), [{"count": 7}, {}]),
        (tensor("count", [2**63 - 1], "INT64"), [{"count": 2**63 - 1}]),
        (tensor("paid", [True, None, False], "BOOL"), [{"paid": True}, {}, {"paid": False}]),
        (tensor("paid", [1, 0], "INT64"), [{"paid": True}, {"paid": False}]),
        (tensor("city", ["Paris", None, "", "Oslo"], "BYTES"), [{"city": "Paris"}, {}, {}, {}]),
        (tensor("city", [7], "INT64"), [{"city": 7}]),
        (tensor("at", ["2024-05-01T13:00:00", None], "BYTES"), [{"at": "2024-05-01T13:00:00"}, {}]),
        (tensor("place", [[1, 2], [3, 4]], "FP64", [2, 2]), [{"place": [1, 2]}, {"place": [3, 4]}]),
        (tensor("place", [1, 2, 3, 4], "INT8", [2, 2]), [{"place": [1, 2]}, {"place": [3, 4]}]),
        (tensor("place", [None, None, 3, 4], "FP64", [2, 2]), [{}, {"place": [3, 4]}]),
    ],
)
def test_an_element_means_what_the_same_cell_means_in_a_row(server: Running, one: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    assert answer(server, one) == by_rows(server, *rows)


def test_no_rows_give_outputs_of_no_rows(server: Running) -> None:
    reply = ask(server, tensor("amount", [], shape=[0]), model="multiclass").json()
    assert [(o["shape"], o["data"]) for o in reply["outputs"]] == [([0], []), ([0, 3], [])]


def test_outputs_come_as_asked(server: Running) -> None:
    one = tensor("amount", [1.0])
    reply = ask(server, one, outputs=[{"name": "probabilities"}]).json()
    assert [o["name"] for o in reply["outputs"]] == ["probabilities"]
    assert "id" not in reply
    mixed = ask(server, one, outputs=[{"name": "probabilities"}, {"name": "prediction", "parameters": {"binary_data": True}}], id="x")
    size = int(mixed.headers["inference-header-content-length"])
    head = json.loads(mixed.content[:size])
    assert head["id"] == "x"
    assert head["outputs"][1] == {"name": "prediction", "datatype": "BOOL", "shape": [1], "parameters": {"binary_data_size": 1}}
    assert mixed.content[size:] == b"\x01"
    every = ask(server, one, parameters={"binary_data_output": True})
    assert len(every.content) == int(every.headers["inference-header-content-length"]) + 1 + 8


def test_a_version_may_be_named(server: Running) -> None:
    body = {"inputs": [tensor("amount", [1.0])]}
    assert server.post("/v2/models/binary/versions/3/infer", body).status_code == 200
    wrong = server.post("/v2/models/binary/versions/4/infer", body)
    assert (wrong.status_code, wrong.json()) == (404, {"error": "model 'binary' is served in version 3, not '4'. Ask for version 3, or for none."})
    assert server.get("/v2/models/strict/versions/0123456789abcdef").status_code == 200


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([], "there are no inputs"),
        ([tensor("amuont", [1])], "no input 'amuont'. Did you mean 'amount'?"),
        ([tensor("amount", [1]), tensor("amount", [1])], "is there twice"),
        ([tensor("amount", [1]), tensor("count", [1, 2], "INT64")], "has 2 rows, the ones before it 1"),
        ([tensor("amount", [1], "FP65")], "datatype 'FP65'. Did you mean 'FP64'?"),
        ([tensor("amount", [1], shape=[-1])], "shape [-1], expected [N]"),
        ([tensor("amount", [1], shape=[1, 2])], "shape [1, 2], expected [N]"),
        ([tensor("amount", [1], shape=[1, 1, 1])], "shape [1, 1, 1], expected [N]"),
        ([{"name": "amount", "shape": [], "datatype": "FP64", "data": [1]}], "shape [], expected [N]"),
        ([tensor("amount", [1], shape=[3])], "has 1 elements, its shape [3] needs 3"),
        ([tensor("amount", [1], shape=[2**62])], "rows are more than the 2000"),
        ([tensor("amount", [1], shape=[2**80])], "rows are more than the 2000"),
        ([tensor("place", [1, None], "FP32", [1, 2])], "expected a list of 2"),
        ([tensor("place", [1, 2], "FP32", [2])], "shape [2], expected [N, 2]"),
        ([tensor("place", [1, 2, 3], "FP32", [1, 3])], "shape [1, 3], expected [N, 2]"),
        ([tensor("place", [[1], [2]], "FP32", [1, 2])], "do not nest as the shape [1, 2] says"),
        ([tensor("place", [[1, 2], 3], "FP32", [1, 2])], "do not nest"),
        ([tensor("place", [[[1, 2]]], "FP32", [1, 2])], "do not nest"),
        ([{"name": "amount", "shape": [1], "datatype": "FP64", "data": 1}], "must be a list"),
        ([{"name": "amount", "shape": [1], "datatype": "FP64"}], "has no data"),
        ([tensor("amount", ["1"])], "must hold numbers, found str"),
        ([tensor("amount", [True])], "must hold numbers, found bool"),
        ([tensor("amount", [1.5], "INT64")], "must hold whole numbers, found float"),
        ([tensor("amount", [300], "UINT8")], "a number that UINT8 cannot"),
        ([tensor("amount", [-1], "UINT64")], "a number that UINT64 cannot"),
        ([tensor("amount", [1e300], "FP32")], "a number that FP32 cannot"),
        ([tensor("amount", [70000], "FP16")], "a number that FP16 cannot"),
        ([tensor("paid", [1], "BOOL")], "must hold true or false, found int"),
        ([tensor("city", [1], "BYTES")], "must hold strings, found int"),
        ([tensor("count", [1.5])], "row 0: found 1.5, expected a whole number"),
        ([tensor("at", ["soon"], "BYTES")], 'row 0: found "soon", expected a moment'),
        ([tensor("amount", ["abc"], "BYTES")], 'found "abc", expected a number'),
        ([tensor("amount", [1], shared_memory_region="x")], "shared memory is not supported"),
        ([tensor("amount", [1], binary_data_size=8)], "both `data` and `binary_data_size`"),
        ([{"name": "amount", "shape": [1], "datatype": "FP64", "parameters": {"binary_data_size": 8}}], "binary_data_size 8 is not there; 0 bytes are left"),
        ([{"name": "amount", "shape": ["1"], "datatype": "FP64", "data": [1]}], "Expected `int`, got `str`"),
        ([{"shape": [1], "datatype": "FP64", "data": [1]}], "missing required field `name`"),
    ],
)
def test_inputs_that_are_wrong_are_told_in_the_protocols_way(server: Running, inputs: list[dict[str, Any]], message: str) -> None:
    reply = ask(server, *inputs)
    assert reply.status_code in (400, 413), reply.text
    assert reply.json().keys() == {"error"}
    assert message in reply.json()["error"]
    assert server.healthy()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"outputs": [{"name": "nothing"}]}, "no output 'nothing'"),
        ({"outputs": [{"name": "prediction"}, {"name": "prediction"}]}, "asked for twice"),
        ({"outputs": [{"name": "prediction", "parameters": {"classification": 3}}]}, "classification extension"),
        ({"outputs": [{"name": "prediction", "parameters": {"binary_data": 3}}]}, "expected true or false"),
        ({"outputs": [{"name": "prediction", "parameters": {"shared_memory_region": "x"}}]}, "shared memory"),
        ({"parameters": {"binary_data_output": "yes"}}, "expected true or false"),
        ({"id": 7}, "Expected `str | null`, got `int`"),
    ],
)
def test_what_is_asked_for_wrongly_is_told(server: Running, more: dict[str, Any], message: str) -> None:
    reply = ask(server, tensor("amount", [1]), **more)
    assert reply.status_code == 400
    assert message in reply.json()["error"]


def send_binary(server: Running, head: Any, tail: bytes, size: Any = None, model: str = "binary") -> Any:
    text = json.dumps(head).encode() if head is not None else b""
    headers = {"content-type": "application/octet-stream", "inference-header-content-length": str(len(text) if size is None else size)}
    return server.post(f"/v2/models/{model}/infer", text + tail, **headers)


def described(name: str, datatype: str, shape: list[int], n_bytes: Any) -> dict[str, Any]:
    return {"inputs": [{"name": name, "shape": shape, "datatype": datatype, "parameters": {"binary_data_size": n_bytes}}]}


@pytest.mark.parametrize(
    ("head", "tail", "message"),
    [
        (described("amount", "FP64", [1], 8), b"1234567", "binary_data_size 8 is not there; 7 bytes are left"),
        (described("amount", "FP64", [1], 8), b"123456789", "1 bytes at the end belong to no input"),
        (described("amount", "FP64", [2], 8), b"12345678", "has 8 bytes, its shape [2] of FP64 needs 16"),
        (described("amount", "FP64", [1], -8), b"", "binary_data_size -8"),
        (described("amount", "FP64", [1], "8"), b"12345678", "binary_data_size '8'"),
        (described("amount", "FP64", [1], True), b"1", "binary_data_size True"),
        (described("city", "BYTES", [1], 5), struct.pack("<I", 2) + b"a", "does not hold 1 elements of BYTES"),
        (described("city", "BYTES", [1], 4), struct.pack("<I", 2**32 - 1), "does not hold 1 elements"),
        (described("city", "BYTES", [2], 5), struct.pack("<I", 1) + b"a", "does not hold 2 elements"),
        (described("city", "BYTES", [1], 10), (struct.pack("<I", 1) + b"a") * 2, "does not hold 1 elements"),
        (described("city", "BYTES", [1], 3), b"abc", "does not hold 1 elements"),
        (described("city", "BYTES", [1], 5), struct.pack("<I", 1) + b"\xff", "not UTF-8"),
    ],
)
def test_binary_data_that_does_not_fit_is_told(server: Running, head: Any, tail: bytes, message: str) -> None:
    reply = send_binary(server, head, tail)
    assert reply.status_code == 400
    assert message in reply.json()["error"]


@pytest.mark.parametrize("size", ["x", "-1", "99999", "", "1e3", "9" * 40])
def test_a_header_length_that_does_not_fit_is_told(server: Running, size: str) -> None:
    reply = send_binary(server, described("amount", "FP64", [1], 8), b"12345678", size)
    assert reply.status_code == 400
    assert "Inference-Header-Content-Length" in reply.json()["error"]


def test_missing_values_in_binary_are_nan_and_empty_text(server: Running) -> None:
    found = send_binary(server, described("amount", "FP64", [2], 16), np.array([1.5, np.nan]).tobytes())
    assert found.json()["outputs"][1]["data"][1::2] == by_rows(server, {"amount": 1.5}, {})
    found = send_binary(server, described("place", "FP32", [2, 2], 16), np.array([[np.nan, np.nan], [1, 2]], np.float32).tobytes())
    assert found.json()["outputs"][1]["data"][1::2] == by_rows(server, {}, {"place": [1, 2]})
    found = send_binary(server, described("city", "BYTES", [2], 13), struct.pack("<I", 5) + b"Paris" + struct.pack("<I", 0))
    assert found.json()["outputs"][1]["data"][1::2] == by_rows(server, {"city": "Paris"}, {})


@pytest.mark.parametrize(("name", "datatype", "values"), [("amount", "FP64", [np.inf]), ("amount", "FP32", [-np.inf]), ("place", "FP32", [1, np.inf])])
def test_infinite_numbers_in_binary_are_refused(server: Running, name: str, datatype: str, values: list[float]) -> None:
    data = np.array(values, np.float64 if datatype == "FP64" else np.float32).tobytes()
    reply = send_binary(server, described(name, datatype, [1] if name == "amount" else [1, 2], len(data)), data)
    assert reply.status_code == 400
    assert "finite number" in reply.json()["error"]


def test_a_required_input_may_not_be_left_out_or_missing(server: Running) -> None:
    assert "the input 'count' is not there" in ask(server, tensor("amount", [1]), model="strict").json()["error"]
    assert "may not be missing" in ask(server, tensor("count", [1, None], "INT64"), model="strict").json()["error"]
    assert "may not be missing" in ask(server, tensor("count", [1, None]), model="strict").json()["error"]
    assert ask(server, tensor("count", [1], "INT64"), model="strict").status_code == 200


def test_the_json_part_may_be_packed_with_its_data(server: Running) -> None:
    head = json.dumps(described("amount", "FP64", [1], 8)).encode()
    body = gzip.compress(head + np.array([1.5]).tobytes())
    headers = {"content-type": "application/octet-stream", "inference-header-content-length": str(len(head)), "content-encoding": "gzip"}
    reply = server.post("/v2/models/binary/infer", body, **headers)
    assert reply.json()["outputs"][1]["data"][1::2] == by_rows(server, {"amount": 1.5})


def test_a_body_without_json_is_the_data_of_the_only_input(start: Any, tmp_path: Path, server: Running) -> None:
    package = write_package(tmp_path / "one", columns=("amount",), name="one")
    with start(package) as up:
        reply = send_binary(up, None, np.array([1.5, 2.5]).tobytes(), 0, model="one")
        size = int(reply.headers["inference-header-content-length"])
        assert json.loads(reply.content[:size])["outputs"][1]["shape"] == [2, 2]
        assert np.frombuffer(reply.content[size + 2 :], "<f4")[1::2].tolist() == by_rows(server, {"amount": 1.5}, {"amount": 2.5})
        assert "whole number of rows of 8 bytes" in send_binary(up, None, b"123", 0, model="one").json()["error"]
    assert "needs a model with one input" in send_binary(server, None, b"", 0).json()["error"]


def test_mutilated_requests_end_in_an_answer_or_a_refusal(packages: dict[str, Path]) -> None:
    chance = random.Random(7)
    package = open_package(packages["binary"])
    translator = Translator(package, max_rows=100)
    whole = [tensor("amount", [1.5, None]), tensor("count", [1, 2], "INT8"), tensor("place", [[1, 2], [3, 4]], "FP16", [2, 2])]
    texts = [json.dumps({"inputs": whole, "outputs": [{"name": "prediction"}], "id": "x"}).encode()]
    head = json.dumps(described("city", "BYTES", [2], 13)).encode()
    bodies = [(texts[0], None), (head + struct.pack("<I", 5) + b"Paris" + struct.pack("<I", 0), str(len(head)).encode())]
    words = [b"null", b"-1", b"[]", b"{}", b'"', b"1e400", b"99999999999999999999", b"true", b"\x00", b"\xff", b"[[[["]
    n_read, codes = 0, set()
    for i in range(3000):
        body, size = bodies[i % 2]
        raw = bytearray(body)
        for _ in range(chance.randint(1, 3)):
            at = chance.randrange(len(raw))
            if chance.random() < 0.5:
                raw[at] = chance.randrange(256)
            else:
                raw[at : at + chance.randint(0, 3)] = chance.choice(words)
        try:
            asked = translator.read(bytes(raw), size)
        except RequestError as error:
            codes.add(error.status)
            continue
        n_read += 1
        translator.write(asked, package.run(asked.tensors))
    assert codes <= {400, 413, 422}
    assert n_read > 20
