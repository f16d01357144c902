"""A bucket of Google Cloud Storage."""

from typing import ClassVar

from modelinscale.core.secrets import Reference
from modelinscale.store._bucket import Bucket, given


class Gs(Bucket):
    """A bucket of Google Cloud Storage; ``store: gs://bucket/prefix`` in short.

    Without ``key`` the usual places are asked: ``GOOGLE_SERVICE_ACCOUNT``, ``GOOGLE_APPLICATION_CREDENTIALS``, gcloud's own file, the instance's account.
    """

    scheme: ClassVar[str] = "gs"

    key: Reference | None = None
    """A service account's key as JSON: ``${FILE:account.json}``."""

    def access(self) -> dict[str, str]:
        return given(google_service_account_key=self.key)
