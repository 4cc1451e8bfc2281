"""`aidtrail topics`: the topics of the pipeline."""

from typing import Annotated

import typer

from aidtrail import config, show
from aidtrail.cli.backends import EMBEDDED_PARTITIONS, backends
from aidtrail.cli.donations import Json

DEFAULT_PARTITIONS = 12

app = typer.Typer(help="Create and check the topics.", no_args_is_help=True)


@app.command("create")
def create(
    partitions: Annotated[
        int | None,
        typer.Option(min=1, max=10_000, help=f"For ever. {DEFAULT_PARTITIONS} by default, {EMBEDDED_PARTITIONS} on the embedded log."),
    ] = None,
) -> None:
    """Create the topics that are missing, then check all of them."""
    settings = config.load()
    with backends(settings, create=True) as opened:
        default = EMBEDDED_PARTITIONS if settings.log is None else DEFAULT_PARTITIONS
        created = opened.topics.create(opened.log, default if partitions is None else partitions)
        for topic in (*opened.topics, opened.topics.checkpoints):
            print(f"{topic}: {'created' if topic in created else 'was there'}")
        _report(opened.topics.differences(opened.log))


@app.command("check")
def check(json_: Json = False) -> None:
    """Check that the topics are as the contract requires. Exit 1 and a line for each difference if they are not."""
    with backends(config.load()) as opened:
        _report(opened.topics.differences(opened.log), json_)
        if json_:
            return
        print(f"{', '.join(opened.topics)}: as required, {opened.log.partitions(opened.topics.submitted)} partitions")


def _report(differences: list[str], json_: bool = False) -> None:
    show.found("difference", differences, json_)
    if differences:
        raise typer.Exit(1)
