"""``mis schema``"""

from modelinscale.cli import _show
from modelinscale.cli._options import Json


def command(json: Json = False) -> None:
    """Print the JSON Schema of model.yaml, for editors (always JSON)."""
    from modelinscale.spec import json_schema

    _show.document(json_schema())
