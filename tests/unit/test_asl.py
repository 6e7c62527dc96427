"""The state machine's definition, read as text: what neither linters nor emulators look at.

Each state is given what the state before it gives, in samples made by the code that makes it, and
every path that it reads must be there.
"""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import botocore
import pytest

from entrypoints.handle_extract_job_run_status import _MAX_SUMMARY_MESSAGE
from extract_jobs import errors
from extract_jobs.config.model import JobSettings
from extract_jobs.errors import ExtractError
from extract_jobs.spec.arguments import NAMES, parse_arguments
from extract_jobs.spec.parts import JobType
from extract_jobs.tracking.map_item import WORKER_ARGUMENTS, first_item, next_item
from extract_jobs.tracking.service_errors import (
    DYNAMODB,
    ECS,
    ECS_PLACEMENT,
    EMR,
    EMR_SERVERLESS,
    GLUE,
    LAMBDA,
    LAMBDA_FEATURES,
    SERVICES,
)
from tests.support.specs import make_spec

ROOT = Path(__file__).parents[2]
ASL = json.loads((ROOT / "asl/extract_pipeline.asl.json").read_text())
MAP = ASL["States"]["Iterate Through Extract Tables"]
CHILD = MAP["ItemProcessor"]
STATES = {**ASL["States"], **CHILD["States"]}
MANAGER, HANDLER = "Extract Config Manager", "Handle Extract Job Run Status"
SUMMARY, KEEPER = "Summarize Extract Run", "Keep Handler Error"
JOBS = {name: state for name, state in STATES.items() if ".sync" in state.get("Resource", "")}

CALLS = {
    "glue": ("glue", ("StartJobRun", "GetJobRun"), (GLUE,)),
    "emr-serverless": ("emr-serverless", ("StartJobRun", "GetJobRun"), (EMR_SERVERLESS,)),
    "elasticmapreduce": ("emr", ("AddJobFlowSteps", "DescribeStep"), (EMR,)),
    "ecs": ("ecs", ("RunTask", "DescribeTasks"), (ECS, ECS_PLACEMENT)),
    "lambda": ("lambda", ("Invoke",), (LAMBDA,)),
    "dynamodb": ("dynamodb", ("UpdateItem",), (DYNAMODB,)),
}
"""What the resources of Task states call: botocore's service and operations, and our tables."""

LAMBDA_RUNTIME = {"Runtime.ExitError", "Sandbox.Timedout"}
"""What Lambda says in the function's place when its process died or ran out of time."""


def errors_of(service, operations):
    """Return the errors that botocore's model lists for operations."""
    folder = Path(botocore.__file__).parent / "data" / service
    newest = max(folder.iterdir()) / "service-2.json.gz"
    model = json.loads(gzip.decompress(newest.read_bytes()))
    return {e["shape"] for name in operations for e in model["operations"][name].get("errors", [])}


def service_of(state):
    return state["Resource"].split(":::")[1].split(":")[0]


def handlers(kind):
    return [
        (name, entry) for name, state in STATES.items() for entry in state.get(kind, [])
    ]  # fmt: skip


def strings(value):
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from strings(inner) if not isinstance(inner, str) else [(key, inner)]
    elif isinstance(value, list):
        for inner in value:
            yield from strings(inner)


# --- form ------------------------------------------------------------------------------------


def test_the_states_of_the_design_are_there():
    assert {
        "Extract Config Manager", "Iterate Through Extract Tables", "Choose Job Type",
        "Glue Start Extract Job Run", "EMR Start Extract Job Run", "ECS Start Extract Job Run",
        "Handle Extract Job Run Status", "Summarize Extract Run",
    } <= STATES.keys()  # fmt: skip


def test_every_state_retry_and_catch_has_a_comment_for_a_newcomer():
    short = [name for name, state in STATES.items() if len(state.get("Comment", "").split()) < 8]
    assert short == []
    assert [n for k in ("Retry", "Catch") for n, e in handlers(k) if not e.get("Comment")] == []


def test_every_next_is_a_state_of_its_own_machine_and_every_state_is_reached():
    for machine in (ASL, CHILD):
        targets = {machine["StartAt"]}
        for state in machine["States"].values():
            own = {k: v for k, v in state.items() if k != "ItemProcessor"}
            targets |= {v for k, v in strings(own) if k in {"Next", "Default"}}
        assert targets == machine["States"].keys()


