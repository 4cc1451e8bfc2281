"""Cuts: where a build of the views stands, one line a partition, and one SHA-256 over all of it.

Two builds with one digest have counted the same outcomes in the same order and show the same status rows. So a cut that is kept where the
operator cannot change it says, at any later time, whether the log and the views of then are still what they were.

The digest is SHA-256 of UTF-8 text: the line `aidtrail cut v1`, then a line for each partition in ascending order, of fields between tabs
(0x09), each line ended by a line feed (0x0a):

    partition, next_offset, last_submitted_offset, last_outcome_sha256, rows_sha256

Numbers are decimal, hashes lowercase hexadecimal. All records of `recorded` before next_offset are in. last_submitted_offset (-1 for none)
is the submission that the last entry that counts answers; last_outcome_sha256 is the hash of that entry, which names the hash of the one
before: so it commits to every entry that counts, in order. rows_sha256 is SHA-256 of the 512 bytes of the partition's `rows_sum`
(`aidtrail.views.digest`).
"""

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from aidtrail import codec
from aidtrail.errors import UnavailableError, UsageError
from aidtrail.views import digest, schema
from aidtrail.views.writer import COLUMNS

FORMAT = "aidtrail cut v1"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
MAX_NAMED = 100
PAGE = 1000
"""Donations in memory at once."""


class Place(NamedTuple):
    """Where one partition of a build stands."""

    next_offset: int
    last_submitted_offset: int
    last_outcome_sha256: bytes
    rows_sha256: bytes

    def as_text(self) -> str:
        return f"{self.next_offset}\t{self.last_submitted_offset}\t{self.last_outcome_sha256.hex()}\t{self.rows_sha256.hex()}"


class Cut(NamedTuple):
    """A place for each partition."""

    places: dict[int, Place]

    @property
    def next_offsets(self) -> dict[int, int]:
        return {partition: place.next_offset for partition, place in self.places.items()}

    @property
    def sha256(self) -> bytes:
        lines = [FORMAT, *(f"{partition}\t{place.as_text()}" for partition, place in sorted(self.places.items()))]
        return codec.sha256("".join(f"{line}\n" for line in lines).encode())

    def to_json(self) -> dict[str, Any]:
        places = [{"partition": partition, **_hexadecimal(place)} for partition, place in sorted(self.places.items())]
        return {"format": FORMAT, "partitions": places, "sha256": self.sha256.hex()}

    def differences(self, other: "Cut", *, rows: bool = True) -> list[str]:
        """What of `other`, found, is not as in this cut, expected; one line each. Without `rows` the status rows may differ."""
        found = []
        for partition in sorted(self.places.keys() | other.places.keys()):
            ours, theirs = self.places.get(partition), other.places.get(partition)
            if ours is None or theirs is None:
                found.append(f"partition {partition}: expected {'none' if ours is None else 'one'}, found {'none' if ours else 'one'}")
            elif ours != theirs:
                names = [name for name in Place._fields[: 4 if rows else 3] if getattr(ours, name) != getattr(theirs, name)]
                found += [f"partition {partition} {n}: expected {_hexadecimal(ours)[n]}, found {_hexadecimal(theirs)[n]}" for n in names]
        return found


def _hexadecimal(place: Place) -> dict[str, Any]:
    return {name: value.hex() if isinstance(value, bytes) else value for name, value in place._asdict().items()}


def of_build(connection: schema.Connection, build: str) -> Cut:
    """Where a build stands, from what its writer kept: the time for it does not grow with the views.

    Raises UsageError when the build keeps no digest.
    """
    query = sql.SQL("SELECT partition, next_offset, last_submitted_offset, last_outcome_sha256, rows_sum FROM {}")
    rows: Any = connection.execute(query.format(sql.Identifier(build, "positions")), binary=True).fetchall()
    if any(rows_sum is None for *_, rows_sum in rows):
        raise UsageError(
            f"{build} was begun by a release that kept no digest: make one that has it live, by 'aidtrail audit rebuild --go-live'"
        )
    return Cut({partition: Place(end, answered, tail, codec.sha256(rows_sum)) for partition, end, answered, tail, rows_sum in rows})


