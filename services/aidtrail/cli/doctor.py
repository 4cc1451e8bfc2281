"""`aidtrail doctor`: is everything there that a pipeline needs, and what to do where it is not."""

from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import typer
from rich.text import Text

from aidtrail import config, conformance, show
from aidtrail.cli import registry
from aidtrail.cli.backends import Backends, backends, public
from aidtrail.cli.donations import Json
from aidtrail.cli.services import TIMEKEEPER
from aidtrail.errors import AidtrailError
from aidtrail.views import schema
from aidtrail.views.reader import Reader

STYLES = {"ok": "green", "warn": "yellow", "fail": "red"}


class Finding(NamedTuple):
    verdict: Literal["ok", "warn", "fail"]
    subject: str
    found: str


Check = Callable[[Backends], Iterator[Finding]]


def doctor(json_: Json = False) -> None:
    """Check settings, log, topics, schemas, registry and views; each line says what to do. Exit 1 if a check failed."""
    with backends(config.load()) as opened:
        findings = list(_findings(opened))
    if json_:
        show.lines([finding._asdict() for finding in findings])
    else:
        out = show.console()
        for finding in findings:
            out.print(Text(f"{finding.verdict:<5}", style=STYLES[finding.verdict]) + Text(f"{finding.subject:<10}{finding.found}"))
    if any(finding.verdict == "fail" for finding in findings):
        raise typer.Exit(1)


def _findings(opened: Backends) -> Iterator[Finding]:
    """Each check in turn. One that cannot be made fails; the others are made all the same."""
    for subject, check in CHECKS.items():
        try:
            yield from check(opened)
        except AidtrailError as error:
            yield Finding("fail", subject, " ".join(str(error).split()))


def settings(opened: Backends) -> Iterator[Finding]:
    stated = opened.settings
    home = f"the embedded server in {stated.home}"
    yield Finding("ok", "settings", f"log: {public(stated.log) or home}; views: {public(stated.views) or home}")


def log(opened: Backends) -> Iterator[Finding]:
    differences = opened.topics.differences(opened.log)
    for difference in differences:
        yield Finding("fail", "topics", difference)
    if not differences:
        count = opened.log.partitions(opened.topics.submitted)
        yield Finding("ok", "topics", f"{', '.join(opened.topics)}: as required, {count} partitions")


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
    lag = sum(ends.values()) - sum(positions.values())
    yield Finding("ok" if lag == 0 else "warn", "lag", f"{lag:,} entries to project" + ("" if lag == 0 else ": is a projector running?"))
    if counts["parked"]:
        yield Finding("fail", "parked", f"{counts['parked']:,} donations: install a release that folds them, 'aidtrail project --unpark'")
    if counts["void"]:
        yield Finding("warn", "void", f"{counts['void']:,} entries without effect: somebody else wrote them; see live.entries")


CHECKS: dict[str, Check] = {"settings": settings, "topics": log, "schemas": schemas, "registry": registered, "views": views}
