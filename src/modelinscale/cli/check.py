"""``mis check``"""

from modelinscale.cli import _show
from modelinscale.cli._options import File, Json


def command(file: File = None, json: Json = False) -> None:
    """Check model.yaml against the data: columns, types, features, split. Changes nothing."""
    from modelinscale.api import Project

    project = Project(file)
    _show.checked(project.check(), project.file, as_json=json)
