"""The head of a config that ``init --from`` writes: the source, and defaults for all its tables."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

from extract_jobs.cli.suggest import quoted
from extract_jobs.connections import secret_text
from extract_jobs.connections.databases import ENGINES
from extract_jobs.errors import ConfigError
from extract_jobs.spec.source import holds_password
from extract_jobs.spec.uris import absolute, is_inside

_HEADER = """\
# The tables of {place}.
# Lines with a # are suggestions, or tables that cannot be extracted as they are.
# `extract-jobs validate {file}` checks this file, `extract-jobs run {file}` runs it.
# `extract-jobs init {file} --update` adds tables that are new, and changes nothing else.
version: 1

source:
  name: {name}
  type: {type}
  connection:
{connection}
defaults:
  mode: full                       # all rows every time; the target holds the newest run
  target:
    uri: {uri}
  # job_type: ecs                  # on AWS, where small tables start sooner than on glue

tables:
"""


def config_header(path: Path, arguments: argparse.Namespace) -> str:
    """Return a new config up to the key ``tables``.

    Args:
        path: The config's file, whose name is the source's.
        arguments: Of the command ``init``, with ``--from``.

    Raises:
        ConfigError: ``--from`` names nothing that can be listed, or the target lies in it.
        SourceUnavailable: AWS cannot be reached for a secret.
    """
    place = arguments.source
    kind, connection = _connection(place)
    if arguments.user:
        connection["user"] = arguments.user
    if arguments.password_env:
        connection["password_env"] = arguments.password_env
    if arguments.driver:
        is_maven = re.fullmatch(r"[^:/\\\s]+:[^:/\\\s]+:[^:/\\\s]+", arguments.driver)
        driver = arguments.driver if is_maven else absolute(arguments.driver, str(Path.cwd()))
        connection["packages" if is_maven else "jars"] = [driver]
    folder = path.absolute().parent
    base = (arguments.target or "lake").rstrip("/") or "/"
    if kind == "files" and is_inside(absolute(base, str(folder)), connection["uri"]):
        given = f"--target {base}" if arguments.target else f"the default --target, {base},"
        raise ConfigError(f"{given} lies in {place}, whose files are read: name a folder elsewhere")
    inner = (
        "{source_name}/{table}" if kind in ("files", "sqlite") else "{source_name}/{schema}/{table}"
    )
    connection = {
        key: _relative(value, folder) if key in ("uri", "path") else value
        for key, value in connection.items()
    }
    return _HEADER.format(
        place=" ".join(place.split()) if place.isprintable() else "a source",
        file=path,
        name=quoted(path.stem),
        type=kind,
        connection="".join(f"    {key}: {_scalar(it)}\n" for key, it in connection.items()),
        uri=quoted(f"{base}/{inner}"),
    )


def _scalar(value: str | list[str]) -> str:
    """Return YAML of a text or a list of texts."""
    return quoted(value) if isinstance(value, str) else f"[{', '.join(map(quoted, value))}]"


def _relative(place: str, folder: Path) -> str:
    """Return a path below the config's folder as one that starts there; others unchanged."""
    inside = Path(place)
    if "://" in place or not inside.is_relative_to(folder):
        return place
    below = inside.relative_to(folder).as_posix()
    return below if below == "." else f"./{below}"


def _connection(place: str) -> tuple[str, dict[str, Any]]:
    """Return the source's type and its connection's keys."""
    prefix, _, name = place.partition(":")
    if prefix in _SECRETS and name and not name.startswith("//"):
        key = _SECRETS[prefix]
        text = secret_text(
            secret_id=name if key == "secret_id" else None,
            ssm_parameter=name if key == "ssm_parameter" else None,
            env=name if key == "url_env" else None,
            key="--from",
        )
        return _engine(text, place), {key: name}
    is_url = "://" in place or prefix == "jdbc"
    if is_url and holds_password(place):
        raise ConfigError(
            f"--from {prefix}://…: the URL holds a password; leave it out, put it into an "
            "environment variable, and name that in --password-env"
        )
    if is_url and prefix not in ("s3", "file"):
        return _engine(place, place), {"url": place}
    local = absolute(place, str(Path.cwd()))
    if place.startswith("s3://") or Path(local.removeprefix("file://")).is_dir():
        return "files", {"uri": local}
    if Path(local.removeprefix("file://")).is_file():
        return "sqlite", {"path": local}
    raise ConfigError(
        f"--from {place}: there is no such file or folder; expected a path, a database's URL, "
        "secret:NAME, ssm:NAME or env:NAME"
    )


_SECRETS = {"secret": "secret_id", "ssm": "ssm_parameter", "env": "url_env"}


def _engine(text: str, place: str) -> str:
    """Return the type of source that a URL or a secret is of; the text is in no message."""
    text = text.strip()
    is_jdbc = text.startswith("jdbc:")
    word = text.removeprefix("jdbc:").partition(":")[0].lower()
    if text.startswith("{"):
        try:
            word = str(json.loads(text).get("engine") or "postgres")
        except (ValueError, AttributeError, RecursionError):
            word = ""
    for name, kind in ENGINES.items():
        known = word in kind.schemes or any(word.startswith(w) for w in kind.secret_words)
        if known and (kind.takes_jdbc or not is_jdbc):
            return name
    if is_jdbc:
        return "jdbc"
    shown = place if place.partition(":")[0] in _SECRETS else f"{place.partition('://')[0]}://…"
    raise ConfigError(
        f"--from {shown}: this kind of URL is not supported. For a database with a JDBC driver "
        "give jdbc:…; for other sources write the config by hand (extract-jobs init shows an "
        "example)"
    )
