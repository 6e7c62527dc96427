"""Which certificates are trusted, and where the bundle of RDS and Redshift is on this machine.

No package that is kept up to date ships that bundle, and a job may have no way to the internet, so
it is a file that the image or the job brings along. It is looked for in each process: the folder of
a Glue executor is not that of its driver.
"""

from __future__ import annotations

import os
from pathlib import Path

from extract_jobs.errors import ConfigError

BUNDLE_VARIABLE = "EXTRACT_RDS_BUNDLE"
BUNDLE_URL = "https://truststore.pki.rds.amazonaws.com/global/global-bundle.pem"
"""https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/UsingWithRDS.SSL.html"""

BUNDLE_PLACES = (
    Path("global-bundle.pem"),  # where Glue's --extra-files and Spark's --files put it
    Path("/etc/extract-jobs/global-bundle.pem"),
    Path("/etc/ssl/certs/global-bundle.pem"),
)
"""Where the bundle is looked for unless `BUNDLE_VARIABLE` names it; the first that exists wins."""


def certificate_file(trusts: str | None) -> str | None:
    """Return the file that ``connection.sslrootcert`` means in this process. Read-only.

    Args:
        trusts: A file, ``system``, ``rds`` or None.

    Returns:
        The file; ``system`` and None as they are.

    Raises:
        ConfigError: There is no such file, or no bundle in any of its places.
    """
    if trusts is None or trusts == "system":
        return trusts
    if trusts != "rds":
        if not Path(trusts).is_file():
            raise ConfigError(f"connection.sslrootcert: there is no file {trusts!r}")
        return trusts
    named = os.environ.get(BUNDLE_VARIABLE)
    for place in (Path(named),) if named else BUNDLE_PLACES:
        if place.is_file():
            return str(place.absolute())
    looked = named or ", ".join(map(str, BUNDLE_PLACES))
    raise ConfigError(
        "connection.sslrootcert is rds, but the bundle of RDS and Redshift is not on this machine "
        f"(looked for: {looked}): download it with curl -fsSO {BUNDLE_URL} and put it there, name "
        f"it in {BUNDLE_VARIABLE}, or give it to the job (Glue: --extra-files; Spark: --files)"
    )
