"""What object stores' clients say, in a user's words."""

import pytest

from modelinscale.core.bucket import reason

NOBODY = "no credentials were found"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("Generic S3 error: Error performing PUT http://169.254.169.254/latest/api/token", NOBODY),
        ("error sending request for url (http://metadata.google.internal/computeMetadata/v1/instance/service-accounts/default/token)", NOBODY),
        ("error sending request for url (http://10.0.0.9/computeMetadata/v1/instance/service-accounts/default/token)", NOBODY),
        ("LanceError(IO): Failed to read manifest metadata: file size is too small", None),
        ("Invalid user input: schema metadata does not match", None),
    ],
)
def test_only_a_question_for_credentials_is_told_as_one(text: str, told: str | None) -> None:
    found = reason(text)
    assert (found[0] if found else None) == told
