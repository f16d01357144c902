"""What every tracker must do. Each function of `SUITE` takes a fresh tracker in a folder of its own and raises ``AssertionError``."""

import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from modelinscale.core.errors import MisError, StoreError, UsageError
from modelinscale.track.trackers import Main, Registered, Run, Tracker, Write

NAME = "fraud"
STARTED = datetime(2024, 5, 1, 13, tzinfo=UTC)


def run_of(identity: str, **metrics: float) -> Run:
    """A run as a pipeline records it."""
    params = {"model.type": "trees", "features.a b/ü.type": "number"}
    return Run(identity, STARTED, STARTED + timedelta(seconds=5), params, metrics or {"roc_auc": 0.9}, {"table_version": "3"}, note="two *words*")


def writer(text: str = "graph") -> Write:
    """Fills a package folder with two files."""

    def write(folder: Path, number: int) -> None:
        (folder / "model.onnx").write_text(text)
        (folder / "manifest.json").write_text(str(number))

    return write


def register(tracker: Tracker, identity: str, value: float | None = None, *, better: Literal["higher", "lower"] = "higher", name: str = NAME) -> Registered:
    """Registers a package with this value of its main metric."""
    main = None if value is None else Main("roc_auc" if better == "higher" else "rmse", value, better)
    return tracker.register(name, identity=identity, write=writer(identity), main=main, run=tracker.record(name, run_of(identity)))


def nothing_is_there_at_first(tracker: Tracker) -> None:
    assert tracker.versions(NAME) == ()
    assert tracker.aliases(NAME) == {}
    for call in (lambda: tracker.resolve(NAME, "champion"), lambda: tracker.number(NAME, "1"), lambda: tracker.before(NAME, "champion")):
        assert "mis run" in _refused(call) or "no other" in _refused(call)
    assert not tracker.root.exists(), "looking must not write"


def what_was_registered_is_found(tracker: Tracker) -> None:
    made = register(tracker, "a1", 0.9)
    assert made.fresh
    assert made.version.number == 1
    assert (made.version.identity, made.version.aliases, made.version.main) == ("a1", ("champion",), Main("roc_auc", 0.9, "higher"))
    assert tracker.versions(NAME) == (made.version,)
    folder = tracker.resolve(NAME, "champion")
    assert folder == tracker.resolve(NAME, "1") == made.version.folder
    assert folder.parts[-3:] == ("packages", NAME, "1")
    assert (folder / "model.onnx").read_text() == "a1"
    assert (folder / "manifest.json").read_text() == "1", "the number must reach the writer"


def the_same_content_is_registered_once(tracker: Tracker) -> None:
    first = register(tracker, "a1", 0.9)
    register(tracker, "b2", 0.95)
    again = register(tracker, "a1", 0.9)
    assert not again.fresh
    assert again.version.number == first.version.number == 1
    assert [v.number for v in tracker.versions(NAME)] == [1, 2]
    assert tracker.aliases(NAME)["champion"] == 2, "registering what is there must move nothing"


def a_later_version_becomes_champion_only_if_no_worse(tracker: Tracker) -> None:
    register(tracker, "a1", 0.9)
    assert register(tracker, "b2", 0.8).version.aliases == ("challenger",)
    assert register(tracker, "c3", 0.9).version.aliases == ("champion",)
    assert register(tracker, "d4", float("nan")).version.aliases == ("challenger",)
    assert register(tracker, "e5").version.aliases == ("challenger",)
    assert tracker.aliases(NAME) == {"champion": 3, "challenger": 5}
    register(tracker, "a1", 10.0, better="lower", name="prices")
    assert register(tracker, "b2", 9.0, better="lower", name="prices").version.aliases == ("champion",)
    worse = register(tracker, "c3", 9.5, better="lower", name="prices")
    assert worse.version.aliases == ("challenger",)
    assert "9.5 against 9" in worse.because


def names_do_not_mix(tracker: Tracker) -> None:
    register(tracker, "a1", 0.9)
    register(tracker, "a1", 0.9, name="other.model-2_x")
    assert [v.number for v in tracker.versions("other.model-2_x")] == [1]
    assert tracker.resolve(NAME, "1") != tracker.resolve("other.model-2_x", "1")
    for bad in ("", "../x", "a/b", "a:b", "a b", ".hidden", "x" * 200):
        assert "name of a model" in _refused(lambda bad=bad: register(tracker, "a1", 0.9, name=bad))  # type: ignore[misc]


