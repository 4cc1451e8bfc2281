"""`python -m tests.drill`: each alert is made to fire by its real cause, on the deployment of `tests.observe`, and to end when that is
undone. Minutes of the rules are seconds here, and days a minute or less; nothing else of them is changed.
"""

import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Collection, Iterable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import psycopg

from aidtrail import codec
from aidtrail.chain import NO_HEAD
from aidtrail.demo.story import story
from aidtrail.domain.events import LedgerStamp
from aidtrail.log import Draft, partition_of
from aidtrail.log.kafka import KafkaLog
from aidtrail.producer import Producer
from tests.deployed import Instance
from tests.observe import PROMETHEUS, TOPICS, Observed, lived, observed
from tests.test_prometheus import ALERTS
from tests.waiting import eventually

A_SECOND = 50.0
SECONDS = 150.0
PEOPLES = {"AidtrailMoneyUnacknowledged", "AidtrailApprovalsStuck", "AidtrailApprovalsExpire"}
"""End when people decide, pay and acknowledge; and what was forged stays in the log: these are made to fire, not to end."""
FOR_EVER = {"AidtrailReplayDiffers"}
FROZEN_SECONDS = 20.0
WINDOW_SECONDS = 2 * int(FROZEN_SECONDS)
"""At least: a frozen process is not asked either, and a window that is no longer than that knows nothing from before to compare with."""
FASTER = {
    "8 * 86400": "45", "30 * 86400": "60", "14 * 86400": "30", "> 300": "> 28", "> 10000": "> 1000", "> 3 *": "> 0.5 *",
}  # fmt: skip


def hurried(folder: Path) -> Path:
    """The rules of deploy/, with a second for each minute; windows are at least WINDOW_SECONDS."""

    def seconds(found: re.Match[str]) -> str:
        minutes = int(found[2]) * (60 if found[3] == "h" else 1)
        return f"{found[1]}{minutes if 'for' in found[1] else max(WINDOW_SECONDS, minutes)}s"

    for name in ("rules.yml", "alerts.yml"):
        text = (PROMETHEUS / name).read_text(encoding="utf-8").replace("interval: 30s", "interval: 2s")
        text = re.sub(r"(\[|offset |for: )(\d+)([mh])", seconds, text)
        for slow, fast in FASTER.items():
            text = text.replace(slow, fast)
        (folder / name).write_text(text)
    return folder


class Drill:
    def __init__(self, seen: Observed) -> None:
        self.seen = seen
        self.fired: set[str] = set()
        self.ended: set[str] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._load)

    def fires(self, what: str, *names: str) -> None:
        self.fired |= self._wait(what, names, "firing")

    def ends(self, what: str, *names: str) -> None:
        self.ended |= self._wait(what, names, "inactive") & self.fired

    def stop(self, name: str) -> Instance:
        (instance,) = (running for running in self.seen.deployment.running() if running.name == name)
        instance.stop()
        return instance

    def freeze(self, name: str, seconds: float) -> None:
        """Let it stand still for so long: its process, its connections and its memory stay."""
        (instance,) = (running for running in self.seen.deployment.running() if running.name == name)
        instance.process.send_signal(signal.SIGSTOP)
        time.sleep(seconds)  # the length of the cause, not a wait for its effect
        instance.process.send_signal(signal.SIGCONT)

    def start(self, stopped: Instance, command: list[str] | None = None) -> None:
        """Start it again, where Prometheus looks for it."""
        made = self.seen.deployment
        again = Instance(stopped.name, command or made.command(stopped.name), stopped.health, stopped.environment, stopped.said_in)
        made.adopt(again)
        again.wait_until_healthy()

    def run(self, *words: str) -> None:
        command = [str(Path(sys.executable).parent / "aidtrail"), *words]
        subprocess.run(command, env=self.seen.deployment.environment("projector"), capture_output=True, timeout=120, check=True)

    def forge(self) -> None:
        """An entry that chains perfectly and says something else than was submitted, at the end of time: no rule foresees what is due after
        it. The donation goes on up to its approval. Requires that no ledger runs and nothing waits."""
        now = datetime.now(UTC)
        event, *others = (lived(step.event(number, now), "KRCS-FORGED-01", 1) for number, step in enumerate(story(now)[:5], start=1))
        partition = partition_of(b"KRCS-FORGED-01", 4)
        with psycopg.connect(self.seen.views) as connection:
            ((tail,),) = connection.execute("SELECT last_outcome_sha256 FROM live.positions WHERE partition = %s", (partition,)).fetchall()
        with Producer(self.seen.log, TOPICS) as producer:
            appended = producer.submit([event, *others])[0]
        registry_offset = self.seen.log.end_offsets(TOPICS.registry)[0] - 1
        plain = codec.encode(event.model_copy(update={"valid_until": None}))
        stamp = LedgerStamp(
            version=1, submitted_offset=appended.offset, previous_outcome_sha256=tail, previous_sha256=NO_HEAD.sha256, rules=1,
            recorded_at=datetime(9999, 12, 31, tzinfo=UTC), registry_offset=registry_offset,
        )  # fmt: skip
        appender = self.seen.log.appender()
        appender.append([Draft(TOPICS.recorded, partition, b"KRCS-FORGED-01", codec.stamped(plain, codec.read(plain)[1], stamp))])
        appender.close()

    def __enter__(self) -> "Drill":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.quiet()

    def quiet(self) -> None:
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _load(self) -> None:
        log = KafkaLog(self.seen.deployment.bootstrap.split(","))
        number = 0
        while not self._stop.is_set():
            number += 1
            self.seen.load(20, A_SECOND, "KRCS-LOAD" if number == 1 else f"KRCS-LOAD{number}", log)
        log.close()

    def _wait(self, what: str, names: Iterable[str], state: str) -> set[str]:
        began, missing, found = time.monotonic(), set(names), set[str]()

        def all_are() -> bool:
            states = self.seen.prometheus.alerts()
            found.update(name for name in missing if states[name] == state)
            return found >= missing

        eventually(all_are, SECONDS)
        late = f"; not {', '.join(sorted(missing - found))}" if missing - found else ""
        print(f"{what}: {', '.join(sorted(found))} {state} after {time.monotonic() - began:.0f} s{late}", flush=True)
        return found


