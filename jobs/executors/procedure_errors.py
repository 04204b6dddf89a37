"""What errors of PostgreSQL mean for a call, and what is told of them.

What the driver says of a connection names hosts and users of addresses; none of it is passed on.
"""

from __future__ import annotations

QUERY_CANCELED = "57014"
# By class or whole code: the same call meets the same end, whoever tries it and when.
#   0A not supported, 22 a value that will not do, 2D a COMMIT where none may be, 3F no such schema,
#   42 no such function, no right to it, or nonsense inside, 54 beyond what the server can do at all.
# All others may pass: lost or refused connections (08, 53, 57P), conflicts with others (40, 55), and what
# a procedure raises itself (P0). So may a violated constraint (23): it hangs on rows that others write,
# the missing parent may be there next time, and to give up would lose what a few attempts cost little.
HOPELESS = ("0A", "22", "2D", "3F", "42", "54")
# The server went away, or says itself that it does not know: a COMMIT may have been done before.
LOST = ("08", "40003", "57P", "58")
# The driver gives no code for a connection that failed. What to look for, and what to say.
_REASONS = (
    ("authentication", "the server refuses who we say we are"),
    ("no password supplied", "the server refuses who we say we are"),
    ("pg_hba.conf", "the server refuses who we say we are"),
    ("too many", "the server has no connection left"),
    ("connection slots", "the server has no connection left"),
    ("starting up", "the server is starting"),
    ("shutting down", "the server is stopping"),
    ("recovery", "the server is starting"),
    ("permission denied", "the role may not connect to the database"),
    ("does not exist", "there is no such role or database"),
    ("certificate", "the server's certificate is not the one expected"),
    ("ssl", "the server and the address do not agree about TLS"),
    ("refused", "nobody listens there"),
    ("no such file", "nobody listens there"),
    ("timeout", "no answer in time"),
    ("resolve", "its host is not known"),
    ("not known", "its host is not known"),
)


def why_no_connection(error: Exception) -> str:
    """Say why there is no connection without the address, which the driver's words hold."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    text = str(error).lower()
    for needle, reason in _REASONS:
        if needle in text:
            return reason
    return "it cannot be reached"