def test_every_sync_state_has_a_timeout_from_its_item():
    assert set(JOBS) == {
        "Glue Start Extract Job Run", "EMR Start Extract Job Run",
        "EMR Cluster Start Extract Job Run", "ECS Start Extract Job Run",
    }  # fmt: skip
    assert [n for n, s in JOBS.items() if not s["TimeoutSecondsPath"].startswith("$.")] == []


def test_every_other_task_has_a_timeout():
    others = {n: s for n, s in STATES.items() if s["Type"] == "Task" and n not in JOBS}
    assert [n for n, s in others.items() if not s.get("TimeoutSeconds")] == []
    assert set(others) == {MANAGER, HANDLER, SUMMARY, KEEPER}


def test_the_children_know_nothing_of_the_execution():
    assert [text for _, text in strings(CHILD) if "$$" in text] == []


def test_the_map_is_distributed_and_tolerates_every_child():
    assert CHILD["ProcessorConfig"] == {"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"}
    assert MAP["ToleratedFailurePercentage"] == 100
    assert MAP["ResultPath"] is None
    assert MAP["MaxConcurrencyPath"] == "$.max_concurrency"
    assert MAP["ResultWriter"]["Resource"].endswith("s3:putObject")
    assert MAP["ItemReader"]["ReaderConfig"] == {"InputType": "JSON"}


def test_a_childs_output_is_under_200_bytes_whatever_its_table_is_called():
    ends = [s for s in CHILD["States"].values() if s.get("End") or s["Type"] in {"Succeed", "Fail"}]
    [end] = ends
    assert end["Parameters"] == {"run_id.$": "$.run_id", "outcome.$": "$.outcome"}
    longest = {"run_id": "x" * 128, "outcome": "superseded"}
    assert make_spec(run_id=longest["run_id"]).run_id == longest["run_id"]
    assert len(json.dumps(longest)) < 200


# --- errors ----------------------------------------------------------------------------------


def test_every_error_name_is_a_services_or_a_class_of_errors():
    unknown = []
    for kind in ("Retry", "Catch"):
        for state, entry in handlers(kind):
            for name in entry["ErrorEquals"]:
                prefix, _, rest = name.rpartition(".")
                if prefix == "States":
                    known = rest in {"ALL", "Timeout", "TaskFailed"}
                elif prefix in {"Runtime", "Sandbox"}:
                    known = name in LAMBDA_RUNTIME
                elif prefix in {name for service in SERVICES for name in service.names}:
                    known = any(rest in s.errors for s in SERVICES if prefix in s.names)
                else:
                    found = getattr(errors, name, None)
                    known = isinstance(found, type) and issubclass(found, ExtractError)
                if not known:
                    unknown.append((state, name))
    assert unknown == []


def test_every_error_that_a_service_lists_for_a_call_is_sorted():
    for service, operations, tables in CALLS.values():
        known = {error for table in tables for error in table.errors}
        missing = errors_of(service, operations) - known
        assert {e for e in missing if not (service == "lambda" and LAMBDA_FEATURES.search(e))} == (
            set()
        ), service
        assert not {e for e in known if service == "lambda" and LAMBDA_FEATURES.search(e)}
    assert all(table.page.startswith("https://docs.aws.amazon.com/") for table in SERVICES)
    assert {id(t) for _, _, tables in CALLS.values() for t in tables} == set(map(id, SERVICES))


def test_a_state_tries_again_exactly_what_the_tables_leave_to_it():
    tasks = [state for state in STATES.values() if state["Type"] == "Task"]
    assert {service_of(state) for state in tasks} == set(CALLS)
    for name, state in STATES.items():
        if state["Type"] == "Task":
            _, _, tables = CALLS[service_of(state)]
            expected = {
                f"{prefix}.{error}"
                for table in tables
                for prefix in table.names
                for error, who in table.errors.items()
                if who.startswith("state")
            }
            prefixes = {prefix for table in tables for prefix in table.names}
            retried = [e for entry in state["Retry"] for e in entry["ErrorEquals"]]
            assert {e for e in retried if e.split(".")[0] in prefixes} == expected, name
            assert len(retried) == len(set(retried))


