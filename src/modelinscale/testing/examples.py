"""How many examples a property is tried with: all where every test runs, a third where only fast ones do."""

from hypothesis import settings

_USUAL, _FEWEST = 100, 6


def examples(n: int) -> int:
    """Of ``n`` examples, the share that the loaded profile takes of hypothesis' usual hundred; six at least, where there are as many."""
    return min(n, max(_FEWEST, n * settings().max_examples // _USUAL))
