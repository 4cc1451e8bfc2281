"""How every connection to PostgreSQL is made, to log and views: so that either end notices when the other is gone without a word."""

from typing import Any

GONE_SECONDS = 30
"""After which an end that acknowledges nothing is gone: longer than a network takes to find another way.

Tried in a network namespace, with an address that was taken away. Of the server: who waited for an answer, and who asked just after, was
told after 30 s, and an idle connection was found ended; without these settings nobody was told within the 40 s of the trial. Of a client:
the server let go of its row and advisory locks after 33 s; without, not within the 90 s of the trial. Not tried: two machines, and a proxy
or server that hangs while its kernel acknowledges: nothing here notices that.
"""
CONNECTION: dict[str, Any] = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 4,
    "tcp_user_timeout": GONE_SECONDS * 1000,
    # The same at the server's end, or a machine that vanished keeps its partitions from others, and every writer from the rows it held.
    "options": f"-c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=4 -c tcp_user_timeout={GONE_SECONDS}s",
    "application_name": "aidtrail",
}
"""By default a connection to a machine that vanished ends after two hours where nothing is sent, after a quarter of an hour where
something is."""
