"""What a database driver's errors mean, in one line that says what to do."""

from __future__ import annotations

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from rtb.adapters import tls

_SQLITE_REASONS = {
    "SQLITE_NOTADB": "is not a SQLite database; give another path",
    "SQLITE_CORRUPT": "is damaged; restore it from a backup",
    "SQLITE_CANTOPEN": "cannot be opened; check the path and its permissions",
    "SQLITE_READONLY": "is read-only; check the permissions of the file and its directory",
    "SQLITE_BUSY": "is locked: another writer did not finish in time; try again",
    "SQLITE_LOCKED": "is locked: another writer did not finish in time; try again",
    "SQLITE_FULL": "cannot grow; the disk is full",
}
# PostgreSQL: https://www.postgresql.org/docs/15/errcodes-appendix.html; the longest code that fits counts.
_SQLSTATE_REASONS = {
    "08": "lost its connection; try again",
    "25006": "takes no writes: it is read-only or a standby; give the primary's URL",
    "28": "refuses the user or the password; check the URL",
    "3D000": "does not exist; create it with createdb, then run `rtb migrate`",
    "3F000": "has no tables of rtb; run `rtb migrate`",
    "42P01": "has no tables of rtb, or old ones; run `rtb migrate`",
    "42703": "has old tables; run `rtb migrate`",
    "42501": "does not permit that; grant the user rights on the tables of rtb",
    "40": "undid the transaction in favour of another; try again",
    "53100": "cannot grow; the disk is full",
    "53300": "has too many connections; raise max_connections, or use fewer daemons",
    "55P03": "is locked by another transaction; try again",
    "57014": "took too long and was cancelled; try again",
    "57P": "is being stopped or started; try again",
}
_NO_ANSWER = "did not answer in time; try again"


def reason(error: BaseException) -> str:
    """What broke and what to do, in one line."""
    cause: BaseException = error
    if isinstance(error, DBAPIError) and error.orig is not None:
        cause = error.orig
    links = [link for link in (cause, cause.__cause__, cause.__context__) if link is not None]
    for link in links:
        known = _known(link)
        if known:
            return known
    if isinstance(error, PoolTimeout) or any(isinstance(link, TimeoutError) for link in links):
        return _NO_ANSWER
    if isinstance(error, ImportError):
        return f"needs the Python package {error.name}; install it"
    if refused := tls.refusal(error, "store.url ?sslrootcert=FILE"):
        return f"cannot be used: {refused}"
    line = " ".join(str(cause).split())[:300]
    if isinstance(error, OSError):
        return line if line.startswith("cannot") else f"cannot be reached: {line or type(error).__name__}; is it up?"
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return f"lost its connection; try again ({line})"
    return f"failed: {line or type(cause).__name__}"


def _known(error: BaseException) -> str | None:
    name = getattr(error, "sqlite_errorname", "") or ""
    for known, text in _SQLITE_REASONS.items():
        if name.startswith(known):  # extended codes, as in SQLITE_READONLY_DIRECTORY
            return text
    state = getattr(error, "sqlstate", "") or ""
    fitting = [known for known in _SQLSTATE_REASONS if state.startswith(known)]
    return _SQLSTATE_REASONS[max(fitting, key=len)] if fitting else None
