"""What documents say of the command line, held against it. In this process: starting one for each command took a minute of every run."""

from collections.abc import Iterator
from typing import Any

from typer.main import get_command

from aidtrail.cli import app


def command_of(words: str) -> Any:
    """The click command that `words` ("audit rebuild --keep") begin with. Fails for a noun, verb or long option that does not exist; what
    follows a command without a verb of its own is its argument."""
    found: Any = get_command(app)
    for word in words.split():
        if word.startswith("--"):
            assert word in {option for parameter in found.params for option in parameter.opts}, words
        elif hasattr(found, "commands"):
            assert word in found.commands, words
            found = found.commands[word]
    return found


def all_commands() -> Iterator[tuple[str, ...]]:
    """The words of every command and of every group of them."""

    def below(command: Any, words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        yield words
        for name, inner in getattr(command, "commands", {}).items():
            yield from below(inner, (*words, name))

    return below(get_command(app), ())
