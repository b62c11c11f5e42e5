"""moto's S3 and STS on 127.0.0.1:PORT, with the answers corrected that are not S3's: lists under names that the AWS SDK for
Rust cannot read, and a 500 where an upload is gone."""

import sys

from moto.s3 import exceptions, models
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple


def or_gone(method):
    def checked(self, bucket_name, multipart_id, *rest):
        if multipart_id not in self.get_bucket(bucket_name).multiparts:
            raise exceptions.NoSuchUpload(upload_id=multipart_id)
        return method(self, bucket_name, multipart_id, *rest)

    return checked


models.S3Backend.complete_multipart_upload = or_gone(models.S3Backend.complete_multipart_upload)
models.S3Backend.upload_part = or_gone(models.S3Backend.upload_part)

app = DomainDispatcherApplication(create_backend_app)
# moto's root element -> S3's own.
NAMES = [
    (b"ListPartsResponse", b"ListPartsResult"),
    (b"ListMultipartUploadsResponse", b"ListMultipartUploadsResult"),
]


def corrected(environ, start):
    if environ["REQUEST_METHOD"] != "GET":
        return app(environ, start)
    head = {}

    def remember(status, headers, exc_info=None):
        head["status"], head["headers"] = status, headers
        return lambda body: None

    body = b"".join(app(environ, remember))
    if body[:5] == b"<?xml":
        for wrong, right in NAMES:
            body = body.replace(wrong, right)
        head["headers"] = [(k, v) for k, v in head["headers"] if k.lower() != "content-length"]
        head["headers"].append(("Content-Length", str(len(body))))
    start(head["status"], head["headers"])
    return [body]


run_simple("127.0.0.1", int(sys.argv[1]), corrected, threaded=True)
