"""YAML as people write it: plain data, and the line that each value stands on.

Values that YAML 1.1 would convert keep their spelling: keys are always text (``on``, ``no``,
``2024``), and dates are text. Duplicate keys are refused, and so are tags, nesting deeper than
`MAX_DEPTH` and aliases that would expand to more than `MAX_VALUES`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from extract_jobs.config.problems import Path, Problem, dotted, refusal
from extract_jobs.errors import ConfigError

MAX_DEPTH = 50
MAX_VALUES = 2_000_000
"""Keys and values of one file with every alias expanded; 10,000 large tables need a tenth."""
MAX_BYTES = 10 * 2**20
"""Of one file; 10,000 large tables need a fifth."""
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_CORE_INT = re.compile(r"[-+]?(0|[1-9][0-9]{0,999})")
"""No more digits than a watermark's bound may have; what is longer stays text."""
_TRUE = frozenset({"yes", "true", "on"})


class YamlFile:
    """One YAML document.

    Attributes:
        where: What messages call it.
        data: Mappings, lists, text, numbers, booleans and None. Aliases share objects, so never
            change them.
        root: The node that ``data`` was read from.
    """

    def __init__(self, where: str, data: Any, root: yaml.Node, builder: _Builder) -> None:
        self.where = where
        self.data = data
        self.root = root
        self._builder = builder

    def line(self, path: Path) -> int:
        """Return the line, from 1, of the value at ``path`` or of its nearest ancestor."""
        node, line = self.root, self.root.start_mark.line
        for part in path:
            if isinstance(node, yaml.MappingNode):
                entry = self._builder.entries(node).get(str(part))
                if entry is None:
                    break
                line, node = entry[0].start_mark.line, entry[1]
            elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
                if part >= len(node.value):
                    break
                node = node.value[part]
                line = node.start_mark.line
            else:
                break
        return int(line) + 1


def parse_yaml(text: str | bytes, where: str) -> YamlFile:
    """Read one YAML document, as `read_yaml`, and refuse duplicate keys.

    Raises:
        ConfigError: As `read_yaml`, or a duplicate key.
    """
    file, doubled = read_yaml(text, where)
    if doubled:
        raise refusal(where, doubled)
    return file


