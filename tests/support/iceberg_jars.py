"""Iceberg's runtime for Spark 3.5, which Maven has and one wheel of PyPI.

The wheel lacks Jackson, which the runtime looks for under names of its own. So Spark's Jackson is
copied under these names: in a Java class all names are entries of a table at its beginning.
"""

from __future__ import annotations

import zipfile
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

import pyspark

_RUNTIME = "iceberg-spark-runtime-3.5_2.12-1.10.2.jar"
_JACKSON = ("annotations", "core", "databind")
_OWN = "org/apache/iceberg/shaded/"
_SIZES = {3: 4, 4: 4, 5: 8, 6: 8, 7: 2, 8: 2, 9: 4, 10: 4, 11: 4, 12: 4, 15: 3, 16: 2, 17: 4,
          18: 4, 19: 2, 20: 2}  # fmt: skip
"""Bytes of a table's entry by its tag; a text, whose tag is 1, tells its own length.

https://docs.oracle.com/javase/specs/jvms/se17/html/jvms-4.html#jvms-4.4
"""


def iceberg_jars(folder: Path) -> list[Path]:
    """Return the jars that let Spark read Iceberg tables; none on Spark 4.

    They must be there when the session starts: Spark gives its tasks jars that are added later by
    another class loader.

    Args:
        folder: Gets the one that is made here.
    """
    if find_spec("snowpark_connect_deps_iceberg") is None:
        return []
    made = folder / "iceberg-jackson.jar"
    there = Path(pyspark.__file__).parent / "jars"
    with zipfile.ZipFile(made, "w") as target:
        for part in _JACKSON:
            [jar] = there.glob(f"jackson-{part}-2.*.jar")
            with zipfile.ZipFile(jar) as source:
                for name in source.namelist():
                    if name.startswith("com/") and name.endswith(".class"):
                        target.writestr(_OWN + name, _renamed(source.read(name)))
    return [Path(str(files("snowpark_connect_deps_iceberg") / "jars" / _RUNTIME)), made]


def _renamed(java_class: bytes) -> bytes:
    """Return a class in which every name of Jackson's is one of Iceberg's."""
    count = int.from_bytes(java_class[8:10])
    parts, position, number = [java_class[:10]], 10, 1
    while number < count:
        tag = java_class[position]
        if tag == 1:
            end = position + 3 + int.from_bytes(java_class[position + 1 : position + 3])
            text = java_class[position + 3 : end]
            for separator in ("/", "."):
                name = separator.join(("com", "fasterxml", "jackson", ""))
                own = _OWN.replace("/", separator) + name
                text = text.replace(name.encode(), own.encode())
            parts += [b"\1", len(text).to_bytes(2), text]
        else:
            end = position + 1 + _SIZES[tag]
            parts.append(java_class[position:end])
        position = end
        number += 2 if tag in {5, 6} else 1  # numbers of eight bytes count twice
    return b"".join([*parts, java_class[position:]])
