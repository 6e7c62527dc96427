"""Corrects where ministack's state machine interpreter differs from Step Functions.

ministack 1.5.33 walks an ASL definition in threads. Found by reading `services/stepfunctions.py`
and `core/lambda_runtime.py`, and each shown by a test in ``tests/e2e``:

* ``TimeoutSecondsPath``, ``MaxConcurrencyPath`` and ``ToleratedFailurePercentagePath`` are ignored.
* A child of a distributed Map has a history without its states, and sees the parent's
  ``$$.Execution``; on AWS it is an execution of its own.
* ``ResultWriter`` is ignored: the state's output is all results, not where they were written.
* ``States.ALL`` catches ``States.Runtime``, which Step Functions never allows.
* An exception in a Python Lambda arrives as ``Runtime.HandlerError``, without its class, and ends
  its process; on AWS the process stays and takes the next call.
* Every concurrent Lambda call starts one more process, without limit.
"""

# ruff: noqa: SLF001
# ministack has no other interface to its interpreter; its version is pinned for that.

from __future__ import annotations

import contextvars
import copy
import json
import threading
from collections.abc import Callable
from typing import Any

from ministack.core import lambda_runtime
from ministack.services import lambda_svc
from ministack.services import stepfunctions as interpreter

MAX_LAMBDAS = 4
MAX_STATE_BYTES = 256 * 1024

#: The TimeoutSeconds of the ``.sync`` task that the current thread runs, or None.
TASK_SECONDS: contextvars.ContextVar[float | None] = contextvars.ContextVar(
    "TASK_SECONDS", default=None
)

#: ARN of the role of the state machine whose ``.sync`` task the current thread runs; may be empty.
MACHINE_ROLE: contextvars.ContextVar[str] = contextvars.ContextVar("MACHINE_ROLE", default="")

_UNCATCHABLE = ("States.Runtime", "States.DataLimitExceeded")
_TYPED_ERROR = "__typed_error__"
_PLAIN_REPLY = '{"status": "error", "error": str(e), "trace": traceback.format_exc()}'
_TYPED_REPLY = (
    f'{{"status": "ok", "result": {{"{_TYPED_ERROR}": {{"errorType": type(e).__name__, '
    '"errorMessage": str(e), "stackTrace": traceback.format_tb(e.__traceback__)}}}'
)


def task_failed(error: str, cause: str) -> Exception:
    """Return the exception that passes a task's Error and Cause to the interpreter."""
    failure: Exception = interpreter._ExecutionError(error, cause)
    return failure


def correct_interpreter() -> None:
    """Replace the functions of ministack that differ from Step Functions; once per process."""
    _type_lambda_errors()
    interpreter._call_lambda = _bounded(interpreter._call_lambda, MAX_LAMBDAS)
    interpreter._execute_task = _with_paths(interpreter._execute_task)
    interpreter._run_distributed_map = _with_map_paths(interpreter._run_distributed_map)
    interpreter._run_sub_machine = _run_child
    interpreter._error_matches = _error_matches


def register_task(prefix: str, run: Callable[[str, dict[str, Any]], dict[str, Any]]) -> None:
    """Register ``run(resource, parameters)`` for resources with a prefix."""
    interpreter._SERVICE_DISPATCH[prefix] = run


def _with_paths(execute: Callable[..., Any]) -> Callable[..., Any]:
    """Resolve TimeoutSecondsPath; pass a ``.sync`` task its timeout, so that it can end its worker.

    A ``.sync`` task's time counts from the start of its worker: this machine has fewer cores than
    AWS has workers, and waiting for one must not count against the table.
    """

    def execute_task(state: dict[str, Any], raw: Any, execution: Any, ctx: Any) -> Any:
        state = dict(state)
        path = state.pop("TimeoutSecondsPath", None)
        if path is not None:
            state["TimeoutSeconds"] = interpreter._resolve_path_or_ctx(path, raw, ctx)
        if not str(state.get("Resource", "")).endswith(".sync"):
            return execute(state, raw, execution, ctx)
        seconds = state.pop("TimeoutSeconds", None)
        if path is not None and (not isinstance(seconds, int) or seconds <= 0):
            raise task_failed(
                "States.Runtime", f"{path} must be a positive integer, but was {seconds!r}"
            )
        token = TASK_SECONDS.set(None if seconds is None else float(seconds))
        role = MACHINE_ROLE.set(_role_of(execution))
        try:
            return execute(state, raw, execution, ctx)
        finally:
            TASK_SECONDS.reset(token)
            MACHINE_ROLE.reset(role)

    return execute_task


def _role_of(execution: dict[str, Any]) -> str:
    """Return the ARN of the role of an execution's state machine, or of its child's."""
    arn = str(execution["stateMachineArn"]).partition("/")[0]
    return str((interpreter._state_machines.get(arn) or {}).get("roleArn", ""))


