"""A bucket of Google Cloud Storage."""

from typing import ClassVar

from modelinscale.core.secrets import Address, Reference
from modelinscale.store._bucket import Bucket, given, over


class Gs(Bucket):
    """A bucket of Google Cloud Storage; ``store: gs://bucket/prefix`` in short.

    Without ``key`` the usual places are asked: ``GOOGLE_SERVICE_ACCOUNT``, ``GOOGLE_APPLICATION_CREDENTIALS``, gcloud's own file, the instance's account.
    """

    scheme: ClassVar[str] = "gs"

    key: Reference | None = None
    """A service account's key as JSON: ``${FILE:account.json}``."""
    endpoint: Address | None = None
    """For another address than Google's own: of an emulator, or inside a private network."""

    def access(self) -> dict[str, str]:
        return {**given(google_service_account_key=self.key, google_base_url=self.endpoint), **over(self.endpoint)}