def test_what_is_tried_again_is_enough_for_each_error_once():
    assert {name for name, _ in handlers("Retry")} >= {MANAGER, HANDLER, SUMMARY, *JOBS}
    for name, entry in handlers("Retry"):
        assert len(entry["ErrorEquals"]) <= entry["MaxAttempts"], name


def test_the_machine_and_every_task_have_a_timeout():
    assert ASL["TimeoutSeconds"] == 14 * 24 * 3600


def test_all_stands_alone_and_last():
    caught = {name for name, entry in handlers("Catch") if "States.ALL" in entry["ErrorEquals"]}
    assert caught >= {MANAGER, HANDLER, SUMMARY, KEEPER, *JOBS}
    for kind in ("Retry", "Catch"):
        for state in STATES.values():
            entries = state.get(kind, [])
            for entry in entries:
                if "States.ALL" in entry["ErrorEquals"]:
                    assert entry["ErrorEquals"] == ["States.ALL"]
                    assert entry is entries[-1]


def test_every_job_hands_whatever_went_wrong_to_the_status_handler():
    assert len(JOBS) == 4
    for name, state in JOBS.items():
        assert state["Next"] == HANDLER, name
        [catch] = state["Catch"]
        assert catch["ErrorEquals"] == ["States.ALL"]
        assert (catch["ResultPath"], catch["Next"]) == ("$.job_error", HANDLER)


def test_a_lambda_that_dies_or_ends_late_is_called_again():
    for name in (MANAGER, HANDLER, "Summarize Extract Run"):
        retried = {e for entry in STATES[name]["Retry"] for e in entry["ErrorEquals"]}
        assert retried >= {*LAMBDA_RUNTIME, "Lambda.Unknown", "States.Timeout"}, name


def test_no_function_ends_an_execution_or_a_child_by_an_error_of_its_own():
    for name, goes_to in ((MANAGER, "Extract Run Not Started"), (HANDLER, KEEPER),
                          (SUMMARY, "Extract Run Not Summarized"),
                          (KEEPER, "Leave Table to the Summary")):  # fmt: skip
        [catch] = STATES[name]["Catch"]
        assert (catch["ErrorEquals"], catch["Next"]) == (["States.ALL"], goes_to)
    assert all("ConfigError" not in e["ErrorEquals"] for _, e in handlers("Retry"))


def test_lambda_that_is_throttled_is_waited_for_longer_than_a_minute():
    for name in (HANDLER, SUMMARY):
        [entry] = [e for e in STATES[name]["Retry"]
                   if "Lambda.TooManyRequestsException" in e["ErrorEquals"]]  # fmt: skip
        waits = [min(entry["MaxDelaySeconds"], entry["IntervalSeconds"] * 2**n)
                 for n in range(entry["MaxAttempts"])]  # fmt: skip
        assert sum(waits) / 2 > 120, name  # half of it is what full jitter leaves on average


def test_every_retry_is_jittered_and_bounded():
    assert {name for name, _ in handlers("Retry")} >= {MANAGER, HANDLER, SUMMARY, *JOBS}
    for name, entry in handlers("Retry"):
        assert entry["JitterStrategy"] == "FULL", name
        assert 0 < entry["MaxAttempts"] <= 20
        assert entry["IntervalSeconds"] <= entry["MaxDelaySeconds"] <= 600
        assert entry["BackoffRate"] >= 1


# --- the page that says where each state can end ---------------------------------------------


def rows_of_the_page():
    """Yield the cells of each state's row: state, what fails, who retries, catch, where it ends."""
    page = (ROOT / "docs/pipeline.md").read_text()
    section = page.partition("## Where each state can end")[2].partition("\n## ")[0]
    for line in section.splitlines():
        if line.startswith("| `"):
            yield [cell.strip() for cell in line.strip("|").split("|")]


def test_the_page_has_a_row_for_each_state_with_where_it_leads():
    rows = {cells[0].strip("`"): cells for cells in rows_of_the_page()}
    assert rows.keys() == STATES.keys()
    for name, (_, _, retries, catch, leads) in rows.items():
        state = STATES[name]
        caught = [entry["Next"] for entry in state.get("Catch", [])]
        assert re.findall(r"`([A-Z][\w ]+)`", catch) == caught, name
        own = {k: v for k, v in state.items() if k not in {"ItemProcessor", "Catch"}}
        following = {v for k, v in strings(own) if k in {"Next", "Default"}}
        ends = set(re.findall(r"`([A-Z][\w ]+)`", leads)) & STATES.keys()
        assert ends == following, name
        attempts = [entry["MaxAttempts"] for entry in state.get("Retry", [])]
        assert [int(n) for n in re.findall(r"\b\d+\b", retries)] == attempts, name


