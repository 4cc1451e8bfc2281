"""What a service's process answers to those who watch it: well, in trouble, or stuck."""

import subprocess
import sys
from threading import Event

import pytest

from aidtrail import health, probes, service
from aidtrail.errors import UnavailableError
from aidtrail.service import STUCK_SECONDS, Pulse
from tests.brokers import free_ports

SERVICES = ("ledger", "projector")


class Clock:
    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pulses(clock: Clock) -> dict[str, Pulse]:
    return {name: Pulse(clock) for name in SERVICES}


@pytest.fixture
def url(pulses: dict[str, Pulse]) -> str:
    (port,) = free_ports(1)
    probes.serve("127.0.0.1", port, pulses)
    return f"http://127.0.0.1:{port}"


def ask(url: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit code and words of the health command."""
    code = health.main(url)
    return code, capsys.readouterr().out.strip()


def test_a_container_asks_itself_and_no_proxy(
    url: str, pulses: dict[str, Pulse], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (nobody,) = free_ports(1)
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{nobody}")
    for pulse in pulses.values():
        pulse.turned()

    assert ask(f"{url}/readyz", capsys) == (0, "ok")


def test_a_service_is_alive_while_it_starts_and_ready_after_its_first_turn(
    url: str, pulses: dict[str, Pulse], capsys: pytest.CaptureFixture[str]
) -> None:
    starting = ask(f"{url}/readyz", capsys)
    alive = ask(f"{url}/livez", capsys)
    for pulse in pulses.values():
        pulse.turned()

    assert starting == (1, "ledger: starting projector: starting")
    assert alive == (0, "ok")
    assert ask(f"{url}/readyz", capsys) == (0, "ok")


def test_in_an_outage_a_service_is_not_ready_and_a_restart_would_not_help(
    url: str, pulses: dict[str, Pulse], capsys: pytest.CaptureFixture[str]
) -> None:
    pulses["ledger"].turned()
    pulses["projector"].turned("PostgreSQL went away")

    assert ask(f"{url}/readyz", capsys) == (1, "projector: PostgreSQL went away")
    assert ask(f"{url}/livez", capsys) == (0, "ok")


def test_a_service_whose_turn_does_not_end_is_to_be_restarted(
    url: str, pulses: dict[str, Pulse], clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    pulses["ledger"].turned()  # the other's first turn reads a log: it counts as starting
    clock.seconds = STUCK_SECONDS
    before = ask(f"{url}/livez", capsys)
    clock.seconds += 1

    assert before == (0, "ok")
    assert ask(f"{url}/livez", capsys) == (1, "ledger: stuck: no turn has ended for 301 s")


def test_the_loop_of_a_service_tells_its_pulse() -> None:
    stop, pulse = Event(), Pulse()
    seen: list[str | None] = []

    class Three:
        name = "three"

        def turn(self) -> int:
            seen.append(pulse.trouble())
            if len(seen) == 2:
                raise UnavailableError("no broker")
            if len(seen) == 4:
                stop.set()
            return 0

        def reset(self) -> None: ...

        def close(self) -> None: ...

    service.run(Three(), stop, pulse=pulse)

    assert seen == ["starting", None, "no broker", None]


def test_metrics_are_on_the_same_port(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = ask(f"{url}/metrics", capsys)

    assert code == 0
    assert said.startswith("# HELP ")


def test_a_port_that_is_taken_is_one_clear_error(url: str, pulses: dict[str, Pulse]) -> None:
    port = int(url.rpartition(":")[2])

    with pytest.raises(UnavailableError, match=f"AIDTRAIL_METRICS_PORT {port} cannot be opened"):
        probes.serve("127.0.0.1", port, pulses)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/readyz", "nonsense"])
def test_nobody_there_is_one_line_and_exit_code_1(url: str) -> None:
    done = subprocess.run([sys.executable, "-m", "aidtrail.health", url], capture_output=True, text=True, timeout=30, check=False)

    assert done.returncode == 1
    assert done.stdout.startswith(f"{url}: ")
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""
