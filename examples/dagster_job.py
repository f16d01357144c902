"""Dagster: the project's verbs as ops, by the Python API. Load it with `dagster dev -f dagster_job.py`.

A step that is done already is not done again, so a job that is retried goes on from where it ended.
"""

from dagster import Definitions, OpExecutionContext, RetryPolicy, ScheduleDefinition, job, op

from modelinscale.api import Project

PROJECT = "/srv/fraud/model.yaml"


@op(retry_policy=RetryPolicy(max_retries=3, delay=300))
def collect(context: OpExecutionContext) -> int:
    """New rows into the lake."""
    outcome = Project(PROJECT).run(until="collect")
    context.log.info("table version %s, %s rows", outcome.collected["version"], outcome.collected["n_rows"])
    return int(outcome.collected["version"])


@op
def train_and_register(context: OpExecutionContext, version: int) -> str | None:
    """Everything else that is not done yet."""
    outcome = Project(PROJECT).run()
    context.log.info("package %s: %s", outcome.package, outcome.metrics)
    return outcome.version


@job
def fraud() -> None:
    train_and_register(collect())


definitions = Definitions(jobs=[fraud], schedules=[ScheduleDefinition(job=fraud, cron_schedule="0 3 * * *")])
