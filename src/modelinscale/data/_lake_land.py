"""A commit to a lake table that counts only on top of what was read, and what the disk is made to keep of it."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from modelinscale.core import files
from modelinscale.data._lake_base import NOTE_KEY, Commit, Where, compact_json, record, writer
from modelinscale.data._lake_turns import LONGEST_S

if TYPE_CHECKING:
    import lance


@dataclass(frozen=True)
class Change:
    """What a commit does to the table's files."""

    new: Sequence[Any] = ()
    """Fragments with rows, their hidden column in them."""
    updated: Sequence[Any] = ()
    """Fragments some of whose rows are gone."""
    removed: Sequence[int] = ()
    """Numbers of fragments all of whose rows are gone."""
    schema: Any = None
    """The Lance schema with its metadata, where columns change; ``updated`` are all fragments then."""


def land(dataset: "lance.LanceDataset", change: Change, commit: Commit, where: Where) -> "lance.LanceDataset | None":
    """Commits on top of exactly the version that was read, rewritten files apart; None when another writer was first.

    Lance lets appends pass each other, which would break the order of commit numbers. So every commit of ours also names the newest fragment as touched:
    of two that read the same version, the second then conflicts. A table without fragments is overwritten instead, which Lance only does to the
    very version that was read.
    """
    import lance
    from lance.commit import CommitConflictError

    op = lance.LanceOperation
    held = dataset.get_fragments()
    if change.schema is not None:
        step: Any = op.Merge(list(change.updated), change.schema)
    elif not held:
        step = op.Overwrite(dataset.schema, list(change.new))
    else:
        updated = list(change.updated)
        newest = held[-1]
        if newest.fragment_id not in {*change.removed, *(f.id for f in updated)}:
            updated.append(newest.metadata)
        step = op.Update(removed_fragment_ids=list(change.removed), updated_fragments=updated, new_fragments=list(change.new))
    transaction = lance.Transaction(int(dataset.version), step, transaction_properties=record(commit))
    try:
        return lance.LanceDataset.commit(dataset, transaction, max_retries=0, enable_stable_row_ids=True, storage_options=where.storage)
    except CommitConflictError:
        return None


def rewrite(dataset: "lance.LanceDataset", changes: Sequence[Change], where: Where) -> "lance.LanceDataset | None":
    """Commits files written anew, rows as they were, also past appends of other writers; None when another one changed these very files.

    It carries no record, which would be another writer's place in the source by then; a note says who.
    """
    import lance
    from lance.commit import CommitConflictError

    updated, removed = [f for one in changes for f in one.updated], [i for one in changes for i in one.removed]
    step = lance.LanceOperation.Update(removed_fragment_ids=removed, updated_fragments=updated)
    note = {NOTE_KEY: compact_json({"what": "compact", "by": writer()})}
    try:
        return lance.LanceDataset.commit(dataset, lance.Transaction(int(dataset.version), step, transaction_properties=note), storage_options=where.storage)
    except CommitConflictError:
        return None


def sync(where: Where, before: "lance.LanceDataset | None", after: "lance.LanceDataset") -> None:
    """Has the disk keep a commit through a power cut: its data files, its manifest, and the folders that name them."""
    if where.folder is None:
        return
    known = {path for f in before.get_fragments() for path in _paths(f.metadata)} if before is not None else set()
    new = [path for f in after.get_fragments() for path in _paths(f.metadata) if path not in known]
    folder = where.folder
    wanted = [folder / "data" / path for path in new]
    wanted += [folder / "_versions" / f"{(1 << 64) - 1 - int(after.version):020d}.manifest"]
    wanted += [p for p in (folder / "_deletions").glob("*") if p.stat().st_mtime > time.time() - LONGEST_S] if (folder / "_deletions").is_dir() else []
    wanted += [p for p in (folder / "data", folder / "_versions", folder / "_transactions", folder / "_deletions", folder, folder.parent) if p.is_dir()]
    with files.told(folder, "write"):
        for path in wanted:
            handle = os.open(path, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


def _paths(fragment: Any) -> list[str]:
    return [cast(str, file.path) for file in fragment.files]
