"""TLS to the servers behind the daemon: certificates are always checked, and a refusal is one line.

Whose signature counts is said in the server's URL, by the option its other clients know: ``amqps://...?cafile=FILE``,
``rediss://...?ssl_ca_certs=FILE``, ``postgresql://...?sslmode=verify-full&sslrootcert=FILE``. Without it, it is the
system's authorities.
"""

from __future__ import annotations

import ssl
from functools import lru_cache
from pathlib import Path

UNKNOWN_ISSUER = (18, 19, 20, 21)
"""X509_V_ERR_: self-signed, self-signed in the chain, no local issuer, no issuer to check the first one with."""


def context(
    authorities: str | None, option: str, *, certificate: str | None = None, key: str | None = None
) -> ssl.SSLContext:
    """What checks a server's certificate and its name, and shows a `certificate` of our own if the server wants one.

    Args:
        authorities: a file of certificates, PEM; None: the system's.
        option: names the file in errors, as in ``broker.url ?cafile``.
        certificate: a file, PEM.
        key: of the certificate, when it is in a file of its own.

    Raises:
        OSError: a file cannot be used; one line.
    """
    files = [name for name in (authorities, certificate, key) if name is not None]
    changed = []
    for name in files:
        try:
            changed.append(Path(name).stat().st_mtime_ns)
        except OSError as error:
            raise OSError(f"cannot use {name} ({option}): {_reason(error)}") from None
    try:
        return _made(authorities, certificate, key, tuple(changed))
    except OSError as error:
        raise OSError(f"cannot use {' and '.join(files)} ({option}): {_reason(error)}") from None


def refusal(error: BaseException, option: str) -> str | None:
    """Why a server was refused, when it is a matter of TLS, and what to set; None for another error."""
    found: BaseException | None = error
    seen: set[int] = set()
    while found is not None and not isinstance(found, ssl.SSLError):
        if id(found) in seen:  # contexts can go round in circles: Python 3.11.2 makes such
            return None
        seen.add(id(found))
        found = found.__cause__ or (None if found.__suppress_context__ else found.__context__)
    if found is None:
        return None
    if not isinstance(found, ssl.SSLCertVerificationError):
        return f"TLS fails: {_reason(found)}"
    if found.verify_code in UNKNOWN_ISSUER:
        return f"its certificate is not trusted ({found.verify_message}); name its authority's file by {option}"
    return f"its certificate is refused: {found.verify_message.rstrip('.')}"


@lru_cache(maxsize=8)
def _made(
    authorities: str | None, certificate: str | None, key: str | None, changed: tuple[int, ...]
) -> ssl.SSLContext:
    """Made once for files as they are: to read the system's takes 20 ms, in the loop's thread."""
    made = ssl.create_default_context(cafile=authorities)
    if certificate is not None:
        made.load_cert_chain(certificate, key)
    return made


def _reason(error: OSError) -> str:
    """``[SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:992)`` is its reason."""
    if isinstance(error, ssl.SSLError):
        return (error.reason or str(error)).lower().replace("_", " ")
    return error.strerror or str(error)