# --- data: each state gets what the one before it gives -------------------------------------------

MISSING = object()


def sample_item(job_type="glue"):
    spec = make_spec(tracking_table="tracking")
    return first_item(
        spec,
        JobSettings(job_type=job_type),
        spec_uri="s3://work/specs/1.json",
        execution_id="arn:execution:1",
        generation=1,
        job_defaults={},
    )


MANAGER_ANSWER = {
    "execution_id": "arn:execution:1", "bucket": "work", "key": "x/tables_to_extract.json",
    "table_count": 3, "max_concurrency": 4,
    "tracking_table": "tracking", "note": "",
}  # fmt: skip
ENDED = {"outcome": "failed", "run_id": "run-1"}
RETRY = {**ENDED, "outcome": "retry", "wait_seconds": 60,
         "item": next_item(sample_item(), counted=True, bigger=True)}  # fmt: skip
SUMMED_UP = {"outcome": "failed", "message": "1 of 3 tables failed"}
CONTEXT = {"Execution": {"Id": "arn:execution:1", "StartTime": "2025-03-01T12:00:00Z"}}


def look_up(path, data, context=None):
    value = context if path.startswith("$$") else data
    for name in path.removeprefix("$$").removeprefix("$").strip(".").split("."):
        if name:
            value = value.get(name, MISSING) if isinstance(value, dict) else MISSING
    return value


def paths_of(template):
    """Yield every path that a payload template reads, those inside intrinsic functions too."""
    for key, text in strings(template):
        if key.endswith(".$"):
            bare = re.sub(r"'(?:[^'\\]|\\.)*'", "", text)
            yield from re.findall(r"\$\$?(?:\.\w+)*", bare)


def filled(template, data, context=None):
    """Fill in a payload template; intrinsic functions as far as this definition uses them."""
    if isinstance(template, list):
        return [filled(inner, data, context) for inner in template]
    if not isinstance(template, dict):
        return template
    out = {}
    for key, value in template.items():
        if not key.endswith(".$"):
            out[key] = filled(value, data, context)
        elif value.startswith("States."):
            out[key[:-2]] = intrinsic(value, data)
        else:
            out[key[:-2]] = look_up(value, data, context)
    return out


def intrinsic(text, data):
    name, inside = re.fullmatch(r"States\.(\w+)\((.*)\)", text).groups()
    parts = re.findall(r"States\.\w+\([^()]*\)|'(?:[^'\\]|\\.)*'|\$[\w.]*", inside)
    values = [intrinsic(p, data) if p.startswith("States.")
              else p[1:-1] if p.startswith("'") else look_up(p, data) for p in parts]  # fmt: skip
    if name == "Array":
        return values
    if name == "JsonToString":
        return json.dumps(values[0])
    assert name == "Format", f"a function that this test does not know: {text}"
    assert values[0].count("{}") == len(values) - 1
    return values[0].replace("{}", "%s") % tuple(map(str, values[1:]))


def inputs():
    """Return what each state may be given: state, a name, and the data."""
    started = {"source_name": "sales", "extract_tables": "*"}
    listed = filled(STATES[MANAGER]["ResultSelector"], {"Payload": MANAGER_ANSWER})
    items = [sample_item(job_type) for job_type in JobType.__args__]
    items += [next_item(item, counted=True, bigger=True) for item in items]
    items += [{**items[0], "job_type": "unheard of"}]
    caught = {"Error": "States.TaskFailed", "Cause": "cut"}
    jobs = ["Choose Job Type", "Unknown Job Type", HANDLER, *JOBS]
    return [
        (MANAGER, started),
        ("Iterate Through Extract Tables", listed),
        ("Summarize Extract Run", listed),
        ("Summarize Extract Run", {**listed, "map_error": caught}),
        ("Did Every Table Succeed", SUMMED_UP),
        ("Extract Run Failed", SUMMED_UP),
        ("Extract Run Succeeded", SUMMED_UP),
        # An error need not have a cause: one of a timeout has none.
        *[
            (end, {**data, "failure": failure})
            for end, data in (
                ("Extract Run Not Started", started),
                ("Extract Run Not Summarized", listed),
            )
            for failure in (caught, {"Error": "States.Timeout"})
        ],
        ("Summarize Extract Run", {**listed, "map_error": {"Error": "States.Timeout"}}),
        *[(HANDLER, {**item, "job_error": {"Error": "States.Timeout"}}) for item in items],
        *[
            (name, {**items[0], "handler_error": caught})
            for name in (KEEPER, "Leave Table to the Summary")
        ],
        ("Extract Table Ended", {**items[0], "outcome": "unhandled"}),
        *[(name, item) for name in jobs for item in items],
        *[(HANDLER, {**item, "job_error": caught}) for item in items],
        *[(name, ENDED) for name in ("Choose Next Step", "Extract Table Ended")],
        ("Choose Next Step", RETRY),
        ("Wait Before Next Attempt", RETRY),
    ]


