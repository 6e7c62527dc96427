"""Which certificates are trusted, and which one a client shows.

No maintained package ships the bundle of RDS and Redshift, and a job may have no internet access,
so the image or the job brings the file along. Each process looks for it, because a Glue executor's
folder is not its driver's.

A client's certificate and key are read once, on the driver, and sent to the workers like a
password. Libraries expect files, so each process keeps them as files in memory.
"""

from __future__ import annotations

import atexit
import functools
import os
import ssl
import tempfile
from dataclasses import dataclass, field
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
"""Where to look for the bundle if `BUNDLE_VARIABLE` is not set; the first that exists wins."""


def certificate_file(trusts: str | None) -> str | None:
    """Return the file that ``connection.sslrootcert`` means in this process. Read-only.

    Args:
        trusts: A file, ``system``, ``rds`` or None.

    Returns:
        The file; ``system`` and None unchanged.

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


@dataclass(frozen=True)
class ClientCertificate:
    """A client's certificate and private key, as PEM texts. Picklable; neither is in a ``repr``.

    Attributes:
        certificate: The certificate, and those of authorities between it and the root.
        key: The private key, without a passphrase.
    """

    certificate: str = field(repr=False)
    key: str = field(repr=False)

    def files(self) -> tuple[str, str]:
        """Return files of this process that hold certificate and key, unreadable to others."""
        return _private_file(self.certificate), _private_file(self.key)


def client_certificate(certificate: str | None, key: str | None) -> ClientCertificate | None:
    """Read a client's certificate and key, and check that they belong together.

    Args:
        certificate: A file, or the PEM text itself.
        key: Likewise.

    Returns:
        Both; None where neither is given.

    Raises:
        ConfigError: One is missing or unreadable, the key has a passphrase, or they do not belong
            together.
    """
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        absent = "sslcert" if certificate is None else "sslkey"
        raise ConfigError(f"connection.sslcert and connection.sslkey go together: add {absent}")
    found = ClientCertificate(_pem(certificate, "sslcert"), _pem(key, "sslkey"))
    asked = []

    def no_passphrase() -> str:
        asked.append(True)
        return ""

    try:
        # Without a callback, OpenSSL asks at the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(*found.files(), no_passphrase)
    except (ssl.SSLError, ValueError):
        reason = (
            "the key has a passphrase; remove it with openssl pkey -in KEY -out KEY"
            if asked
            else "they are not PEM, or do not belong together"
        )
    else:
        return found
    raise ConfigError(f"connection.sslcert and connection.sslkey cannot be used: {reason}")


def _pem(text: str, key: str) -> str:
    if is_pem(text):
        return text
    try:
        return Path(text).read_text("ascii")
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"connection.{key}: {text!r} cannot be read as PEM ({type(error).__name__})"
        ) from None


def is_pem(text: str) -> bool:
    """Return whether a text is PEM rather than a file's name."""
    return "-----BEGIN" in text


@functools.lru_cache(maxsize=64)
def _private_file(text: str) -> str:
    """Return a file of this process that nobody else can read, gone when the process is."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("extract-jobs")
        name = f"/proc/self/fd/{descriptor}"
    else:  # macOS
        descriptor, name = tempfile.mkstemp()
        atexit.register(Path(name).unlink, missing_ok=True)
    os.fchmod(descriptor, 0o600)  # libpq refuses a key that others could read
    os.write(descriptor, text.encode("ascii"))
    return name
