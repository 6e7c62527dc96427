"""The tracking table in memory: the calls of DynamoDB that `Tracking` makes, and their conditions.

As fast as a dict, so that thousands of histories run in seconds. tests/unit/test_tracking.py holds
it against the emulators: every write over every status and fence ends there as it does here.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, ClassVar

from botocore.exceptions import ClientError

from tests.support.memory_storage import Process

Key = tuple[str, str]
Item = dict[str, Any]
_TOKEN = re.compile(
    r"attribute_(?P<call>exists|not_exists)\((?P<path>[#\w]+)\)|(?P<word>[#:]?\w+)|(?P<sign><>|<=|=|<|[(),])"
)
_SIGNS = {"<>": "!=", "=": "==", "AND": "and", "OR": "or", "IN": "in"}


class ConditionalCheckFailedException(ClientError):
    pass


class TransactionCanceledException(ClientError):
    pass


def _failed(code: str, kind: type[ClientError] = ClientError, **more: Any) -> ClientError:
    answer: Any = {"Error": {"Code": code}, **more}
    return kind(answer, "Write")


class _Absent:
    """An attribute that an item lacks: no comparison with it holds."""

    def __lt__(self, _other: object) -> bool:
        return False

    __le__ = __lt__

    def __eq__(self, _other: object) -> bool:
        return False

    __hash__ = None  # type: ignore[assignment]


def holds(condition: str, item: Item | None, names: Mapping[str, str], values: Item) -> bool:
    """Return whether a ConditionExpression holds for an item; `None` is no item."""

    def value(typed: Item) -> Any:
        ((kind, text),) = typed.items()
        return int(text) if kind == "N" else text

    def attribute(name: str) -> Any:
        found = (item or {}).get(names.get(name, name))
        return _Absent() if found is None else value(found)

    def translated(found: re.Match[str]) -> str:
        if found["call"]:
            there = names.get(found["path"], found["path"]) in (item or {})
            return str(there == (found["call"] == "exists"))
        if found["sign"]:
            return _SIGNS.get(found["sign"], found["sign"])
        word = found["word"]
        if word in _SIGNS:
            return _SIGNS[word]
        return f"_({word!r})"

    def operand(word: str) -> Any:
        return value(values[word]) if word.startswith(":") else attribute(word)

    return bool(eval(_TOKEN.sub(translated, condition), {"_": operand}))


@dataclass
class Table:
    """Items, shared by all processes."""

    name: str = "tracking"
    items: dict[Key, Item] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass(frozen=True)
class MemoryDynamoDB:
    """One process's client. Every call asks the process before and after, as storage does."""

    table: Table
    process: Process
    exceptions: ClassVar[Any] = SimpleNamespace(
        ConditionalCheckFailedException=ConditionalCheckFailedException,
        TransactionCanceledException=TransactionCanceledException,
    )

    def get_item(self, **asked: Any) -> Item:
        return self._call("get_item", asked["TableName"], lambda: self._found(_key(asked["Key"])))

    def put_item(self, **asked: Any) -> None:
        self._call("put_item", asked["TableName"], lambda: self._write_one("Put", asked))

    def update_item(self, **asked: Any) -> None:
        self._call("update_item", asked["TableName"], lambda: self._write_one("Update", asked))

    def transact_write_items(self, **asked: Any) -> None:
        wanted = [(kind, each) for one in asked["TransactItems"] for kind, each in one.items()]
        name = wanted[0][1]["TableName"]
        self._call("transact_write_items", name, lambda: self._write_all(wanted))

    def batch_get_item(self, **asked: Any) -> Item:
        ((name, wanted),) = asked["RequestItems"].items()

        def effect() -> Item:
            found = [self._found(_key(key)) for key in wanted["Keys"]]
            return {"Responses": {name: [f["Item"] for f in found if f]}}

        return self._call("batch_get_item", name, effect)

    def query(self, **asked: Any) -> Item:
        wanted = asked["ExpressionAttributeValues"][":execution"]

        def effect() -> Item:
            listed = [dict(item) for _, item in sorted(self.table.items.items())]
            return {"Items": [item for item in listed if item.get("execution_id") == wanted]}

        return self._call("query", asked["TableName"], effect)

    def _call(self, name: str, table: str, effect: Callable[[], Any]) -> Any:
        self.process.enter(name)
        if table != self.table.name:
            raise _failed("ResourceNotFoundException")
        with self.table.lock:
            result = effect()
        self.process.leave(name)
        return result

    def _found(self, key: Key) -> Item:
        return {"Item": dict(self.table.items[key])} if key in self.table.items else {}

    def _write_one(self, kind: str, asked: Item) -> None:
        if not self._allowed(kind, asked):
            raise _failed("ConditionalCheckFailedException", ConditionalCheckFailedException)
        self._apply(kind, asked)

    def _write_all(self, wanted: list[tuple[str, Item]]) -> None:
        codes = ["None" if self._allowed(*one) else "ConditionalCheckFailed" for one in wanted]
        if set(codes) != {"None"}:
            reasons = [{"Code": code} for code in codes]
            raise _failed(
                "TransactionCanceledException",
                TransactionCanceledException,
                CancellationReasons=reasons,
            )
        for one in wanted:
            self._apply(*one)

    def _apply(self, kind: str, asked: Item) -> None:
        if kind == "Put":
            self.table.items[_key(asked["Item"])] = dict(asked["Item"])
            return
        item = self.table.items.setdefault(_key(asked["Key"]), dict(asked["Key"]))
        names = asked.get("ExpressionAttributeNames", {})
        for part in asked["UpdateExpression"].removeprefix("SET ").split(", "):
            name, holder = part.split(" = ")
            item[names.get(name, name)] = asked["ExpressionAttributeValues"][holder]

    def _allowed(self, kind: str, asked: Item) -> bool:
        condition = asked.get("ConditionExpression")
        if not condition:
            return True
        found = self.table.items.get(_key(asked["Item" if kind == "Put" else "Key"]))
        names = asked.get("ExpressionAttributeNames", {})
        return holds(condition, found, names, asked.get("ExpressionAttributeValues", {}))


def _key(item: Item) -> Key:
    return item["table_id"]["S"], item["run_id"]["S"]