def test_every_state_is_looked_at():
    assert {name for name, _ in inputs()} == STATES.keys()


@pytest.mark.parametrize(("name", "data"), inputs())
def test_every_path_that_a_state_reads_is_in_what_it_is_given(name, data):
    state = STATES[name]
    written = {"ResultPath", "OutputPath"}
    read = [v for k, v in state.items() if k.endswith("Path") and k not in written]
    read = [path for text in read if text for path in re.findall(r"\$\$?(?:\.\w+)*", text)]
    for template in ("Parameters", "ItemReader", "ResultWriter"):
        read += paths_of(state.get(template, {}))
    read += [v for k, v in strings(state.get("Choices", [])) if k == "Variable"]
    if state["Type"] == "Wait":
        read.append(state["OutputPath"])
    assert [p for p in read if look_up(p, data, CONTEXT) in (MISSING, None)] == []


@pytest.mark.parametrize(
    ("name", "answer"),
    [(MANAGER, MANAGER_ANSWER), (HANDLER, ENDED), (HANDLER, RETRY),
     ("Summarize Extract Run", SUMMED_UP)],
)  # fmt: skip
def test_every_path_into_a_lambdas_answer_exists(name, answer):
    given = {"Payload": answer, "StatusCode": 200}
    state = STATES[name]
    paths = [*paths_of(state.get("ResultSelector", {})), state.get("OutputPath", "$")]
    read = [p for p in paths if name != MANAGER or p != "$"]
    assert [p for p in read if look_up(p, given) is MISSING] == []


def test_the_samples_are_what_the_functions_answer():
    # The unit tests of both Lambdas hold the functions to the same keys.
    manager = (ROOT / "entrypoints/extract_config_manager.py").read_text()
    handler = (ROOT / "entrypoints/handle_extract_job_run_status.py").read_text()
    assert [k for k in MANAGER_ANSWER if f'"{k}"' not in manager] == []
    assert [k for k in {**RETRY, **SUMMED_UP} if f'"{k}"' not in handler] == []


def test_a_timeout_is_a_positive_number_and_longer_than_the_services_own():
    assert (len(JobType.__args__), len(JOBS)) == (3, 4)
    for job_type in JobType.__args__:
        item = sample_item(job_type)
        for state in JOBS.values():
            seconds = look_up(state["TimeoutSecondsPath"], item)
            assert isinstance(seconds, int)
            assert seconds > item["glue"]["timeout_minutes"] * 60


def test_a_glue_run_may_wait_a_day_in_the_queue_before_its_own_time_begins():
    job, item = JOBS["Glue Start Extract Job Run"], sample_item()
    assert job["Parameters"]["JobRunQueuingEnabled"] is True
    asked = {e for entry in job["Retry"] for e in entry["ErrorEquals"]}
    assert asked >= {
        "Glue.ConcurrentRunsExceededException", "Glue.ResourceNumberLimitExceededException",
    }  # fmt: skip
    seconds = look_up(job["TimeoutSecondsPath"], item)
    assert seconds >= item["glue"]["timeout_minutes"] * 60 + 24 * 3600


# --- arguments --------------------------------------------------------------------------------