def an_alias_moves_and_moves_back_step_by_step(tracker: Tracker) -> None:
    for identity, value in (("a1", 0.1), ("b2", 0.2), ("c3", 0.3)):
        register(tracker, identity, value)
    assert tracker.before(NAME, "champion") == 2
    tracker.alias(NAME, "champion", 2)
    assert tracker.before(NAME, "champion") == 1
    tracker.alias(NAME, "champion", 1)
    assert "no other champion" in _refused(lambda: tracker.before(NAME, "champion"))
    tracker.alias(NAME, "champion", 3)
    assert tracker.before(NAME, "champion") == 1
    tracker.alias(NAME, "champion", 3)
    assert tracker.before(NAME, "champion") == 1, "moving it to where it is must change nothing"
    assert tracker.aliases(NAME)["champion"] == 3
    assert tracker.versions(NAME)[2].aliases == ("champion",)


def other_aliases_are_kept_beside(tracker: Tracker) -> None:
    register(tracker, "a1", 0.9)
    tracker.alias(NAME, "night-shift", 1)
    assert tracker.number(NAME, "night-shift") == 1
    for bad in ("3", "v3", "latest", "a b", "", "a/b"):
        assert "cannot be an alias" in _refused(lambda bad=bad: tracker.alias(NAME, bad, 1))  # type: ignore[misc]


def a_version_that_is_not_there_is_told(tracker: Tracker) -> None:
    register(tracker, "a1", 0.9)
    assert "no version 7" in _refused(lambda: tracker.alias(NAME, "champion", 7))
    assert "Did you mean 'champion'" in _refused(lambda: tracker.resolve(NAME, "champoin"))
    assert "1 (champion)" in _refused(lambda: tracker.resolve(NAME, "7"))


def a_run_recorded_twice_stays_one(tracker: Tracker) -> None:
    first = tracker.record(NAME, run_of("a1", roc_auc=0.5))
    assert tracker.record(NAME, run_of("b2")) != first
    made = register(tracker, "a1", 0.9)
    assert made.version.run is not None
    assert tracker.versions(NAME)[0].run == made.version.run


def a_writer_that_fails_leaves_nothing(tracker: Tracker) -> None:
    def broken(folder: Path, number: int) -> None:
        (folder / "model.onnx").write_text("half")
        raise RuntimeError("stopped in the middle")

    try:
        tracker.register(NAME, identity="a1", write=broken)
    except RuntimeError:
        pass
    else:
        raise AssertionError("the writer's error must reach the caller")
    assert tracker.versions(NAME) == ()
    assert register(tracker, "a1", 0.9).version.number == 1


def a_folder_left_by_a_killed_writer_is_replaced(tracker: Tracker) -> None:
    first = register(tracker, "a1", 0.9)
    orphan = first.version.folder.with_name("2")
    orphan.mkdir()
    (orphan / "model.onnx").write_text("of a run that was killed before it registered")
    made = register(tracker, "b2", 0.9)
    assert made.version.number == 2
    assert (made.version.folder / "model.onnx").read_text() == "b2"


def a_removed_folder_is_written_again(tracker: Tracker) -> None:
    made = register(tracker, "a1", 0.9)
    shutil.rmtree(made.version.folder)
    assert "mis run" in _refused(lambda: tracker.resolve(NAME, "1"), StoreError)
    assert not register(tracker, "a1", 0.9).fresh
    assert (tracker.resolve(NAME, "1") / "model.onnx").read_text() == "a1"


def another_tracker_on_the_same_folder_sees_the_same(tracker: Tracker) -> None:
    register(tracker, "a1", 0.9)
    register(tracker, "b2", 0.8)
    other = type(tracker)(root=tracker.root)
    assert other.versions(NAME) == tracker.versions(NAME)
    other.alias(NAME, "champion", 2)
    assert tracker.aliases(NAME)["champion"] == 2


def _refused(call: Callable[[], object], kind: type[MisError] = UsageError) -> str:
    """What the refusal says; that there is one is part of the demand."""
    try:
        call()
    except kind as error:
        return str(error)
    raise AssertionError(f"expected a {kind.__name__}")


SUITE: tuple[Callable[[Tracker], None], ...] = (
    nothing_is_there_at_first,
    what_was_registered_is_found,
    the_same_content_is_registered_once,
    a_later_version_becomes_champion_only_if_no_worse,
    names_do_not_mix,
    an_alias_moves_and_moves_back_step_by_step,
    other_aliases_are_kept_beside,
    a_version_that_is_not_there_is_told,
    a_run_recorded_twice_stays_one,
    a_writer_that_fails_leaves_nothing,
    a_folder_left_by_a_killed_writer_is_replaced,
    a_removed_folder_is_written_again,
    another_tracker_on_the_same_folder_sees_the_same,
)