def of_live(conninfo: str) -> Cut:
    """Where the live build stands, as the schema `live` shows it: whoever reads it needs to see nothing else.

    Raises UnavailableError while there is none, where this role may not read it, and where no server answers within 2 seconds; UsageError
    when the build keeps no digest.
    """
    with schema.connect(make_conninfo(conninfo, connect_timeout=2)) as connection:
        try:
            return of_build(connection, "live")
        except psycopg.Error as error:
            why = error.diag.message_primary or error
            raise UnavailableError(f"the schema live cannot be read: {why}: start 'aidtrail project', see roles.sql") from None


# --- are the rows what the digest says? -----------------------------------------------------------------------------------------------


@dataclass
class Recount:
    """`altered` are donations whose rows are not what the digest beside them says, the first MAX_NAMED of `differing`; `partitions` those
    whose sum is not that of their donations."""

    donations: int
    differing: int
    altered: list[str]
    partitions: list[int]

    @property
    def holds(self) -> bool:
        return not (self.differing or self.partitions)


def recount(connection: schema.Connection, build: str, progress: Callable[[int], None] = lambda done: None) -> Recount:
    """Whether the status rows that stand in a build are those that its writer wrote, by their digests. Reads every row, a page at a time;
    requires a transaction in which nothing moves."""
    sums: defaultdict[int, int] = defaultdict(int)
    altered: list[str] = []
    count = differing = 0
    for donation_id, partition, document, kept in _documents(connection, build):
        if kept is None or codec.sha256(document.encode()) != kept:
            differing += 1
            altered += [donation_id] if differing <= MAX_NAMED else []
        sums[partition] += digest.term(kept)
        count += 1
        if count % PAGE == 0:
            progress(count)
    query = sql.SQL("SELECT partition, rows_sum FROM {} ORDER BY partition").format(sql.Identifier(build, "positions"))
    kept_sums: Any = connection.execute(query, binary=True).fetchall()
    wrong = [partition for partition, rows_sum in kept_sums if rows_sum != digest.to_bytes(sums[partition])]
    return Recount(count, differing, altered, wrong)


def _documents(connection: schema.Connection, build: str) -> Iterator[tuple[str, int, str, bytes | None]]:
    """Of each donation id, partition, document in canonical form as its rows stand, and the digest beside them. Rows in `amounts` and
    `approvals` that are of no donation there come last."""
    columns = {table: sql.SQL(", ").join(map(sql.Identifier, COLUMNS[table])) for table in ("donations", "amounts", "approvals")}
    page_of = sql.SQL("SELECT {} FROM {} WHERE donation_id > %s ORDER BY donation_id LIMIT %s")
    rows_of = sql.SQL('SELECT {} FROM {} WHERE donation_id = ANY(%s) ORDER BY donation_id, {} COLLATE "C"')
    page = page_of.format(columns["donations"], sql.Identifier(build, "donations"))
    amounts = rows_of.format(columns["amounts"], sql.Identifier(build, "amounts"), sql.Identifier("currency"))
    approvals = rows_of.format(columns["approvals"], sql.Identifier(build, "approvals"), sql.Identifier("approval_id"))
    last = ""
    while donations := _rows(connection, page, (last, PAGE)):
        last = donations[-1][0]
        lines: dict[str, list[str]] = {row[0]: [digest.donation_line(row)] for row in donations}
        for donation_id, currency, *sums in _rows(connection, amounts, (list(lines),)):
            lines[donation_id].append(digest.amount_line(currency, sums))
        for row in _rows(connection, approvals, (list(lines),)):
            lines[row[0]].append(digest.approval_line(row, row[5], row[6]))
        yield from ((row[0], row[1], "".join(lines[row[0]]), row[-1]) for row in donations)
    tables = sql.Identifier(build, "amounts"), sql.Identifier(build, "approvals"), sql.Identifier(build, "donations")
    strays = sql.SQL("(SELECT donation_id FROM {} UNION SELECT donation_id FROM {}) EXCEPT SELECT donation_id FROM {} ORDER BY 1")
    yield from ((donation_id, 0, "", None) for (donation_id,) in _rows(connection, strays.format(*tables), ()))


