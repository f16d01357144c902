"""Tree-structured Parzen estimator (Bergstra et al. 2011), Optuna's, all settings together and those in work counted as poor.

Source: Optuna 5, whose default this is (multivariate, constant liar).
"""

import warnings

from pydantic import Field

from modelinscale.core.seeds import derive, generator
from modelinscale.tune import _engine
from modelinscale.tune._space import FAMILY, Point
from modelinscale.tune.searchers import History, Searcher


class Tpe(Searcher):
    """Learns which settings the good trials share; the default."""

    startup: int = Field(10, ge=1)
    """Settings drawn at random before it begins to learn."""
    candidates: int = Field(24, ge=1)
    """Points it compares for each proposal."""

    def propose(self, history: History) -> Point:
        space = history.space
        known = [past for past in history.past if past.running or past.loss is not None]
        if len([past for past in known if not past.running]) < self.startup:
            return space.draw(generator(history.seed, "search", history.number))
        optuna = _engine.optuna()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = optuna.samplers.TPESampler(
                n_startup_trials=0,
                n_ei_candidates=self.candidates,
                seed=derive(history.seed, "search", history.number) % (1 << 32),
                group=len(space.families) > 1,
            )
        study, spaces = optuna.create_study(sampler=sampler), _engine.distributions(space)
        study.add_trials([_engine.frozen(spaces, past.point, past.loss, past.share, running=past.running) for past in known])
        trial = study.ask()
        values: Point = {FAMILY: space.families[0]}
        if len(space.families) > 1:
            values[FAMILY] = _engine.suggest(trial, FAMILY, space.dimensions[FAMILY])
        spans = space.flat(space.family(values))
        return space.complete({**values, **{name: _engine.suggest(trial, name, span) for name, span in spans.items()}})
