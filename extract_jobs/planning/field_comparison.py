"""Compares the fields of one level, a table's columns or a struct's fields, with those before.

The same rules hold at every depth. A change is named by its path from the column down, as
``columns.mask`` spells it: lists are skipped, the values of a map are ``value``, its keys ``key``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from extract_jobs.reporting.report import ChangeKind, SchemaChange
from extract_jobs.spec.parts import SchemaChangeSpec
from extract_jobs.transform.casts import can_keep, is_promotion, is_wider
from extract_jobs.transform.columns import clashes
from extract_jobs.transform.types import iceberg_promotes, kind, printed_type

_MAX_NAMES = 20


@dataclass
class Changes:
    """The policies, and what was found under them so far.

    Attributes:
        policies: What happens for each kind of change.
        beside: Whether older files stay beside the new ones.
        promotes: Whether older files are read as what a column is now, as in an Iceberg table.
        found: Changes, in the order found.
        refused: One sentence for each change that is not allowed.
    """

    policies: SchemaChangeSpec
    beside: bool
    promotes: bool = False
    found: list[SchemaChange] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    def policy(self, of: ChangeKind) -> str:
        """Return the policy for a kind of change."""
        found: str = getattr(self.policies, of)
        return found

    def add(self, of: ChangeKind, path: str | None, before: Any, after: Any, effect: str) -> None:
        """Report a change, and refuse it if its policy is ``fail``."""
        change = SchemaChange(kind=of, column=path, before=before, after=after, effect=effect)
        self.found.append(change)
        if of != "masked" and self.policy(of) == "fail":
            self.refused.append(f"{change.difference}, and on_schema_change.{of} is fail")

    def reorder(self, path: str | None, before: Sequence[str], after: Sequence[str]) -> None:
        """Report that the same names stand in another order."""
        keeps = self.keeps_order
        effect = "files keep the order that they had" if keeps else "files have the new order"
        self.add("reordered", path, *_moved(before, after), effect)

    @property
    def keeps_order(self) -> bool:
        """Whether files have their fields in the order that they had."""
        return self.beside or self.policy("reordered") != "evolve"


@dataclass(frozen=True)
class Fields:
    """The fields of one level. Types that commits keep are text, as pyarrow prints them.

    Attributes:
        changes: Receives what is found.
        was: Type by name of the source's fields at the last commit.
        now: Type by name of the source's fields, as files would have them if there were none yet.
        older: Type by name of the fields in existing files.
        path: Path of the level with a dot behind it; empty for the table itself.
        hashed: Columns with a mask ``hash``, then or now, in themselves or inside.
        needed: Fields that the spec needs: by name, the key that names each.
        moved_in: Fields that were in the path of the files until now.
        in_path: Fields that are in the path of the files, and so not in them.
    """

    changes: Changes
    was: Mapping[str, str]
    now: Mapping[str, pa.DataType]
    older: Mapping[str, str]
    path: str = ""
    hashed: frozenset[str] = frozenset()
    needed: Mapping[str, str] = field(default_factory=dict)
    moved_in: frozenset[str] = frozenset()
    in_path: frozenset[str] = frozenset()

    def compared(self) -> dict[str, pa.DataType]:
        """Report what changed, and return the types of the fields that files have, in order."""
        types = dict(self._kept()) | dict(self._filled())
        return {name: types[name] for name in self._ordered(types)}

    def _kept(self) -> Iterator[tuple[str, pa.DataType]]:
        """Yield name and type of the source's fields, without those left out."""
        for name, data_type in self.now.items():
            is_new, path = name not in self.was, self.path + name
            if name in self.older:
                if is_new:
                    self.changes.add("added", path, None, str(data_type), "extracted again")
                was = self.was.get(name, self.older[name])
                yield name, self._type(name, was, data_type, self.older[name])
            elif name in self.moved_in:
                yield name, data_type
            elif self.changes.policy("added") == "evolve":
                self.changes.add("added", path, None, str(data_type), "extracted")
                yield name, data_type
            else:
                if is_new:
                    self.changes.add("added", path, None, str(data_type), "not extracted")
                if name in self.needed:
                    self.changes.refused.append(
                        f"column {path} is left out by on_schema_change.added, but "
                        f"{self.needed[name]} names it"
                    )
                    yield name, data_type  # what needs it is built before the refusal

    def _filled(self) -> Iterator[tuple[str, pa.DataType]]:
        """Yield name and type of fields that stay in the files, filled with NULL."""
        fill = self.changes.beside or self.changes.policy("dropped") != "evolve"
        for name in dict.fromkeys([*self.was, *self.older]):
            if name in self.now or name in self.in_path:
                continue
            known = printed_type(self.older[name]) if name in self.older else None
            if name in self.was:
                effect = "written as NULL" if fill and known is not None else "not written"
                self.changes.add("dropped", self.path + name, self.was[name], None, effect)
            if fill and known is not None:
                yield name, known

    def _ordered(self, types: Mapping[str, pa.DataType]) -> list[str]:
        """Return names in the order of the files; older ones keep their positions."""
        both = [name for name in self.now if name in self.was]
        before = [name for name in self.was if name in self.now]
        if both != before:
            self.changes.reorder(self.path.rstrip(".") or None, before, both)
        keeps = self.changes.keeps_order
        first = [name for name in self.older if name in types] if keeps else list(self.now)
        return [n for n in dict.fromkeys([*first, *self.now, *types]) if n in types]

    def _type(self, name: str, was: str, now: pa.DataType, old: str) -> pa.DataType:
        """Return the type in new files of a field that existing files have."""
        if str(now) == old == was:
            return now
        path, hashed = self.path + name, name in self.hashed
        return _Both(self.changes, hashed=hashed).compared(path, was, now, old)


