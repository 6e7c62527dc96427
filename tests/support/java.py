"""Java for tests: quick to start, because no test runs long enough for its optimizing compiler."""

from __future__ import annotations

QUICK_JAVA = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
QUICK_JAVA_ENVIRONMENT = {"JAVA_TOOL_OPTIONS": QUICK_JAVA}
"""The same for every JVM that a process starts; each says so on standard error."""
