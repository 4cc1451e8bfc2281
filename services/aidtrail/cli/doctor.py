"""`aidtrail doctor`: is everything there that a pipeline needs, and what to do where it is not."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from difflib import get_close_matches
from typing import Literal, NamedTuple

import typer
from rich.text import Text

from aidtrail import config, conformance, show
from aidtrail.cli import registry
from aidtrail.cli.backends import Backends, backends, public
from aidtrail.cli.donations import Json
from aidtrail.cli.services import TIMEKEEPER
from aidtrail.errors import AidtrailError, UnavailableError
from aidtrail.log import Log, up_to
from aidtrail.projector import ahead_of_log
from aidtrail.rights import ROLES, TOPICS
from aidtrail.views import schema
from aidtrail.views.reader import Reader

MAX_SKEW_SECONDS = 1.0
MAX_NAMED = 5
READ_SECONDS = 10.0
NEAR = 0.85
"""How like a setting's name another must be to be taken for it, of 1: not what Kubernetes sets for each service in the namespace."""
DATABASE = "the database's clock"
STYLES = {"ok": "green", "warn": "yellow", "fail": "red"}


class Finding(NamedTuple):
    verdict: Literal["ok", "warn", "fail"]
    subject: str
    found: str


Check = Callable[[Backends], Iterator[Finding]]


def doctor(json_: Json = False) -> None:
    """Check all that a pipeline needs; say what to do. Log, database, topics, rights, schemas, registry, views and clocks.
    Exit 1 if a check failed."""
    with backends(config.load()) as opened:
        findings = list(examine(opened))
    if json_:
        show.lines([finding._asdict() for finding in findings])
    else:
        out = show.console()
        for finding in findings:
            start = Text(f"{finding.verdict:<5}", style=STYLES[finding.verdict]) + Text(f"{finding.subject:<11}")
            show.hanging(out, start, Text(finding.found), len(start))
    if any(finding.verdict == "fail" for finding in findings):
        raise typer.Exit(1)


def examine(opened: Backends) -> Iterator[Finding]:
    """Each check in turn. One that cannot be made fails, and the others are made all the same; what cannot be reached is tried once."""
    reached = set()
    for subject, reach in (("log", log), ("database", database)):
        found = list(_made(subject, reach, opened))
        yield from found
        if all(finding.verdict == "ok" for finding in found):
            reached.add(subject)
    for subject, (needs, check) in CHECKS.items():
        if needs <= reached:
            yield from _made(subject, check, opened)


def _made(subject: str, check: Check, opened: Backends) -> Iterator[Finding]:
    try:
        yield from check(opened)
    except AidtrailError as error:
        yield Finding("fail", subject, " ".join(str(error).split()))


def log(opened: Backends) -> Iterator[Finding]:
    started = time.monotonic()
    reached = opened.log
    took_ms = (time.monotonic() - started) * 1000
    where = public(opened.settings.log) or f"the embedded server in {opened.settings.home}"
    yield Finding("ok", "log", f"{where}, {type(reached).__name__.removesuffix('Log')}, open after {took_ms:.0f} ms")


def database(opened: Backends) -> Iterator[Finding]:
    started = time.monotonic()
    with schema.connect(opened.views) as connection:
        version = connection.info.parameter_status("server_version")
    took_ms = (time.monotonic() - started) * 1000
    where = public(opened.settings.views) or f"the embedded server in {opened.settings.home}"
    yield Finding("ok", "database", f"{where}, PostgreSQL {version}, connected after {took_ms:.0f} ms")


def settings(opened: Backends) -> Iterator[Finding]:
    """Names that are nearly those of settings: nothing reads them."""
    known = {f"AIDTRAIL_{name.upper()}" for name in config.Settings.model_fields}
    for name in sorted(os.environ.keys() - known):
        if name.startswith("AIDTRAIL_") and (near := get_close_matches(name, known, 1, NEAR)):
            yield Finding("warn", "settings", f"{name} is none, and has no effect: did you mean {near[0]}?")


def topics(opened: Backends) -> Iterator[Finding]:
    differences = opened.topics.differences(opened.log)
    for difference in differences:
        yield Finding("fail", "topics", difference)
    if not differences:
        count = opened.log.partitions(opened.topics.submitted)
        yield Finding("ok", "topics", f"{', '.join(opened.topics)}: as required, {count} partitions")


def rights(opened: Backends) -> Iterator[Finding]:
    """What the user of this command may do, and for which parts that is enough."""
    may = {topic: _operations(opened.log, f"{opened.settings.topic_prefix}.{topic}") for topic in TOPICS}
    said = "; ".join(
        f"{does} {', '.join(topic for topic in may if operation in may[topic]) or 'nothing'}"
        for does, operation in (("reads", "READ"), ("writes", "WRITE"))
    )
    enough = [role for role, needs in ROLES.items() if all(set(words.upper().split()) <= may[topic] for topic, words in needs.items())]
    yield Finding("ok" if enough else "fail", "rights", f"{said}: enough for {', '.join(enough) or 'no part: see aidtrail rights show'}")
    widest = [topic for topic, operations in may.items() if operations & {"DELETE", "ALTER", "ALTER_CONFIGS"}]
    if widest:
        advice = "run each part with a user of its own: 'aidtrail rights apply --passwords FOLDER', as a super user"
        yield Finding("warn", "rights", f"may delete or alter {', '.join(widest)}, or this Kafka asks nobody for rights; {advice}")


def _operations(log: Log, topic: str) -> frozenset[str]:
    try:
        return log.operations(topic)
    except UnavailableError:  # there is none, or not for this user
        return frozenset()


