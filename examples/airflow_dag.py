"""Airflow: the project's commands as tasks. Put it into the DAGs folder; Airflow itself is not needed by Model In Scale.

Each task is a command that goes on from where the last one ended, so retries and overlaps do no harm: nothing is collected twice, nothing trained twice.
"""

from datetime import datetime, timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

PROJECT = "/srv/fraud"
"""The folder of model.yaml."""

with DAG(
    "fraud",
    schedule="0 3 * * *",
    start_date=datetime(2026, 1, 1),
    catchup=False,  # a run takes all that is new, whatever day it is of
    max_active_runs=1,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=5)},
) as dag:
    collect = BashOperator(task_id="collect", bash_command="mis collect --json", cwd=PROJECT)
    run = BashOperator(task_id="run", bash_command="mis run --json", cwd=PROJECT)
    collect >> run
