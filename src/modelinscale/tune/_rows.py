"""A trial written into a database in six statements, and settled in five; by Optuna's own road it takes two or three for each setting, which is most of what a
trial costs beside its fit. What is written is the same, and its own tools read it.

Stands on parts of Optuna that are not public (`optuna.storages._rdb`): a test holds what is written against what Optuna writes.
"""

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optuna.storages import RDBStorage
    from optuna.trial import FrozenTrial, TrialState


def add(storage: "RDBStorage", study_id: int, trial: "FrozenTrial") -> tuple[int, int]:
    """A new trial with its settings and attributes, in one transaction: a kill leaves no half of it. Its id in the database, and its number in the study."""
    from optuna.distributions import distribution_to_json
    from optuna.exceptions import StorageInternalError
    from optuna.storages._rdb import models
    from optuna.storages._rdb.storage import _create_scoped_session

    try:
        with _create_scoped_session(storage.scoped_session) as session:
            models.StudyModel.find_or_raise_by_id(study_id, session, for_update=True)  # numbers are counted: one at a time
            row = models.TrialModel(study_id=study_id, number=None, state=trial.state, datetime_start=trial.datetime_start)
            session.add(row)
            session.flush()
            trial_id, number = int(row.trial_id), int(row.count_past_trials(session))
            row.number = number
            settings = [
                {"trial_id": trial_id, "param_name": name, "param_value": kind.to_internal_repr(value), "distribution_json": distribution_to_json(kind)}
                for name, value in trial.params.items()
                for kind in [trial.distributions[name]]
            ]
            if settings:
                session.execute(models.TrialParamModel.__table__.insert(), settings)
            for key, value in trial.user_attrs.items():
                session.add(models.TrialUserAttributeModel(trial_id=trial_id, key=key, value_json=json.dumps(value)))
        return trial_id, number
    except StorageInternalError:  # a deadlock: Optuna knows how often and how long to wait
        trial_id = storage.create_new_trial(study_id, template_trial=trial)
        return trial_id, storage.get_trial_number_from_id(trial_id)


def settle(storage: "RDBStorage", trial_id: int, state: "TrialState", value: float | None, attributes: dict[str, Any]) -> None:
    """What came of a trial, in one transaction. Raises what Optuna does for one that is settled already."""
    from optuna.storages._rdb import models
    from optuna.storages._rdb.storage import _create_scoped_session

    with _create_scoped_session(storage.scoped_session) as session:
        row = models.TrialModel.find_or_raise_by_id(trial_id, session, for_update=True)
        storage.check_trial_is_updatable(trial_id, row.state)  # type: ignore[arg-type]  # a column to mypy, a state once it is read
        for key, one in attributes.items():
            storage._set_trial_attr_without_commit(session, models.TrialUserAttributeModel, trial_id, key, one)  # another may have written it meanwhile
        if value is not None:
            stored, kind = models.TrialValueModel.value_to_stored_repr(value)
            session.add(models.TrialValueModel(trial_id=trial_id, objective=0, value=stored, value_type=kind))
        row.state, row.datetime_complete = state, datetime.now()
