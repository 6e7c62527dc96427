#!/bin/bash
# botocore 1.43.106: a page of HTML with the status 200, such as a proxy's login page, is a success of
# every JSON and XML call: the page is no JSON, so the answer has no fields, and nothing is raised. An
# item reads as absent, a write as done, a listing as empty; only a caller that asks for a field by
# `answer["…"]` sees a KeyError.
#
# Output seen:
#   dynamodb get_item: ['ResponseMetadata']
#   dynamodb put_item: ['ResponseMetadata']
#   s3 put_object: ['ResponseMetadata']
#   secretsmanager get_secret_value: ['ResponseMetadata']
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/v"
"$folder/v/bin/pip" install -q --disable-pip-version-check 'boto3==1.43.106' 'botocore==1.43.106'
NO_PROXY=127.0.0.1 "$folder/v/bin/python" - <<'PY'
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import boto3


class Portal(BaseHTTPRequestHandler):
    def answer(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        page = b"<html><body>Please log in</body></html>"
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    do_GET = do_POST = do_PUT = answer

    def log_message(self, *_):
        pass


server = HTTPServer(("127.0.0.1", 0), Portal)
threading.Thread(target=server.serve_forever, daemon=True).start()


def client(service):
    return boto3.client(service, endpoint_url=f"http://127.0.0.1:{server.server_port}",
                        region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x")


key = {"id": {"S": "1"}}
answers = {
    "dynamodb get_item": client("dynamodb").get_item(TableName="t", Key=key),
    "dynamodb put_item": client("dynamodb").put_item(TableName="t", Item=key),
    "s3 put_object": client("s3").put_object(Bucket="b", Key="k", Body=b"x"),
    "secretsmanager get_secret_value": client("secretsmanager").get_secret_value(SecretId="s"),
}
for call, answer in answers.items():
    print(f"{call}: {list(answer)}")
raise SystemExit(any(list(answer) != ["ResponseMetadata"] for answer in answers.values()))
PY
