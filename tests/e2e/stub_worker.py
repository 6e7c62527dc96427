"""A worker of the state machine's tests: does no extract, leaves a report, ends as it is told.

Only the standard library, so that five hundred of them start in seconds. What it does is in its
table's name, which ends in ``.<behaviour>_<number>``; ``once`` is for the first attempt alone. Of a
batch it runs all tables that have no report of success yet.
"""

import http.client
import json
import os
import sys
from urllib.parse import quote, urlsplit

BEHAVIOURS = {
    "ok": (0, None),
    "refused": (1, ("TypeNotRepresentable", False)),
    "busy": (75, ("SourceUnavailable", True)),
    "hungry": (1, ("WorkerOutOfMemory", True)),
    "silent": (1, None),
    "killed": (-9, None),
}


def main():
    given = {k.removeprefix("--"): v for k, v in zip(sys.argv[1::2], sys.argv[2::2], strict=True)}
    if "/batches/" not in given["spec_uri"]:
        return run(given)
    tables = json.loads(call("GET", given["spec_uri"]))["batch"]
    return max(run({**given, **table}) for table in tables if is_left(table, given["attempt"]))


def is_left(table, attempt):
    """Return whether no earlier attempt has left a report that ends the table; moves its URI."""
    folder = table["report_uri"].rpartition("/")[0]
    table["report_uri"] = f"{folder}/attempt-{attempt}.json"
    before = [json.loads(call("GET", f"{folder}/attempt-{n}.json") or "{}")
              for n in range(1, int(attempt))]  # fmt: skip
    return all((found.get("error") or {"retryable": not found})["retryable"] for found in before)


def run(given):
    behaviour, _, when = given["extract_table"].rsplit(".", 1)[1].rsplit("_", 1)[0].partition("_")
    if when == "once" and int(given["attempt"]) > 1:
        behaviour = "ok"
    code, error = BEHAVIOURS[behaviour]
    if code == -9:
        os.kill(os.getpid(), 9)
    if behaviour != "silent":
        call("PUT", given["report_uri"], json.dumps(report(given, error)).encode())
    print("StubError: as asked" if code else "done", file=sys.stderr)
    return code


def report(given, error):
    return {
        "status": "failed" if error else "succeeded",
        "run_id": given["run_id"],
        "attempt": int(given["attempt"]),
        "source_name": given["source_name"],
        "extract_table": given["extract_table"],
        "target_uri": "s3://lake/stub",
        "rows": 0 if error else 7,
        "error": error and {"class_name": error[0], "message": "as asked", "retryable": error[1]},
    }


def call(method, uri, body=None):
    bucket_and_key = quote(uri.removeprefix("s3://"))
    connection = http.client.HTTPConnection(urlsplit(os.environ["AWS_ENDPOINT_URL"]).netloc)
    connection.request(method, f"/{bucket_and_key}", body)
    answer = connection.getresponse()
    if answer.status not in {200, 404}:
        raise SystemExit(f"{method} {uri}: HTTP {answer.status}")
    return answer.read() if answer.status == 200 else None


if __name__ == "__main__":
    sys.exit(main())