def _rows(connection: schema.Connection, query: sql.Composed, values: tuple[object, ...]) -> Any:
    return connection.execute(query, values).fetchall()


# --- by name --------------------------------------------------------------------------------------------------------------------------


def keep(connection: schema.Connection, name: str, build: str, cut: Cut) -> None:
    """Give a cut a name, under which commands find it. Raises UsageError when the name is taken by another cut, or is none."""
    if not NAME.fullmatch(name) or schema.BUILD.fullmatch(name) or name == "live" or name.endswith(".json"):
        raise UsageError(f"name: expected up to 64 letters, digits, '.', '_' or '-', and no build's or file's, found {name!r:.80}")
    schema.migrate(connection, schema.CONTROL, "control")
    said = json.dumps(cut.to_json()["partitions"])
    values = (name, build, said, cut.sha256)
    query = "INSERT INTO aidtrail.cuts (name, build, partitions, sha256) VALUES (%s, %s, %s, %s) ON CONFLICT (name) DO NOTHING"
    if connection.execute(query, values).rowcount == 0 and find(connection, name) != cut:
        raise UsageError(f"name: {name} is another cut already; 'aidtrail audit cuts' lists them")


class Kept(NamedTuple):
    name: str
    build: str
    taken_at: datetime
    sha256: bytes


def kept(connection: schema.Connection) -> list[Kept]:
    """The cuts that have a name, the oldest first."""
    schema.migrate(connection, schema.CONTROL, "control")
    rows: Any = connection.execute("SELECT name, build, taken_at, sha256 FROM aidtrail.cuts ORDER BY taken_at, name").fetchall()
    return [Kept._make(row) for row in rows]


def find(connection: schema.Connection, name: str) -> Cut:
    """The cut of this name. Raises UsageError when there is none, or when it is not what its digest says."""
    schema.migrate(connection, schema.CONTROL, "control")
    row = connection.execute("SELECT partitions, sha256 FROM aidtrail.cuts WHERE name = %s", (name,)).fetchone()
    if row is None:
        names = ", ".join(cut.name for cut in kept(connection)[-20:])
        named = f"one of {names}" if names else "a name, of which there is none yet ('aidtrail audit cut' takes a cut)"
        raise UsageError(f"cut: expected a .json file or {named}, found {name!r:.80}")
    partitions, sha256 = row
    assert isinstance(sha256, bytes)
    return from_json({"format": FORMAT, "partitions": partitions, "sha256": sha256.hex()}, name)


def read(path: Path) -> Cut:
    """The cut in a file. Raises UsageError as `find` does."""
    try:
        said = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        found = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"{path}: expected a cut, as 'aidtrail audit cut --json' prints it; found: {found}") from None
    return from_json(said, str(path))


def from_json(said: Any, where: str) -> Cut:
    """Raises UsageError when it is no cut, or not the one that its digest is of."""
    try:
        if said["format"] != FORMAT:
            raise UsageError(f"{where}: expected the format {FORMAT!r}, found {said['format']!r:.80}")
        cut = Cut({int(place["partition"]): _place(place) for place in said["partitions"]})
        stated = str(said["sha256"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UsageError(
            f"{where}: expected a cut, as 'aidtrail audit cut --json' prints it, found {type(error).__name__} {error}"
        ) from None
    if cut.sha256.hex() != stated:
        raise UsageError(f"{where}: expected partitions with the sha256 {stated:.64}, found {cut.sha256.hex()}: the cut was altered")
    return cut


def _place(said: Any) -> Place:
    place = Place(
        int(said["next_offset"]),
        int(said["last_submitted_offset"]),
        bytes.fromhex(said["last_outcome_sha256"]),
        bytes.fromhex(said["rows_sha256"]),
    )
    if not (0 <= place.next_offset < 2**63 and -1 <= place.last_submitted_offset < 2**63):
        raise ValueError("offsets that no log has")
    if (len(place.last_outcome_sha256), len(place.rows_sha256)) != (32, 32):
        raise ValueError("hashes that are not of 32 bytes")
    return place
