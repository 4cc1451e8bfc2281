"""The operations guide: its commands and files exist, its figures are README's."""

import re

import pytest

from tests.deployed import DEPLOY, compose, example_settings
from tests.documented import command_of
from tests.test_kubernetes import ALL

ROOT = DEPLOY.parent
GUIDE = (DEPLOY / "OPERATIONS.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```sh\n(.*?)^```", GUIDE, re.DOTALL | re.MULTILINE)
PROSE = re.sub(r"^```.*?^```", "", GUIDE, flags=re.DOTALL | re.MULTILINE)
INLINE = re.findall(r"`([^`]+)`", PROSE)
SERVICES = compose(dict.fromkeys(example_settings(), "set"))["services"]
COMPOSE = re.compile(r"docker compose --file deploy/compose.yaml (?:run|exec|logs|up)(?: -\S+)* (?P<service>[a-z]+)\b")
COMPOSE_RUN = re.compile(r"^docker compose .* run (?:-\S+ )*(?P<service>[a-z]+) (?P<words>[a-z].*)$", re.MULTILINE)


def aidtrail_commands() -> set[str]:
    """The nouns and verbs of every command in the guide, with their long options."""
    spoken = [text.partition("aidtrail ")[2] for text in INLINE if text.startswith("aidtrail ")]
    lines = "\n".join(BLOCKS).splitlines()
    typed = [line.partition("aidtrail ")[2] for line in lines if line.startswith("aidtrail ")]
    typed += [line.partition(" -- aidtrail ")[2] for line in lines if " -- aidtrail " in line]
    run = [found["words"] for found in COMPOSE_RUN.finditer("\n".join(BLOCKS))]
    return {" ".join(re.findall(r"(?:^|(?<= ))(?:--)?[a-z][a-z-]*(?= |$)", text)[:3]) for text in spoken + typed + run}


COMMANDS = sorted(aidtrail_commands())


def test_the_guide_has_commands() -> None:
    assert {"audit rebuild --keep", "audit go-live", "registry load", "doctor"} <= set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_exists(command: str) -> None:
    assert not hasattr(command_of(command), "commands"), command  # a noun without its verb


def test_every_file_and_target_that_is_named_is_there() -> None:
    for name in re.findall(r"\b(?:deploy|tests|schemas)/[\w./-]*\w", GUIDE):
        if name != "deploy/.env":
            assert (ROOT / name).exists() or f"Deployment {name.removeprefix('deploy/')}" in ALL, name
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"make ([a-z-]+)", " ".join(INLINE)):
        assert f"\n{target}:" in makefile


def test_every_service_that_is_named_to_compose_is_one() -> None:
    named = [found["service"] for found in COMPOSE.finditer(GUIDE)] + re.findall(r"--scale ([a-z]+)=", GUIDE)

    assert {"projector", "replay", "postgres"} <= set(named)
    assert [name for name in named if name not in SERVICES] == []


def test_every_workload_that_is_named_to_kubectl_is_one() -> None:
    kinds = {"statefulset": "StatefulSet", "cronjob": "CronJob"}
    texts = [GUIDE, *(path.read_text(encoding="utf-8") for path in (DEPLOY / "runbooks").glob("*.md"))]
    named = re.findall(r"\b(statefulset|cronjob)/([a-z]+)", " ".join(texts))

    assert set(named) == {("statefulset", "seal"), ("cronjob", "replay")}
    assert [name for kind, name in named if f"{kinds[kind]} {name}" not in ALL] == []


def test_every_figure_of_sizing_is_readmes() -> None:
    (sizing,) = re.findall(r"^## Sizing\n(.*?)^## ", GUIDE, re.DOTALL | re.MULTILINE)
    (speed,) = re.findall(r"^## Speed\n(.*?)^## ", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)

    figures = re.findall(r"\b\d[\d,]*\d\b", sizing)
    assert figures
    assert [figure for figure in figures if not re.search(rf"(?<![\d,]){figure}(?![\d,])", speed)] == []
