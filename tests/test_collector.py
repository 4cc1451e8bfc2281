"""When services look for rings of garbage, which reference counts do not free."""

import gc
import weakref
from types import SimpleNamespace

import pytest

from aidtrail import service
from aidtrail.service import COLLECT_ALL_SECONDS, COLLECT_SECONDS, young_garbage_only


class Ring:
    def __init__(self) -> None:
        self.itself = self


def test_what_became_garbage_young_is_found_soon_and_what_was_old_by_then_in_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(service, "time", SimpleNamespace(monotonic=lambda: now))
    with young_garbage_only() as collect:
        young, old = Ring(), Ring()
        watched = {"young": weakref.ref(young), "old": weakref.ref(old)}

        def left() -> list[str]:
            collect()
            return [name for name, ring in watched.items() if ring() is not None]

        del young
        at_once = left()
        now = COLLECT_SECONDS + 1
        soon = left()
        now = 2 * COLLECT_SECONDS + 2
        left()
        del old
        now = 3 * COLLECT_SECONDS + 3
        later = left()
        now = COLLECT_ALL_SECONDS + 1
        in_minutes = left()
        enabled = gc.isenabled()

    assert (at_once, soon, later, in_minutes) == (["young", "old"], ["old"], ["old"], [])
    assert not enabled
    assert gc.isenabled()