def read_yaml(text: str | bytes, where: str) -> tuple[YamlFile, list[Problem]]:
    """Read one YAML document.

    Args:
        text: The document; bytes must be UTF-8.
        where: What messages call it, such as its path or URI.

    Returns:
        Its data and lines, with the first value of each key; an empty document's data is None. And
        a problem for each duplicate key, so that it can be reported together with others.

    Raises:
        ConfigError: Not UTF-8, not YAML, more than one document, a tag, or a
            document that is nested too deeply or grows too large through its aliases.
    """
    if len(text) > MAX_BYTES:
        raise ConfigError(
            f"{where}: is {len(text):,} {'bytes' if isinstance(text, bytes) else 'characters'} "
            f"long, and a config may have {MAX_BYTES:,} at most: split it into several sources"
        )
    if isinstance(text, bytes):
        try:
            text = text.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = error.object[: error.start].count(b"\n") + 1
            raise ConfigError(f"{where}:{line}: not UTF-8 text; save the file as UTF-8") from error
    try:
        _check_depth(text, where)
        root = yaml.compose(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise _syntax_error(error, text, where) from error
    if root is None:
        root = yaml.ScalarNode("tag:yaml.org,2002:null", "", yaml.Mark(where, 0, 0, 0, None, 0))
    builder = _Builder()
    data = builder.value(root, ())
    if builder.problems:
        raise refusal(where, [*builder.problems, *builder.doubled])
    return YamlFile(where, data, root, builder), builder.doubled


def _check_depth(text: str, where: str) -> None:
    """Refuse deep nesting before composing, which recurses without limit in libyaml's binding."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                line = event.start_mark.line + 1 if event.start_mark else 1
                raise ConfigError(f"{where}:{line}: nested more than {MAX_DEPTH} levels deep")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _syntax_error(error: yaml.YAMLError, text: str, where: str) -> ConfigError:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    parts = [getattr(error, "problem", None), getattr(error, "context", None)]
    said = ", ".join(filter(None, parts)) or str(error).splitlines()[0]
    line = text.split("\n")[mark.line] if mark and mark.line <= text.count("\n") else ""
    hint = ""
    if " a flow " in said and "${" in line:
        hint = "; put a value with ${…} in quotes where it stands between {} or []"
    elif "cannot start any token" in said:
        hint = "; indent with spaces and quote values that begin with @, ` or %"
    elif "mapping values are not allowed" in said:
        hint = "; quote a value that holds a colon and a space"
    elif "alias" in said:
        hint = "; quote a name, glob or value that begins with *"
    place = f"{where}:{mark.line + 1}" if mark else where
    return ConfigError(f"{place}: not valid YAML: {said}{hint}")


class _Builder:
    """Turns nodes into data, each node once: aliases share the object."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.doubled: list[Problem] = []
        self._done: dict[int, tuple[Any, int]] = {}
        self._entries: dict[int, dict[str, tuple[yaml.Node, yaml.Node]]] = {}
        self._open: set[int] = set()

    def value(self, node: yaml.Node, path: Path) -> Any:
        """Return a node's data; problems are added to ``problems``."""
        return self._sized(node, path)[0]

    def _sized(self, node: yaml.Node, path: Path) -> tuple[Any, int]:
        """Return the data and its number of values with aliases expanded."""
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path), 1
        if id(node) in self._done:
            return self._done[id(node)]
        if id(node) in self._open:
            self._problem(node, path, "an alias that contains itself")
            return None, 1
        self._open.add(id(node))
        data: Any
        if isinstance(node, yaml.MappingNode):
            self._check_tag(node, path, "map")
            entries = self.entries(node, path)
            sized = {key: self._sized(child, (*path, key)) for key, (_, child) in entries.items()}
            data, size = {key: s[0] for key, s in sized.items()}, sum(s[1] for s in sized.values())
        else:
            self._check_tag(node, path, "seq")
            items = [self._sized(child, (*path, i)) for i, child in enumerate(node.value)]
            data, size = [i[0] for i in items], sum(i[1] for i in items)
        self._open.discard(id(node))
        if size > MAX_VALUES:
            self._problem(node, path, f"aliases expand this to more than {MAX_VALUES:,} values")
            data, size = None, 1
        self._done[id(node)] = data, size + 1
        return self._done[id(node)]

    def entries(
        self, node: yaml.MappingNode, path: Path = ()
    ) -> dict[str, tuple[yaml.Node, yaml.Node]]:
        """Return key and value node by key; ``<<`` is merged in below the mapping's own keys."""
        if id(node) in self._entries:
            return self._entries[id(node)]
        own: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        merged: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        self._entries[id(node)] = own  # so that a mapping that merges itself ends
        for key, child in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self._problem(key, path, "a key must be text, not a list or a mapping")
            elif key.tag == "tag:yaml.org,2002:merge":
                for name, entry in self._merge(child, path).items():
                    merged.setdefault(name, entry)
            elif key.value in own:
                first = own[key.value][0].start_mark.line + 1
                text = f"given twice; the first is on line {first}"
                place = dotted((*path, key.value))
                self.doubled.append(Problem(place, text, key.start_mark.line + 1))
            else:
                own[key.value] = key, child
        self._entries[id(node)] = {**merged, **own}
        return self._entries[id(node)]

    def _merge(self, node: yaml.Node, path: Path) -> Mapping[str, tuple[yaml.Node, yaml.Node]]:
        parts: Sequence[yaml.Node] = node.value if isinstance(node, yaml.SequenceNode) else [node]
        merged: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        for part in parts:
            if not isinstance(part, yaml.MappingNode):
                self._problem(part, path, "<< needs a mapping, or a list of mappings")
                continue
            for name, entry in self.entries(part, path).items():
                merged.setdefault(name, entry)
        return merged

    def _scalar(self, node: yaml.ScalarNode, path: Path) -> Any:
        kind = node.tag.removeprefix("tag:yaml.org,2002:")
        text = str(node.value)
        if kind in ("str", "timestamp", "merge", "value"):
            return text
        if kind == "null":
            return None
        if kind == "bool":
            return text.lower() in _TRUE
        if kind == "int":
            # Not 010 (eight), 1_000 or 12:30 (750): those stay text, and the field's type decides.
            return int(text) if _CORE_INT.fullmatch(text) else text
        if kind == "float":
            try:
                return float(text)
            except ValueError:  # .inf, .nan and sexagesimals
                return text
        self._check_tag(node, path, "str")
        return None

    def _check_tag(self, node: yaml.Node, path: Path, plain: str) -> None:
        if node.tag != f"tag:yaml.org,2002:{plain}":
            self._problem(node, path, f"the tag {node.tag} is not supported; leave it out")

    def _problem(self, node: yaml.Node, path: Path, text: str) -> None:
        self.problems.append(Problem(dotted(path), text, node.start_mark.line + 1))