def _with_map_paths(run_map: Callable[..., Any]) -> Callable[..., Any]:
    """Resolve the paths of a distributed Map, and return what a ResultWriter returns."""

    def run_distributed_map(  # noqa: PLR0917 - ministack's signature
        state: dict[str, Any], raw: Any, effective: Any, iterator: Any, execution: Any, ctx: Any
    ) -> Any:
        state = dict(state)
        for name in ("MaxConcurrency", "ToleratedFailurePercentage", "ToleratedFailureCount"):
            path = state.pop(f"{name}Path", None)
            if path is not None:
                state[name] = interpreter._resolve_path_or_ctx(path, effective, ctx)
        writer = state.get("ResultWriter")
        if not writer:
            return run_map(state, raw, effective, iterator, execution, ctx)
        result_path = state.pop("ResultPath", "$")
        selector = state.pop("ResultSelector", None)
        output_path = state.pop("OutputPath", "$")
        _, following = run_map(state, raw, effective, iterator, execution, ctx)
        run = max(
            (r for r in interpreter._map_runs.values()
             if r["executionArn"] == execution["executionArn"]),
            key=lambda r: r["startDate"],
        )  # fmt: skip
        where = interpreter._resolve_params_obj(writer.get("Parameters") or {}, effective, ctx)
        name = run["mapRunArn"].rsplit(":", 1)[-1]
        result: Any = {
            "MapRunArn": run["mapRunArn"],
            "ResultWriterDetails": {
                "Bucket": where.get("Bucket"),
                "Key": f"{where.get('Prefix', '')}/{name}/manifest.json",
            },
        }
        result = interpreter._resolve_params_obj(selector, result) if selector else result
        output = interpreter._apply_result_path_raw(result_path, raw, result)
        return interpreter._apply_output_path({"OutputPath": output_path}, output, ctx), following

    return run_distributed_map


def _run_child(
    states: dict[str, Any], start_at: str, given: Any, execution: dict[str, Any], ctx: Any
) -> Any:
    """Walk a child's states as an execution of its own, with the history that AWS would have."""
    if execution.get("mapRunArn"):
        ctx["Execution"] = {
            "Id": execution["executionArn"],
            "Input": copy.deepcopy(given),
            "Name": execution["name"],
            "StartTime": execution["startDate"],
        }
    name: str | None = start_at
    value = copy.deepcopy(given)
    try:
        while name:
            state = states.get(name)
            if state is None:
                raise task_failed("States.Runtime", f"State {name!r} not found in the definition")
            _record(execution, f"{state.get('Type')}StateEntered", name, value)
            ctx["State"] = {
                "Name": name, "EnteredTime": interpreter.now_iso(), "RetryCount": 0,
            }  # fmt: skip
            entered = name
            value, name = _execute(state, value, execution, ctx)
            _record(execution, f"{state.get('Type')}StateExited", entered, value)
            if len(json.dumps(value)) > MAX_STATE_BYTES:
                raise task_failed(
                    "States.DataLimitExceeded",
                    f"The state/task {entered!r} returned a result with a size exceeding the "
                    "maximum number of bytes service limit.",
                )
    except interpreter._ExecutionError as error:
        details = {"error": error.error, "cause": error.cause}
        interpreter._add_event(
            execution, "ExecutionFailed", {"executionFailedEventDetails": details}
        )
        raise
    interpreter._add_event(
        execution, "ExecutionSucceeded",
        {"executionSucceededEventDetails": {"output": json.dumps(value)}},
    )  # fmt: skip
    return value


def _execute(
    state: dict[str, Any], value: Any, execution: dict[str, Any], ctx: Any
) -> tuple[Any, str | None]:
    """Run one state; return its output and the next state's name, None at the end."""
    kind = state.get("Type")
    if kind == "Succeed":
        taken = interpreter._apply_input_path(state, value, ctx)
        return interpreter._apply_output_path(state, taken, ctx), None
    if kind == "Fail":
        raise task_failed(*interpreter._fail_state_error(state, value, ctx))
    run = getattr(interpreter, f"_execute_{str(kind).lower()}", None)
    if run is None:
        raise task_failed("States.Runtime", f"Unknown state type: {kind}")
    if kind in ("Task", "Parallel", "Map"):
        output, following = run(state, value, execution, ctx)
    else:
        output, following = run(state, value, ctx)
    return output, following


def _record(execution: dict[str, Any], kind: str, name: str, value: Any) -> None:
    """Add one ``…StateEntered`` or ``…StateExited`` event to a history."""
    entered = kind.endswith("Entered")
    key = "stateEnteredEventDetails" if entered else "stateExitedEventDetails"
    details = {"name": name, "input" if entered else "output": json.dumps(value)}
    interpreter._add_event(execution, kind, {key: details})


def _error_matches(expected: list[str], error: str) -> bool:
    """Return whether a Retry or Catch names an error, as Step Functions does.

    https://docs.aws.amazon.com/step-functions/latest/dg/concepts-error-handling.html
    """
    if error in expected:
        return True
    if error in _UNCATCHABLE:
        return False
    return "States.ALL" in expected or (
        "States.TaskFailed" in expected and error != "States.Timeout"
    )


def _bounded(call: Callable[..., Any], limit: int) -> Callable[..., Any]:
    """Let at most ``limit`` calls run at the same time; others wait."""
    slots = threading.BoundedSemaphore(limit)

    def bounded_call(*arguments: Any) -> Any:
        with slots:
            return call(*arguments)

    return bounded_call


def _type_lambda_errors() -> None:
    """Make a Python Lambda's exception arrive with its class, message and stack, as on AWS.

    To ministack, the call returns this error: a call that fails ends its process.
    """
    script = lambda_runtime._PYTHON_WORKER_SCRIPT
    if _PLAIN_REPLY not in script:
        raise RuntimeError("ministack's Lambda worker script is not the one this was written for")
    lambda_runtime._PYTHON_WORKER_SCRIPT = script.replace(_PLAIN_REPLY, _TYPED_REPLY)
    execute = lambda_svc._execute_function_warm

    def execute_function_warm(*arguments: Any) -> dict[str, Any]:
        result: dict[str, Any] = execute(*arguments)
        body = result.get("body")
        if not isinstance(body, dict):
            return result
        if _TYPED_ERROR in body:
            result |= {"body": body[_TYPED_ERROR], "error": True}
        elif result.get("error") and body.get("errorMessage") == "Worker process died":
            result["body"] = {
                "errorType": "Runtime.ExitError",
                "errorMessage": "RequestId: local Error: Runtime exited without providing a reason",
            }
        return result

    lambda_svc._execute_function_warm = execute_function_warm
