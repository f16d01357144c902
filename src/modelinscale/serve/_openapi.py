"""The OpenAPI 3.1 description of a server, made from the manifests of what it serves."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from modelinscale import __version__
from modelinscale.package._cell_rules import describe
from modelinscale.serve._oip_form import DTYPES, version_of

if TYPE_CHECKING:
    from modelinscale.package import InputColumn, Package

Schema = dict[str, Any]


def openapi(packages: Mapping[str, "Package"], examples: Mapping[str, Sequence[Mapping[str, Any]]], *, max_rows: int) -> Schema:
    """The document. ``packages`` by name, the first one answering ``/predict``; ``examples``: rows known to be good, by name."""
    paths: Schema = {
        "/v2": {"get": _get("Server metadata", "ServerMetadata")},
        "/v2/health/live": {"get": _get("Whether the process answers", "Live")},
        "/v2/health/ready": {"get": _get("Whether requests are welcome", "Ready", busy=True)},
        "/metrics": {"get": _text("Counts and times for Prometheus")},
        "/openapi.json": {"get": {"summary": "This document", "responses": {"200": {"description": "OpenAPI 3.1", "content": _json({"type": "object"})}}}},
        "/": {"get": _text("A page to try the model on", "text/html")},
        "/docs": {"get": _text("The same page", "text/html")},
    }
    schemas: Schema = dict(_SHARED)
    for i, (name, package) in enumerate(packages.items()):
        row, answer = f"Row_{name}", f"Answer_{name}"
        schemas[row] = _row(package)
        schemas[answer] = _answer(package)
        predict = _predict(row, answer, examples.get(name, ())[:1], max_rows)
        if i == 0:
            paths["/predict"] = {"post": {**predict, "summary": f"Answer rows with {name}"}}
        paths[f"/predict/{name}"] = {"post": {**predict, "summary": f"Answer rows with {name}"}}
        for base in (f"/v2/models/{name}", f"/v2/models/{name}/versions/{version_of(package)}"):
            paths[base] = {"get": _get(f"Inputs and outputs of {name}", "ModelMetadata")}
            paths[f"{base}/ready"] = {"get": _get(f"Whether {name} answers", "ModelReady", busy=True)}
            paths[f"{base}/infer"] = {"post": _infer(name)}
    return {
        "openapi": "3.1.0",
        "info": {"title": ", ".join(packages), "version": __version__, "summary": "Models served by Model In Scale"},
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _json(schema: Schema, **more: Any) -> Schema:
    return {"application/json": {"schema": schema, **more}}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _get(summary: str, schema: str, *, busy: bool = False) -> Schema:
    responses: Schema = {"200": {"description": "OK", "content": _json(_ref(schema))}}
    if busy:
        responses["503"] = {"description": "Stopping", "content": _json(_ref(schema))}
    return {"summary": summary, "responses": responses}


def _text(summary: str, kind: str = "text/plain") -> Schema:
    return {"summary": summary, "responses": {"200": {"description": "OK", "content": {kind: {"schema": {"type": "string"}}}}}}


_ID_HEADER: Schema = {
    "name": "X-Request-Id",
    "in": "header",
    "required": False,
    "description": "Your name for this request; comes back in the answer. Letters, digits and . _ : / + = @ - up to 128.",
    "schema": {"type": "string", "maxLength": 128},
}

_REFUSALS = {
    "400": "The body is not JSON",
    "413": "Too many bytes or rows",
    "415": "Not JSON, or packed in an unknown way",
    "422": "A row cannot be read: the message names row, column, value and what was expected",
    "503": "Too busy, or stopping: try again after Retry-After seconds",
}


def _predict(row: str, answer: str, examples: Sequence[Mapping[str, Any]], max_rows: int) -> Schema:
    request: Schema = {
        "type": "object",
        "required": ["rows"],
        "additionalProperties": False,
        "properties": {"rows": {"type": "array", "maxItems": max_rows, "items": _ref(row)}},
    }
    reply: Schema = {
        "type": "object",
        "required": ["id", "model", "predictions"],
        "properties": {
            "id": {"type": "string", "description": "The request's id"},
            "model": {
                "type": "object",
                "required": ["name", "version"],
                "properties": {"name": {"type": "string"}, "version": {"type": ["integer", "null"]}},
            },
            "predictions": {"type": "array", "description": "One for each row, in order", "items": _ref(answer)},
        },
    }
    example = {"example": {"rows": list(examples)}} if examples else {}
    refusals = {status: {"description": words, "content": _json(_ref("Error"))} for status, words in _REFUSALS.items()}
    return {
        "parameters": [_ID_HEADER],
        "requestBody": {"required": True, "content": _json(request, **example)},
        "responses": {"200": {"description": "An answer for each row", "content": _json(reply)}, **refusals},
    }


def _infer(name: str) -> Schema:
    refusals = {status: {"description": "Refused", "content": _json(_ref("InferError"))} for status in ("400", "404", "413", "415", "503")}
    return {
        "summary": f"Open Inference Protocol inference with {name}",
        "requestBody": {"required": True, "content": {**_json(_ref("InferRequest")), "application/octet-stream": {}}},
        "responses": {"200": {"description": "OK", "content": {**_json(_ref("InferResponse")), "application/octet-stream": {}}}, **refusals},
    }


def _row(package: "Package") -> Schema:
    columns = package.manifest.inputs
    ignored: dict[str, Schema] = {name: {"description": "Accepted and not used"} for name in package.manifest.ignored}
    for column in columns:
        for name, raw in column.beside.items():
            ignored[name] = {"description": f"{describe(raw)}; taken where `{column.name}` is missing"}
    return {
        "type": "object",
        "description": "One raw row, as in the data the model learned from",
        "properties": {**ignored, **{c.name: _cell(c) for c in columns}},
        "required": [c.name for c in columns if c.required],
        "additionalProperties": False,
    }


def _cell(column: "InputColumn") -> Schema:
    one = column.accepts
    # Cells may also be written as the data's own text (with its thousands marks, currency signs, date formats).
    kinds = {
        "int": ["integer", "string"],
        "float": ["number", "string"],
        "bool": ["boolean", "integer", "string"],
        "string": ["string", "number", "boolean"],
        "time": ["string"] if one.format not in ("epoch_s", "epoch_ms") else ["number", "string"],
        "vector": ["array"],
        "sequence": ["array", "string"],
        "binary": ["string"],
    }[one.type]
    schema: Schema = {"type": kinds if column.required else [*kinds, "null"], "description": describe(one)}
    if one.type == "sequence":
        step: Schema = {"type": ["number", "null"]}
        schema |= {"items": step if one.width == 1 else {"type": "array", "items": step, "minItems": one.width, "maxItems": one.width}}
    if one.type == "vector":
        schema |= {"items": {"type": ["number", "null"]}, "minItems": one.width, "maxItems": one.width}
    return schema


def _answer(package: "Package") -> Schema:
    task = package.manifest.task
    if task.numbers:
        said: Schema = {"type": ["number", "null"]}
        if task.answer_keys:
            keys = task.answer_keys
            said = {"type": "object", "properties": dict.fromkeys(keys, said), "required": list(keys)}
        elif task.several:
            said = {"type": "array", "items": said, "minItems": task.n_scores, "maxItems": task.n_scores}
        return {"type": "object", "required": ["prediction"], "properties": {"prediction": {**said, "description": task.target}}}
    labels: Schema = {"enum": list(task.labels)}
    if task.type == "multilabel":
        labels = {"type": "array", "items": labels, "uniqueItems": True}
    share: Schema = {"type": "number", "minimum": 0, "maximum": 1}
    keys = package.label_keys
    return {
        "type": "object",
        "required": ["prediction", "probabilities"],
        "properties": {
            "prediction": {**labels, "description": task.target},
            "probabilities": {"type": "object", "properties": dict.fromkeys(keys, share), "required": list(keys)},
        },
    }


def _object(required: Sequence[str] = (), **properties: Any) -> Schema:
    return {"type": "object", "required": list(required), "properties": properties}


_STRING: Schema = {"type": "string"}
_TENSOR: Schema = {
    "name": _STRING,
    "shape": {"type": "array", "items": {"type": "integer"}},
    "datatype": {"enum": [*DTYPES, "BYTES"]},
    "parameters": {"type": "object"},
    "data": {"type": "array"},
}

_SHARED: Schema = {
    "Error": _object(["error"], error=_object(["message", "fix", "id"], message=_STRING, fix=_STRING, id=_STRING)),
    "InferError": _object(["error"], error=_STRING),
    "ServerMetadata": _object(["name", "version", "extensions"], name=_STRING, version=_STRING, extensions={"type": "array", "items": _STRING}),
    "Live": _object(["live"], live={"type": "boolean"}),
    "Ready": _object(["ready"], ready={"type": "boolean"}),
    "ModelReady": _object(["name", "ready"], name=_STRING, ready={"type": "boolean"}),
    "ModelMetadata": _object(
        ["name", "platform", "inputs", "outputs"],
        name=_STRING,
        versions={"type": "array", "items": _STRING},
        platform=_STRING,
        inputs={"type": "array", "items": _object(["name", "datatype", "shape"], **{k: _TENSOR[k] for k in ("name", "datatype", "shape")})},
        outputs={"type": "array", "items": _object(["name", "datatype", "shape"], **{k: _TENSOR[k] for k in ("name", "datatype", "shape")})},
    ),
    "InferRequest": _object(
        ["inputs"],
        id=_STRING,
        parameters={"type": "object"},
        inputs={"type": "array", "items": _object(["name", "shape", "datatype"], **_TENSOR)},
        outputs={"type": "array", "items": _object(["name"], name=_STRING, parameters={"type": "object"})},
    ),
    "InferResponse": _object(
        ["model_name", "outputs"],
        id=_STRING,
        model_name=_STRING,
        model_version=_STRING,
        outputs={"type": "array", "items": _object(["name", "shape", "datatype"], **_TENSOR)},
    ),
}
