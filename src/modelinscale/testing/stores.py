"""What every store must do. Each function takes an empty store."""

from modelinscale.core.errors import StoreError
from modelinscale.store import Store


def _raises(words: str, function: object, *arguments: object) -> None:
    assert callable(function)
    try:
        function(*arguments)
    except StoreError as error:
        assert words in str(error), f"expected {words!r} in {error}"  # noqa: PT017
    else:
        raise AssertionError(f"no StoreError about {words!r}")


def what_is_published_is_there_whole(store: Store) -> None:
    """A folder appears under its name with everything in it."""
    with store.publish("steps", "one") as folder:
        (folder / "a.txt").write_text("a", encoding="utf-8")
        (folder / "sub").mkdir()
        (folder / "sub" / "b.txt").write_text("b", encoding="utf-8")
        assert list(store.list("steps")) == [], "visible before it was whole"
    assert list(store.list("steps")) == ["one"]
    assert (store.path("steps", "one") / "sub" / "b.txt").read_text(encoding="utf-8") == "b"


def a_failed_publish_leaves_nothing(store: Store) -> None:
    """An error inside takes everything back."""
    try:
        with store.publish("steps", "one") as folder:
            (folder / "a.txt").write_text("a", encoding="utf-8")
            raise KeyError("a mistake of the caller's")
    except KeyError:
        pass
    assert list(store.list("steps")) == []
    assert not store.path("steps", "one").exists()


def the_first_of_two_publishers_stays(store: Store) -> None:
    """Two that make the same thing do not mix."""
    with store.publish("x") as late:
        (late / "who").write_text("late", encoding="utf-8")
        with store.publish("x") as early:
            (early / "who").write_text("early", encoding="utf-8")
    assert (store.path("x") / "who").read_text(encoding="utf-8") == "early"
    assert list(store.list()) == ["x"]


def names_are_sorted(store: Store) -> None:
    """Whatever the order they came in; a folder that is not there is empty."""
    for name in ("b", "c", "a"):
        with store.publish("things", name):
            pass
    assert list(store.list("things")) == ["a", "b", "c"]
    assert list(store.list("nothing")) == []


def a_lock_is_held_by_one(store: Store) -> None:
    """The second one is told, and may have it afterwards."""

    def take() -> None:
        with store.lock("lock"):
            pass

    with store.lock("lock"):
        _raises("in use by process", take)
    take()


def a_lock_is_let_go_when_its_block_fails(store: Store) -> None:
    """Nobody waits for somebody who is gone."""
    try:
        with store.lock("lock"):
            raise KeyError("a mistake of the caller's")
    except KeyError:
        pass
    with store.lock("lock"):
        pass


def no_name_leads_out(store: Store) -> None:
    """Names from outside stay inside."""
    for name in ("..", ".", "", "../x", "a/../../b", "/etc", "a\\b", "a\0b"):
        _raises("is not a name in a store", store.path, name)


SUITE = (
    what_is_published_is_there_whole,
    a_failed_publish_leaves_nothing,
    the_first_of_two_publishers_stays,
    names_are_sorted,
    a_lock_is_held_by_one,
    a_lock_is_let_go_when_its_block_fails,
    no_name_leads_out,
)
