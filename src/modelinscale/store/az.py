"""A container of Azure Blob Storage."""

from typing import ClassVar

from modelinscale.core.secrets import Address, Reference
from modelinscale.store._bucket import Bucket, given, over


class Az(Bucket):
    """A container of Azure Blob Storage; ``store: az://container/prefix`` in short.

    Without ``key`` the usual places are asked: ``AZURE_STORAGE_ACCOUNT_KEY``, ``AZURE_CLIENT_ID`` and its like, the managed identity.
    """

    scheme: ClassVar[str] = "az"

    account: str | None = None
    """The storage account's name (else ``AZURE_STORAGE_ACCOUNT_NAME``)."""
    key: Reference | None = None
    """Of the account, by reference."""
    endpoint: Address | None = None
    """For another address than Azure's own: ``http://127.0.0.1:10000/devstoreaccount1``."""

    def access(self) -> dict[str, str]:
        return {**given(azure_storage_account_name=self.account, azure_storage_account_key=self.key, azure_endpoint=self.endpoint), **over(self.endpoint)}