def schemas(opened: Backends) -> Iterator[Finding]:
    findings = conformance.check()
    for finding in findings:
        yield Finding("fail", "schemas", finding)
    if not findings:
        yield Finding("ok", "schemas", "as the contract promises")


def registered(opened: Backends) -> Iterator[Finding]:
    known = registry.follow(opened.log, opened.topics)
    said = f"{len(known.parties)} parties, {len(known.actors)} actors, {len(known.mechanisms)} mechanisms"
    if len(known.parties) <= 1:
        yield Finding("warn", "registry", f"{said}: nobody can submit yet; load parties and actors with 'aidtrail registry load FILE'")
    else:
        yield Finding("ok", "registry", said)
    required = {party.party_id for party in known.parties.values() if party.signatures_required}
    keyless = [one.actor_id for one in known.actors.values() if one.party_id in required and not (one.public_keys or one.retired)]
    if keyless:
        said = f"{', '.join(keyless[:MAX_NAMED])}{' ...' if keyless[MAX_NAMED:] else ''}: no key, and their party requires signatures"
        yield Finding("warn", "registry", f"{said}: nothing that they submit is admitted; see 'aidtrail registry key'")
    enrolled = known.actors.get(TIMEKEEPER.actor_id)
    if enrolled is None or enrolled.party_id != TIMEKEEPER.party_id or TIMEKEEPER.role not in enrolled.roles or enrolled.retired:
        yield Finding("warn", "registry", "no timekeeper: nothing will expire; 'aidtrail registry load FILE' enrols it with any file")


def views(opened: Backends) -> Iterator[Finding]:
    with schema.connect(opened.views) as connection:
        build = schema.live_build(connection)
    if build is None:
        yield Finding("warn", "views", "none yet: start 'aidtrail up' or 'aidtrail project'")
        return
    reader = Reader.open(opened.views)
    try:
        counts, positions = reader.counts(), reader.next_offsets()
    finally:
        reader.close()
    yield Finding("ok", "views", f"{build} is live: {counts['donations']:,} donations, {counts['entries']:,} entries")
    ends = opened.log.end_offsets(opened.topics.recorded)
    if positions.keys() != ends.keys():
        yield Finding("fail", "views", f"they are of {len(positions)} partitions, the log has {len(ends)}: they belong to another log")
        return
    if ahead := ahead_of_log(positions, ends):
        yield Finding("fail", "views", ahead)
        return
    behind = {partition: at for partition, at in positions.items() if at < ends[partition]}
    if "READ" in _operations(opened.log, opened.topics.recorded):
        behind = {partition: at for partition, at in behind.items() if _has_entries(opened, partition, at, ends[partition])}
    lag = sum(ends[partition] - at for partition, at in behind.items())
    yield Finding("ok" if lag == 0 else "warn", "lag", f"{lag:,} entries to project" + ("" if lag == 0 else ": is a projector running?"))
    if counts["parked"]:
        yield Finding("fail", "parked", f"{counts['parked']:,} donations: install a release that folds them, 'aidtrail project --unpark'")
    if counts["void"]:
        yield Finding("warn", "void", f"{counts['void']:,} entries without effect: somebody else wrote them; see live.entries")


def _has_entries(opened: Backends, partition: int, at: int, end: int) -> bool:
    """Whether a partition has any from an offset on, for who may read it: others' transactions leave markers, which are none."""
    with closing(opened.log.reader(opened.topics.recorded)) as reader:
        reader.assign({partition: at})
        return any(up_to(reader, opened.topics.recorded, partition, end, max_records=1, patience_seconds=READ_SECONDS))


def migrations(opened: Backends) -> Iterator[Finding]:
    with schema.connect(opened.views) as connection:
        build = schema.live_build(connection)
        if build is None:
            return
        troubles = [
            trouble
            for where, folder in ((schema.CONTROL, "control"), (build, "build"))
            for trouble in schema.behind(connection, where, folder)
        ]
    for trouble in troubles:
        yield Finding("fail", "migrations", trouble)
    if not troubles:
        yield Finding("ok", "migrations", f"{schema.CONTROL} and {build} are those of this release")


def clocks(opened: Backends) -> Iterator[Finding]:
    """Deadlines go by the log's clock, tokens and the timekeeper by this one. Kafka tells its clock by append times alone: that it is ahead
    shows, that it is behind does not."""
    with schema.connect(opened.views) as connection:
        row = connection.execute("SELECT extract(epoch FROM clock_timestamp())::float8").fetchone()
    assert row is not None
    assert isinstance(row[0], float)
    skews = {DATABASE: row[0] - time.time()}
    last_append = max(opened.log.last_append(topic) for topic in (opened.topics.submitted, opened.topics.recorded)) / 1000
    if last_append > time.time():
        skews["the log's clock"] = last_append - time.time()
    for whose, skew in skews.items():
        if abs(skew) > MAX_SKEW_SECONDS:
            apart = f"{abs(skew):,.1f} s {'ahead of' if skew > 0 else 'behind'} this machine's"
            yield Finding("fail", "clocks", f"{whose} is {apart}: synchronise them (NTP) before deadlines are missed")
    if all(abs(skew) <= MAX_SKEW_SECONDS for skew in skews.values()):
        yield Finding(
            "ok", "clocks", f"the database's is {skews[DATABASE]:+.3f} s from this one; the log has appended nothing in the future"
        )


CHECKS: dict[str, tuple[set[str], Check]] = {
    "settings": (set(), settings),
    "topics": ({"log"}, topics),
    "rights": ({"log"}, rights),
    "schemas": (set(), schemas),
    "registry": ({"log"}, registered),
    "migrations": ({"database"}, migrations),
    "views": ({"log", "database"}, views),
    "clocks": ({"log", "database"}, clocks),
}
"""By subject: what must have been reached, and the check."""
