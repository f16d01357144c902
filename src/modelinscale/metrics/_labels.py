"""What metrics of several labels are made of: for each label how often it was right, called and there."""

import numpy as np

from modelinscale.metrics import Answers, Table


def flags(answers: Answers) -> Table:
    """One cell; terms (N, 3 C): the weight of rows that have a label and are said to, that are said to, that have it."""
    truth, decision, weight = answers.truth != 0, answers.decision != 0, answers.weights[:, None]
    return Table(None, 1, np.concatenate([weight * (truth & decision), weight * decision, weight * truth], axis=1))
