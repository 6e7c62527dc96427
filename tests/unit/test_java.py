import os
import subprocess

from extract_jobs.spark.java import bundled_java_home


def test_java_starts_with_a_module_that_its_runtime_lacks():
    java = str(bundled_java_home() / "bin" / "java")
    settings = ("-Dname=a b", "-XshowSettings:properties")
    started = subprocess.run(
        [java, "--add-modules=jdk.incubator.vector", *settings, "-version"],
        capture_output=True,
        text=True,
        env={"PATH": os.defpath},
        check=True,
    )
    assert "name = a b" in started.stderr