def main() -> int:
    with ExitStack() as stack:
        rules = hurried(Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="aidtrail-rules-"))))
        seen = stack.enter_context(observed(rules))
        drill = stack.enter_context(Drill(seen))

        drill.fires("a fold fails, requests wait, approvals end, money is on its way", "AidtrailParked", *PEOPLES)
        seen.forge()
        drill.fires("somebody writes to both topics", "AidtrailVoid", "AidtrailAnotherWriter", "AidtrailUndecodable")
        seen.audit("replay", "rebuild")
        drill.fires("the views have another fold", "AidtrailViewsDiffer")
        sealer = drill.stop("seal")
        drill.fires("the sealer is stopped", "AidtrailSealTooOld")
        drill.start(sealer)
        drill.ends("the sealer runs", "AidtrailSealTooOld")

        projector = drill.stop("projector")
        late = ("AidtrailServiceDown", "AidtrailLagGrowing", "AidtrailLagTooLarge", "AidtrailNoHeartbeat")
        drill.fires("the projector is stopped", *late)
        drill.start(projector)
        drill.ends("it has caught up", *late)
        drill.run("project", "--unpark")
        drill.ends("a release without the defect", "AidtrailParked")
        seen.audit("rebuild")
        drill.ends("a rebuild without a difference", "AidtrailViewsDiffer")

        drill.freeze("projector", FROZEN_SECONDS)
        visible = ("AidtrailTimeToVisibleFast", "AidtrailTimeToVisibleSlow")
        drill.fires(f"the projector stood still for {FROZEN_SECONDS:.0f} s", *visible)

        drill.fires("nobody replays", "AidtrailReplayTooOld")
        seen.audit("replay")
        drill.ends("a replay", "AidtrailReplayTooOld")
        seen.server.crash()
        database = ("AidtrailOutage", "AidtrailGatewayErrors", "AidtrailFiguresOld")
        drill.fires("PostgreSQL is killed", *database)
        seen.server.start()
        drill.ends("PostgreSQL runs", *database)
        drill.ends("after a while", *visible, "AidtrailVoid", "AidtrailAnotherWriter", "AidtrailUndecodable")

        drill.quiet()
        assert eventually(seen.is_projected, 60)
        ledger = drill.stop("ledger")
        drill.forge()
        drill.start(ledger)
        assert eventually(seen.is_projected, 60)
        seen.audit("replay")
        drill.fires("an entry is forged that chains", "AidtrailReplayDiffers", "AidtrailCannotBeRuled")
        drill.ends("after a while", "AidtrailCannotBeRuled")
    return exit_code(drill.fired, drill.ended)


def exit_code(fired: Collection[str], ended: Collection[str]) -> int:
    """0 when every alert fired, and every one that can end did; counts on stdout."""
    never = ALERTS.keys() - set(fired)
    stayed = ALERTS.keys() - set(ended) - PEOPLES - FOR_EVER
    print(f"alerts {len(ALERTS)}, fired {len(fired)}, ended {len(ended)} of {len(ALERTS) - len(PEOPLES) - len(FOR_EVER)}")
    print(f"never fired: {sorted(never)}; did not end: {sorted(stayed)}")
    return 1 if never or stayed else 0


if __name__ == "__main__":
    sys.exit(main())
