"""What a lake table says of itself, and the first commit of a new one."""

from typing import TYPE_CHECKING, Any

from modelinscale.core.errors import LakeError
from modelinscale.core.schema import Schema
from modelinscale.data._lake_base import SEQ, Commit, Where, compact_json, record, words
from modelinscale.data._lake_errors import told
from modelinscale.data._lake_files import spelled_schema
from modelinscale.data._lake_land import Change, land
from modelinscale.data.arrow import INTERNAL, arrow_schema

if TYPE_CHECKING:
    import lance
    import pyarrow as pa

FORMAT = 3
"""Of what we add to the table: schema metadata, commit record, commit numbers. 2: columns may have been added or widened, records say who and what.
3: text may be kept as codes and a dictionary."""

FORMAT_KEY, SCHEMA_KEY, READ_KEY = "mis.format", "mis.schema", "mis.read"
CHANGED = "Another program changed it: restore an older version."


def schema_of(dataset: "lance.LanceDataset", uri: str) -> Schema:
    """The user's columns, habits of their text included."""
    try:
        return Schema.model_validate_json(dataset.schema.metadata[SCHEMA_KEY.encode()])
    except ValueError as error:
        raise LakeError(f"{uri}: the description of its columns cannot be read.", fix=CHANGED) from error


def first_version(schema: "pa.Schema", fragments: list[Any], commit: Commit, where: Where) -> "lance.LanceDataset | None":
    """Version 1 of a table, on top of version 0, which never exists; None when another writer made the table meanwhile."""
    import lance
    from lance.commit import CommitConflictError

    step = lance.Transaction(0, lance.LanceOperation.Overwrite(schema, fragments), transaction_properties=record(commit))
    try:
        return lance.LanceDataset.commit(where.uri, step, enable_stable_row_ids=True, max_retries=0, storage_options=where.storage)
    except CommitConflictError:
        return None
    except OSError as error:
        if "0.manifest was not found" in str(error):  # there is a version to read by now
            return None
        raise


def probe(where: Where) -> None:
    """Commits twice on top of one version: a store that lets the second in would let writers overwrite each other's commits."""
    import uuid

    import lance
    import pyarrow as pa

    place = Where(f"{where.uri.rstrip('/')}/{INTERNAL}probe-{uuid.uuid4().hex}", where.options)
    with told(where.uri, "write"):
        first = first_version(pa.schema([(SEQ, pa.int64())]), [], Commit(0, ""), place)
        assert first is not None, "nobody else knows the place"
        twice = [land(first, Change(), Commit(0, ""), place) for _ in range(2)]
        lance.LanceDataset.drop(place.uri, place.storage, ignore_not_found=True)
    if twice[1] is not None:
        raise LakeError(
            f"{where.uri}: this store overwrites an object when it is told not to, so writers would lose each other's commits.",
            fix="Use a store with conditional writes (S3, GCS, Azure, MinIO), or a local folder.",
        )


def metadata_of(schema: Schema, read_schema: Schema | None) -> dict[str, str]:
    found = {FORMAT_KEY: str(FORMAT), SCHEMA_KEY: compact_json(schema.plain())}
    return found if read_schema is None or read_schema == schema else {**found, READ_KEY: compact_json(read_schema.plain())}


def refuse_ours(schema: Schema) -> None:
    ours = [name for name in schema.names if name.startswith(INTERNAL)]
    if ours:
        raise LakeError(f"a column cannot be called {ours[0]!r}: names with {INTERNAL} are the table's own.", fix="Rename it in the source.")


def check(dataset: "lance.LanceDataset", uri: str) -> None:
    """Refuses what we did not write, or cannot read rightly."""
    import pyarrow as pa

    metadata = dataset.schema.metadata or {}
    if FORMAT_KEY.encode() not in metadata or SCHEMA_KEY.encode() not in metadata:
        raise LakeError(f"{uri} is a Lance table, but not one of ours.", fix="Name another store, or read it as a source.")
    found = int(metadata[FORMAT_KEY.encode()])
    if found > FORMAT:
        raise LakeError(f"{uri} has format {found}; this version reads up to {FORMAT}.", fix="Upgrade: pip install --upgrade modelinscale.")
    if not dataset.has_stable_row_ids:
        raise LakeError(f"{uri} has no stable row ids, so rows since a version cannot be told.", fix="Copy it into a new table.")
    # A column that was added stands behind the hidden one.
    declared = {f.name: f.type for f in [*arrow_schema(schema_of(dataset, uri)), pa.field(SEQ, pa.int64())]}
    if len(dataset.schema) != len(declared) or {f.name: f.type for f in spelled_schema(dataset.schema)} != declared:
        raise LakeError(f"{uri}: its columns are not those it declares: {words(dataset.schema)}.", fix=CHANGED)