def command_lines():
    item = sample_item()
    glue = filled(JOBS["Glue Start Extract Job Run"]["Parameters"], item)["Arguments"]
    emr = filled(JOBS["EMR Start Extract Job Run"]["Parameters"], item)
    cluster = filled(JOBS["EMR Cluster Start Extract Job Run"]["Parameters"], item)
    ecs = filled(JOBS["ECS Start Extract Job Run"]["Parameters"], item)
    step = cluster["Step"]["HadoopJarStep"]["Args"]
    return {
        "glue": [part for pair in glue.items() for part in pair],
        "emr": emr["JobDriver"]["SparkSubmit"]["EntryPointArguments"],
        "emr_cluster": step[step.index("--run_id") :],
        "ecs": ecs["Overrides"]["ContainerOverrides"][0]["Command"],
    }


@pytest.mark.parametrize("service", ["glue", "emr", "emr_cluster", "ecs"])
def test_every_job_gets_the_same_arguments_and_knows_them_all(service):
    line = command_lines()[service]
    assert all(isinstance(part, str) for part in line)
    assert {key.removeprefix("--") for key in line[::2]} == NAMES == set(WORKER_ARGUMENTS)
    arguments, item = parse_arguments(line), sample_item()
    assert {n: getattr(arguments, n) for n in NAMES} == {n: item[n] for n in NAMES}


def test_ecs_overrides_stay_far_below_its_8192_characters():
    longest = make_spec(extract_table="x" * 127, source_name="y" * 100, run_id="r" * 32)
    item = first_item(
        longest, JobSettings(job_type="ecs"), spec_uri="s3://" + "w" * 1_000,
        execution_id="e" * 300, generation=1, job_defaults={},
    )  # fmt: skip
    item["report_uri"] = "s3://" + "w" * 1_000
    overrides = filled(JOBS["ECS Start Extract Job Run"]["Parameters"], item)["Overrides"]
    assert len(json.dumps(overrides)) < 8_192


def test_each_lambda_is_passed_what_it_reads_and_nothing_else():
    payloads = {n: STATES[n]["Parameters"]["Payload"]
                for n in (MANAGER, HANDLER, "Summarize Extract Run")}  # fmt: skip
    keys = {name: {k.removesuffix(".$") for k in payload} for name, payload in payloads.items()}
    assert keys == {
        MANAGER: {"input", "execution_id", "execution_started_at"},
        HANDLER: {"action", "item"},
        "Summarize Extract Run": {
            "action", "execution_id", "tracking_table", "table_count", "map_error", "note",
        },
    }  # fmt: skip
    read = {
        MANAGER: "extract_config_manager", HANDLER: "handle_extract_job_run_status",
        "Summarize Extract Run": "handle_extract_job_run_status",
    }  # fmt: skip
    for name, module in read.items():
        source = (ROOT / f"entrypoints/{module}.py").read_text()
        assert [k for k in keys[name] if f'event["{k}"]' not in source
                and f'event.get("{k}"' not in source] == [], name  # fmt: skip
    assert (payloads[HANDLER]["action"], payloads["Summarize Extract Run"]["action"]) == (
        "handle", "summarize",
    )  # fmt: skip


def test_the_cause_of_a_failed_execution_fits():
    assert _MAX_SUMMARY_MESSAGE < 32_768
    assert STATES["Extract Run Failed"]["CausePath"] == "$.message"


def test_only_names_of_the_deployment_are_substituted():
    text = (ROOT / "asl/extract_pipeline.asl.json").read_text()
    assert set(re.findall(r"\$\{(\w+)\}", text)) == {
        "ExtractConfigManagerFunctionArn", "HandleExtractJobRunStatusFunctionArn",
        "WorkBucketName",
    }  # fmt: skip


def test_the_definition_passes_cfn_lint_inlined(tmp_path):
    import cfnlint

    template = {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Resources": {
            "Pipeline": {
                "Type": "AWS::StepFunctions::StateMachine",
                "Properties": {
                    "RoleArn": "arn:aws:iam::123456789012:role/states",
                    "Definition": ASL,
                    "DefinitionSubstitutions": {
                        "ExtractConfigManagerFunctionArn": "a",
                        "HandleExtractJobRunStatusFunctionArn": "b",
                        "WorkBucketName": "c",
                    },
                },
            }
        },
    }
    path = tmp_path / "template.json"
    path.write_text(json.dumps(template))
    found = cfnlint.lint_file(path)
    assert [str(match) for match in found] == []
