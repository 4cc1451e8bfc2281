"""The command line: a file per noun. `run` ends every command, with one clear line on stderr where something is wrong.

stdout is data, stderr is progress and logs. Exit codes: 0 ok, 1 a check failed, 2 usage, 3 something that it depends on cannot be reached.
"""

import os
import signal
import sys
from importlib.metadata import version
from typing import Annotated

import psycopg
import typer

from aidtrail import logs
from aidtrail.cli import audit, demo, doctor, donations, fts, proof, registry, rights, schemas, seal, services, submit, token, topics
from aidtrail.domain.rules import RULES_VERSION
from aidtrail.errors import AidtrailError, UnavailableError, UsageError

app = typer.Typer(
    help="Aidtrail: an event-sourced donation pipeline. Start with 'aidtrail demo', or with 'aidtrail up'.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(asked: bool) -> None:
    if asked:
        print(f"aidtrail {version('aidtrail')}, rules version {RULES_VERSION}")
        raise typer.Exit


Version = Annotated[bool, typer.Option("--version", help="Print the version and end.", callback=_version, is_eager=True)]


@app.callback()
def _begin(_: Version = False) -> None:
    logs.to_stderr("WARNING")


app.command("demo")(demo.demo)
app.command("up")(services.up)
app.command("ledger")(services.ledger)
app.command("project")(services.project)
app.command("timekeeper")(services.timekeeper)
app.command("serve")(services.serve)
app.command("submit")(submit.submit)
app.command("status")(donations.status)
app.command("history")(donations.history)
app.command("list")(donations.list_)
app.command("token")(token.token)
app.command("doctor")(doctor.doctor)
audit.app.command("export")(proof.export)
audit.app.command("prove")(proof.prove)
audit.app.command("verify")(proof.verify)
app.add_typer(registry.app, name="registry")
app.add_typer(fts.app, name="import")
audit.app.command("seal")(seal.seal)
audit.app.command("seal-key")(seal.key)
audit.app.command("witness")(seal.witness)
app.add_typer(audit.app, name="audit")
app.add_typer(topics.app, name="topics")
app.add_typer(rights.app, name="rights")
app.add_typer(schemas.app, name="schemas")


def main() -> None:
    sys.exit(run())


def run() -> int:
    """The command of sys.argv; returns its exit code."""
    try:
        code = app(standalone_mode=False)
        sys.stdout.flush()
    except typer.Abort:  # Ctrl-C in a command that is no service
        return _end("stopped", 130)
    except AidtrailError as error:
        return _end(str(error), error.exit_code)
    except typer.TyperException as error:
        if error.format_message().startswith("Usage:"):  # a noun without its verb
            print(error.format_message(), file=sys.stderr)
            return UsageError.exit_code
        said = error.format_message().replace("Value error, ", "")
        return _end(f"{said} ('{_asked(error)} --help' says more)", UsageError.exit_code)
    except psycopg.OperationalError as error:
        return _end(f"PostgreSQL went away: {error}. Check that the server is up.", UnavailableError.exit_code)
    except (BrokenPipeError, SystemExit):  # 'aidtrail list | head': nobody reads on. typer and rich would exit with 1 then
        _say_no_more()
        return 128 + signal.SIGPIPE  # as any program: 0 is that a check held, 1 that it failed
    except OSError as error:
        _say_no_more()
        return _end(f"{error.filename or 'stdout'}: {error.strerror or error}", UnavailableError.exit_code)
    return code if isinstance(code, int) else 0


def _asked(error: typer.TyperException) -> str:
    """The command, or the noun, that was asked wrongly."""
    context = getattr(error, "ctx", None)
    return "aidtrail" if context is None else context.command_path


def _say_no_more() -> None:
    """What is still to be written to stdout goes nowhere: Python tries once more when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _end(message: str, code: int) -> int:
    line = " ".join(message.split())
    print(f"aidtrail: {line}", file=sys.stderr)
    return code
