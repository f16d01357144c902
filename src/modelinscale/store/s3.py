"""A bucket of S3, or of a store that speaks its language (MinIO, Ceph, R2)."""

from typing import ClassVar

from modelinscale.core.secrets import Address, Reference
from modelinscale.store._bucket import Bucket, given, over


class S3(Bucket):
    """An S3 bucket; ``store: s3://bucket/prefix`` in short.

    Without ``access_key`` the usual places are asked: ``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``, ``AWS_SESSION_TOKEN``, ``AWS_REGION``,
    ``AWS_ENDPOINT``, a web identity token, the container's or the instance's role. The store must keep to ``If-None-Match`` and ``If-Match``.
    """

    scheme: ClassVar[str] = "s3"

    endpoint: Address | None = None
    """For stores other than AWS: ``http://minio:9000``."""
    region: str | None = None
    """``eu-central-1``."""
    access_key: Reference | None = None
    """``${ENV:NAME}`` or ``${FILE:path}``."""
    secret_key: Reference | None = None
    """By reference, too."""
    token: Reference | None = None
    """Of a session, by reference."""

    def access(self) -> dict[str, str]:
        said = given(aws_endpoint=self.endpoint, aws_region=self.region, aws_access_key_id=self.access_key)
        return {**said, **given(aws_secret_access_key=self.secret_key, aws_session_token=self.token), **over(self.endpoint)}