@dataclass(frozen=True)
class _Both:
    """A field that is in existing files and in the source, compared down to its leaves."""

    changes: Changes
    hashed: bool

    def compared(self, path: str, was: str, now: pa.DataType, old: str) -> pa.DataType:
        """Report what changed in a field or below it, and return its type in new files."""
        types = pa.types
        before, kept = printed_type(was), printed_type(old)
        if before is None or kept is None:
            return self._leaf(path, was, now, old)
        three = (before, now, kept)
        if all(map(types.is_struct, three)):
            return self._struct(path, before, now, kept)
        if all(map(types.is_list, three)):
            items = (before.value_type, now.value_type, kept.value_type)
            return pa.list_(self._below(path, *items))
        if all(map(types.is_map, three)):
            keys = (before.key_type, now.key_type, kept.key_type)
            items = (before.item_type, now.item_type, kept.item_type)
            return pa.map_(self._below(f"{path}.key", *keys), self._below(f"{path}.value", *items))
        return self._leaf(path, was, now, old)

    def _below(
        self, path: str, was: pa.DataType, now: pa.DataType, old: pa.DataType
    ) -> pa.DataType:
        return self.compared(path, str(was), now, str(old))

    def _struct(
        self, path: str, was: pa.DataType, now: pa.DataType, old: pa.DataType
    ) -> pa.DataType:
        inner = Fields(
            self.changes,
            was={f.name: str(f.type) for f in was},
            now={f.name: f.type for f in now},
            older={f.name: str(f.type) for f in old},
            path=f"{path}.",
            hashed=frozenset(now.names if self.hashed else ()),
        )
        found = inner.compared()
        names = [*old.names, *found] if self.changes.beside else list(found)
        self.changes.refused += clashes([f"{path}.{name}" for name in names])
        return pa.struct(list(found.items()))

    def _leaf(self, path: str, was: str, now: pa.DataType, old: str) -> pa.DataType:
        """Return the type in new files of a field that is compared as a whole."""
        text, changed, changes = str(now), str(now) != was, self.changes
        if text == old == was:
            return now
        before = was if changed else old
        of = _kind(printed_type(before), now)
        if text == old:
            changes.add(of, path, was, text, "as the files have it")
            return now
        kept, policy = printed_type(old), changes.policy(of)
        if not changes.beside and policy in ("evolve", "new_files"):
            changes.add(of, path, before, text, f"written as {text}")
            return now
        if changes.promotes:
            if policy in ("evolve", "new_files") and kept and iceberg_promotes(kept, now):
                changes.add(of, path, before, text, f"written as {text}, older files are read so")
                return now
        elif policy == "new_files" and kept is not None and is_promotion(now, kept):
            changes.add(of, path, before, text, f"written as {text}, older files keep {old}")
            return now
        if changed:
            changes.add(of, path, was, text, f"written as {old}, where values fit")
        mixes = self.hashed and "string" in (text, old)
        if kept is None or mixes or not can_keep(now, kept):
            changes.refused.append(f"column {path} is {old} in older files and now {text}")
        return now if kept is None else kept


def _kind(before: pa.DataType | None, after: pa.DataType) -> ChangeKind:
    return "widened" if before is not None and is_wider(after, before) else "narrowed"


def kind_of_change(before: str, after: str) -> ChangeKind:
    """Return whether a type, as pyarrow prints it, was widened or narrowed."""
    found = printed_type(after)
    return "narrowed" if found is None else _kind(printed_type(before), found)


def spelled_alike(before: str, after: str) -> bool:
    """Return whether folders have the same names for values of either type."""
    old, new = printed_type(before), printed_type(after)
    if old is None or new is None:
        return False
    kinds = {kind(old), kind(new)}
    if kinds == {"decimal"}:
        return bool(old.scale == new.scale)
    return kinds <= {"integer", "string", "boolean", "date"}


def _moved(before: Sequence[str], after: Sequence[str]) -> tuple[str, str]:
    """Return two orders of the same names, without their common ends, and shortened.

    Otherwise the report of a very wide table would be all names.
    """
    differs = [i for i, pair in enumerate(zip(before, after, strict=True)) if pair[0] != pair[1]]
    span = slice(differs[0], differs[-1] + 1)
    both = [list(names[span]) for names in (before, after)]
    was, now = (", ".join([*n[:_MAX_NAMES], *["…"][: len(n) > _MAX_NAMES]]) for n in both)
    return was, now
