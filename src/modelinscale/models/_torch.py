"""PyTorch, loaded so that its threads sleep while they wait. Imported only inside functions: it costs 2.6 s of CPU time."""

from modelinscale.models._threads import sleeping_threads

with sleeping_threads():
    import torch

__all__ = ["torch"]
