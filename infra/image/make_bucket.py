"""Make the bucket MLflow keeps artifacts in, if it is not there yet.

    python make_bucket.py mlflow

Reads AWS_ENDPOINT_URL_S3, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY. Retries while the storage
starts, and gives up after two minutes.
"""

import sys
import time
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError

PATIENCE_SECONDS = 120
MISSING = {"404", "NoSuchBucket"}


def main(bucket: str) -> None:
    """Return once the bucket exists."""
    storage = boto3.client("s3")
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            ensure(storage, bucket)
            return
        except (BotoCoreError, ClientError) as error:
            if time.monotonic() > deadline:
                sys.exit(f"no bucket {bucket}: {error}")
            time.sleep(2)


def ensure(storage: Any, bucket: str) -> None:
    """Create the bucket where the storage says that there is none."""
    try:
        storage.head_bucket(Bucket=bucket)
    except ClientError as error:
        if error.response["Error"]["Code"] not in MISSING:
            raise
        storage.create_bucket(Bucket=bucket)


if __name__ == "__main__":
    main(sys.argv[1])
