"""`aidtrail rights`: who may do what on Kafka, one principal for each part."""

import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aidtrail import config, show
from aidtrail.cli.backends import backends
from aidtrail.cli.donations import Json
from aidtrail.errors import UnavailableError, UsageError
from aidtrail.rights import ROLES, TOPICS, principal_of, rights

if TYPE_CHECKING:  # kafka-python takes long to import
    from aidtrail.log.kafka_rights import KafkaRights

app = typer.Typer(help="Kafka users and rights: the least that each part needs.", no_args_is_help=True)

Also = Annotated[
    list[str] | None,
    typer.Option("--also", metavar="USER=ROLE", help="Another user with the rights of a role: --also hospital-erp=producer. Repeatable."),
]


@app.command("show")
def show_command(also: Also = None, json_: Json = False) -> None:
    """Print what each principal may do. With --json every line of the access control list."""
    prefix = config.load().topic_prefix
    principals = _principals(prefix, also)
    if json_:
        show.lines([right._asdict() for right in sorted(rights(prefix, principals))])
        return
    rows = [(user, *(ROLES[role].get(topic, "").lower() for topic in TOPICS)) for user, role in principals.items()]
    show.table(("principal", *(f"{prefix}.{topic}" for topic in TOPICS)), rows)


@app.command("apply")
def apply(
    also: Also = None,
    passwords: Annotated[
        Path | None,
        typer.Option(help="Folder with a file for each user that holds its password; made where it is missing. Unset: users are not made."),
    ] = None,
) -> None:
    """Give each principal its rights, and no others. Denies everybody to delete or alter the topics. Run it as a super user."""
    with _opened(also) as (rights_, principals):
        if passwords is not None:
            rights_.set_passwords(_passwords(passwords, principals))
            print(f"{len(principals)} users: their passwords are in {passwords}")
        given, taken = rights_.apply()
    for right in taken:
        print(f"taken away: {right}")
    print(f"{len(principals)} principals: {len(given)} rights given, {len(taken)} taken away")


@app.command("check")
def check(also: Also = None, json_: Json = False) -> None:
    """Compare with what the cluster has. Exit 1 and a line for each difference. Needs Describe on the cluster."""
    with _opened(also) as (rights_, principals):
        differences = rights_.differences()
    show.found("difference", differences, json_)
    if differences:
        raise typer.Exit(1)
    if not json_:
        print(f"{len(principals)} principals: as required")


@contextmanager
def _opened(also: list[str] | None) -> Iterator[tuple["KafkaRights", Mapping[str, str]]]:
    from kafka.errors import SecurityDisabledError

    from aidtrail.log.kafka import KafkaLog
    from aidtrail.log.kafka_rights import KafkaRights

    settings = config.load()
    principals = _principals(settings.topic_prefix, also)
    if not (settings.log or "").startswith("kafka://"):
        raise UsageError("rights are Kafka's: set AIDTRAIL_LOG to kafka://host:port; on PostgreSQL they are the database's roles")
    with backends(settings) as opened:
        assert isinstance(opened.log, KafkaLog)
        rights_ = KafkaRights(opened.log, settings.topic_prefix, principals)
        try:
            rights_.differences()
        except UnavailableError as error:
            if isinstance(error.__cause__, SecurityDisabledError):
                raise UnavailableError(
                    "this Kafka has no authorizer, so rights would bind nobody: set authorizer.class.name to "
                    "org.apache.kafka.metadata.authorizer.StandardAuthorizer on each broker and controller, then try again. Nothing was set"
                ) from None
            raise
        yield rights_, principals


def _principals(prefix: str, also: list[str] | None) -> dict[str, str]:
    """User -> role."""
    principals = {principal_of(prefix, role): role for role in ROLES}
    for one in also or []:
        user, _, role = one.partition("=")
        if not user or role not in ROLES:
            raise UsageError(f"--also: expected USER=ROLE with one of {', '.join(ROLES)}, found {one:.100}")
        principals[user] = role
    return principals


def _passwords(folder: Path, users: Mapping[str, str]) -> dict[str, str]:
    """Those in the folder; a new one, readable by its owner alone, where a user has none."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = {}
    for user in users:
        path = folder / user
        if not path.exists():
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(secrets.token_urlsafe(32))
        found[user] = path.read_text().strip()
        if not found[user]:
            raise UsageError(f"{path}: expected a password, found an empty file; delete it to have one made")
    return found
