"""What people see: at every width of a terminal all of it, and where stdout is no terminal a line for each row."""

import io
from collections.abc import Callable

import pytest
from rich.console import Console
from rich.text import Text

from aidtrail import show

NAMES = ("donation", "amount", "by", "what")
ROWS = [
    (
        "KRCS-2026-0000000000000000000000001",
        "1,250,000,000.500 KWD",
        "krcs-treasury-officer-1 (KRCS)",
        "leg L1, a reason of many words " * 9,
    ),
    ("D-2", "0.500 KWD", "", Text("refused")),
]


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], io.StringIO]:
    """A terminal of so many columns, and what is on it; show.PIPE_WIDTH columns where stdout is no terminal."""

    def of_width(columns: int) -> io.StringIO:
        out = io.StringIO()
        monkeypatch.setattr(show, "console", lambda: Console(file=out, width=columns, highlight=False, markup=False, emoji=False))
        return out

    return of_width


@pytest.mark.parametrize("columns", [40, 60, 80, 100])
def test_a_table_that_is_too_wide_becomes_a_block_for_each_row_and_no_cell_is_cut(
    screen: Callable[[int], io.StringIO], columns: int
) -> None:
    out = screen(columns)
    show.table(NAMES, ROWS, right=(1,))

    said = out.getvalue()
    assert max(map(len, said.splitlines())) <= columns
    for row in ROWS:
        for cell in row[:3]:
            assert str(cell) in said
    assert said.split() == " ".join(f"{name} {cell}" for row in ROWS for name, cell in zip(NAMES, row, strict=True) if str(cell)).split()
    assert "…" not in said


@pytest.mark.parametrize("columns", [400, show.PIPE_WIDTH])
def test_a_table_with_room_has_one_line_for_each_row_and_its_columns_stand_below_one_another(
    screen: Callable[[int], io.StringIO], columns: int
) -> None:
    out = screen(columns)
    show.table(NAMES, ROWS, right=(1,))

    head, first, second = out.getvalue().splitlines()
    assert first.index("KWD") == second.index("KWD")
    assert head.index("what") == first.index("leg L1") == second.index("refused")


def test_what_is_longer_than_a_line_goes_on_below_its_beginning(screen: Callable[[int], io.StringIO]) -> None:
    out = screen(40)
    show.fields([("donor", "Kuwait Red Crescent Society (KRCS)"), ("beneficiary", "Kantha Bopha Children's Hospital (KBH)")])

    assert out.getvalue().splitlines() == [
        "donor        Kuwait Red Crescent Society",
        "             (KRCS)",
        "beneficiary  Kantha Bopha Children's",
        "             Hospital (KBH)",
    ]
