"""`aidtrail schemas`: the contract."""

import json
from pathlib import Path
from typing import Annotated

import typer

from aidtrail import asyncapi, config, conformance, contract, schema_check, show
from aidtrail.cli.donations import Json
from aidtrail.errors import UsageError
from aidtrail.gateway import app as gateway
from aidtrail.gateway import openapi
from aidtrail.subjects import subjects
from aidtrail.topics import Topics

Folder = Annotated[Path, typer.Option("--folder", help="Another folder than the one of this release.", exists=True, file_okay=False)]
Registry = Annotated[
    str | None,
    typer.Option(
        metavar="URL", help="Compare it with a Confluent Schema Registry as well, as http://host:8081. Nothing is registered there."
    ),
]

app = typer.Typer(help="The contract: Avro schemas, their ids and examples.", no_args_is_help=True)


@app.command("check")
def check(folder: Folder = contract.FOLDER, registry: Registry = None, json_: Json = False) -> None:
    """Check that schemas, examples and models say the same. So do ids and versions; exit 1 and a line for each finding if they do not.

    With --registry, also that each subject there has our schema by our id: what is missing, different or incompatible is named."""
    for name in ("events", "types", "published", "examples"):
        if not (folder / name).is_dir():
            raise UsageError(f"--folder {folder}: expected a folder with events, types, published and examples, found no {name}")
    findings = conformance.check(folder)
    show.found("finding", [str(finding) for finding in findings], json_)
    if findings:
        raise typer.Exit(1)
    if not json_:
        print(f"{len(contract.read_published(folder))} published schemas: as the contract promises")
    if registry is not None:
        _compare(registry, folder, json_)


def _compare(registry: str, folder: Path, json_: bool) -> None:
    topics = Topics.of(config.load().topic_prefix)
    differences = schema_check.differences(registry, topics, folder)
    show.found("difference", [str(difference) for difference in differences], json_)
    if differences:
        raise typer.Exit(1)
    if not json_:
        print(f"{len(subjects(topics, folder))} subjects of the registry: as the contract says")


@app.command("publish")
def publish(folder: Folder = contract.FOLDER) -> None:
    """Give events whose schema changed their next version. Each with an id; none where one could not live beside the earlier ones."""
    new = contract.publish(folder)
    for entry in new:
        print(f"{entry.id} {entry.event} v{entry.version}: schemas/{entry.path}")
    if not new:
        print("nothing changed since the last version of each event")


@app.command("list")
def list_(json_: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False) -> None:
    """List every published schema: id, event, version, file."""
    for entry in contract.published().values():
        if json_:
            print(json.dumps({"id": entry.id, "event": entry.event, "version": entry.version, "file": f"schemas/{entry.path}"}))
        else:
            print(f"{entry.id:>4}  {entry.event} v{entry.version}")


@app.command("asyncapi")
def asyncapi_() -> None:
    """Print the topics as an AsyncAPI 3.1 document, JSON. With what may stand in each, its schemas and examples."""
    print(asyncapi.text(Topics.of(config.load().topic_prefix)), end="")


@app.command("openapi")
def openapi_() -> None:
    """Print the HTTP interface as an OpenAPI 3.1 document, JSON. Every path of all services, with examples."""
    print(openapi.text(gateway.create(None, Topics.of(config.load().topic_prefix)).openapi()), end="")
