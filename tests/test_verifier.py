"""The verifier stands alone, agrees with Aidtrail on what is sound, and names what is not, claim by claim."""

import ast
import base64
import itertools
import json
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from aidtrail import codec, contract
from aidtrail.audit import verifier
from aidtrail.audit.note import COSIGNATURE, Note, SignerKey, cosign, parse
from aidtrail.audit.policy import Policy, read_policy
from aidtrail.chain import NO_HEAD, NO_TAIL, Head, Tail, read_entry, void_reason
from aidtrail.domain import events as e
from aidtrail.domain.rules import RULES, RULES_VERSION
from aidtrail.domain.rules.common import ROLES
from aidtrail.errors import UndecodableError, UsageError
from aidtrail.log import partition_of
from aidtrail.log.memory import MemoryRecord
from aidtrail.ruling import EPOCH
from tests import test_domain_machine as machine
from tests.acts import Acts, full_life, money, registry_events
from tests.replaying import stamped
from tests.signers import signer
from tests.worlds import KEY, PARTITIONS, SCHEMAS, TRUSTED, Held, Record, World, judged, projected, proved, rewrite, saved, sealed

FILE = Path(verifier.__file__)
ALLOWED = {"cryptography", "cffi", "_cffi_backend"}
MERKLE = Path(__file__).parents[2] / "shared" / "data" / "merkle"
VKEY = str(KEY.verifier)


# --- it stands alone ----------------------------------------------------------------------------------------------------------------


def test_it_imports_the_standard_library_and_cryptography_alone() -> None:
    tree = ast.parse(FILE.read_text(encoding="utf-8"))

    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in names} <= sys.stdlib_module_names | {"cryptography"}


def test_a_copy_of_the_file_runs_where_nothing_else_can_be_imported(tmp_path: Path, world: World) -> None:
    copy = tmp_path / "verifier.py"
    copy.write_bytes(FILE.read_bytes())
    saved(world.held(), tmp_path / "export")
    guard = (
        "import runpy, sys\n"
        "class Guard:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.partition('.')[0] not in sys.stdlib_module_names | {ALLOWED!r}:\n"
        "            raise ImportError(f'{name} is not allowed here')\n"
        "sys.meta_path.insert(0, Guard())\n"
        f"sys.argv = ['verifier.py', '--key', {VKEY!r}, {str(tmp_path / 'export')!r}]\n"
        f"runpy.run_path({str(copy)!r}, run_name='__main__')\n"
    )

    done = subprocess.run([sys.executable, "-I", "-c", guard], capture_output=True, text=True, cwd=tmp_path, timeout=120, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "altered 0, removed 0, reordered 0, invented 0, view rows differing 0" in done.stdout


def test_it_knows_every_schema_that_is_published_and_no_other() -> None:
    rows = json.loads((contract.FOLDER / "ids.json").read_text(encoding="utf-8"))

    assert {row["id"]: (f"{row['event']}.v{row['version']}", row["sha256"]) for row in rows} == verifier.FINGERPRINTS


def test_it_knows_the_roles_and_folds_of_every_event() -> None:
    kinds = {kind.type for kind in RULES} - {"SubmissionRefused"}

    assert {kind: set(roles) for kind, roles in verifier.ROLES.items()} == {kind.type: set(roles) for kind, roles in ROLES.items()}
    assert set(verifier._FOLDS) == kinds - {"PledgeAnnounced"}
    assert {kind for kind in kinds if not hasattr(verifier.Step, f"_{kind}")} == {"PledgeAnnounced"}


# --- it computes as others do -------------------------------------------------------------------------------------------------------


def test_partitions_are_those_of_kafkas_own_clients() -> None:
    chance = random.Random(1)
    keys = [bytes(chance.choices(b"ABCDEFGHIJ-0123456789", k=length)) for length in range(1, 65) for _ in range(4)]

    assert [verifier.partition_of(key, 12) for key in keys] == [partition_of(key, 12) for key in keys]


@pytest.mark.skipif(not MERKLE.is_dir(), reason="the published vectors are not here")
def test_published_inclusion_and_consistency_vectors() -> None:
    cases = 0
    for case in json.loads((MERKLE / "inclusion.json").read_text()):
        cases += 1
        hashed, root, path = (_unbase64(case[name]) for name in ("leafHash", "root", "proof"))

        def included() -> None:
            if verifier.root_by_inclusion(hashed, case["leafIdx"], case["treeSize"], path) != root:  # noqa: B023
                raise verifier.Wrong("another root")

        assert _passes(included) is not case["wantErr"], case
    for case in json.loads((MERKLE / "consistency.json").read_text()):
        cases += 1
        old, new, path = (_unbase64(case[name]) for name in ("root1", "root2", "proof"))
        sizes = case["size1"], case["size2"]
        if not 1 <= sizes[0] <= sizes[1]:
            continue  # never asked
        assert _passes(lambda: verifier.require_consistent(sizes[0], old, sizes[1], new, path)) is not case["wantErr"], case  # noqa: B023
    print(f"{cases} published proofs")


def test_what_it_decodes_is_what_the_ledger_decodes() -> None:
    """Every example and thousands of mutants: both read them, or neither."""
    chance, schemas = random.Random(7), verifier.Schemas(SCHEMAS)
    values = [codec.encode(codec.from_json(path.read_text())) for path in sorted((contract.FOLDER / "examples").glob("*.json"))]
    tried = differing = 0
    for value in values:
        for number in range(100):
            mutant = bytearray(value)
            for _ in range(min(number, chance.randrange(1, 4))):
                place = chance.randrange(5, len(mutant))
                match chance.randrange(3):
                    case 0:
                        mutant[place] ^= 1 << chance.randrange(8)
                    case 1:
                        del mutant[place]
                    case _:
                        mutant.insert(place, chance.randrange(256))
            tried += 1
            differing += _decodes(lambda m: codec.read_recorded(m), bytes(mutant)) != _decodes(schemas.decode, bytes(mutant))
    print(f"{tried} values, {differing} read by one reader only")
    assert differing == 0


class Followed(machine.Lives):
    """Whatever the rules admit, the verifier has no objection to, and folds to the same rows."""

    registry = verifier.Registry()
    compared = 0

    def submit(self, event: e.Event, before: Any) -> None:
        if before is None:
            self.life, self.records, self.tail, self.head = verifier.Life(), [], NO_TAIL, NO_HEAD
        version = self.donation.version if before is not None else 0
        super().submit(event, before)
        if getattr(self, "donation", None) is None or self.donation.version == version:
            return
        stamp = e.LedgerStamp(
            version=version + 1,
            submitted_offset=len(self.records),
            previous_outcome_sha256=self.tail.sha256,
            recorded_at=EPOCH + (self.acts.now - EPOCH) // timedelta(milliseconds=1) * timedelta(milliseconds=1),
            previous_sha256=self.head.sha256,
            registry_offset=self.registry.end,
            rules=RULES_VERSION,
        )
        submission = codec.encode(event)
        value = codec.stamped(submission, codec.read(submission)[1], stamp)
        digest = codec.sha256(value)
        self.tail, self.head = Tail(len(self.records), digest), Head(version + 1, digest)
        self.records.append(Record(len(self.records), 0, event.meta.donation_id.encode(), value))
        found = verifier.Event(*_DECODER.decode(value))
        assert list(self.life.follow(found, digest, self.registry)) == []

    def teardown(self) -> None:
        if not getattr(self, "records", None):
            return
        rows, d = projected([self.records], [len(self.records)]), self.life.donation
        assert d is not None
        # The partition is that of one among one, and a donation's rows name it.
        assert rows["donations", 0] == [verifier.donation_row(d, 0)]
        assert rows["amounts", 0] == verifier.amount_rows(d)
        assert rows["approvals", 0] == verifier.approval_rows(d)
        Followed.compared += 1


_DECODER = verifier.Schemas(SCHEMAS)


def test_an_event_that_chains_counts_in_its_home_partition_alone_as_for_every_reader() -> None:
    head = Head(1, codec.sha256(b"the head"))
    stamp = e.LedgerStamp(
        version=2,
        submitted_offset=0,
        previous_outcome_sha256=codec.GENESIS,
        recorded_at=EPOCH,
        previous_sha256=head.sha256,
        registry_offset=0,
        rules=1,
    )
    event = stamped(Acts("KRCS-2026-0001").withdrawn(), stamp)
    record = Record(0, 0, b"KRCS-2026-0001", codec.encode(event))
    entry = verifier.read_entry(verifier.Record(*record), _DECODER)

    found = [verifier.void_reason(entry, verifier.Tail(), verifier.Head(*head), number, PARTITIONS) for number in range(PARTITIONS)]

    placed = [read_entry(MemoryRecord("donations.recorded", number, *record)) for number in range(PARTITIONS)]
    assert found == [void_reason(entry, NO_TAIL, head, PARTITIONS) for entry in placed]
    assert [number for number, reason in enumerate(found) if reason is None] == [partition_of(b"KRCS-2026-0001", PARTITIONS)]


def test_lives_of_any_kind_fold_to_the_rows_of_aidtrails_own_fold() -> None:
    for offset, event in enumerate(registry_events()):
        verifier.take_registered(Followed.registry, Record(offset, 0, None, codec.encode(event)), _DECODER)
    settled = settings(
        max_examples=machine.LIVES // 6,
        stateful_step_count=machine.STEPS,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )

    run_state_machine_as_test(seed(machine.SEED)(Followed), settings=settled)

    print(f"{Followed.compared} donations folded twice, 0 rows differ")
    assert Followed.compared >= machine.LIVES // 8


def _decodes(decode: Callable[[bytes], Any], value: bytes) -> bool:
    try:
        decode(value)
    except (UndecodableError, verifier.Undecodable):
        return False
    return True


def _passes(check: Callable[[], None]) -> bool:
    try:
        check()
    except verifier.Wrong:
        return False
    return True


def _unbase64(value: Any) -> Any:
    if value is None:
        return []
    return [base64.b64decode(one) for one in value] if isinstance(value, list) else base64.b64decode(value)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(1, tmp_path_factory.mktemp("world"))


# --- claim by claim -----------------------------------------------------------------------------------------------------------------


def by(actor_id: str, party_id: str, role: str) -> Callable[[e.Event], e.Event]:
    actor = e.Actor(actor_id=actor_id, party_id=party_id, role=role)
    return lambda event: event.model_copy(update={"meta": event.meta.model_copy(update={"actor": actor})})


def with_(**changes: Any) -> Callable[[e.Event], e.Event]:
    return lambda event: event.model_copy(update=changes)


FORGERIES: list[tuple[str, int, Callable[[e.Event], e.Event], str]] = [
    ("PledgeConfirmed", 0, by("krcs-officer", "KRCS", "officer"), "krcs-officer confirms, and announced it"),
    ("ApprovalDecided", 2, by("mef-approver", "MEF", "approver"), "mef-approver decides on A2, and decided before"),
    ("ApprovalDecided", 1, by("krcs-officer", "KRCS", "officer"), "krcs-officer decides on A2, and requested it"),
    ("ApprovalDecided", 1, by("krcs-officer-3", "KRCS", "officer"), "krcs-officer-3 decides on A2, and shaped the pledge"),
    ("ApprovalDecided", 1, by("crc-officer", "CRC", "officer"), "crc-officer of CRC acts for mechanism MEF-SUPPORT, which is for MEF"),
    ("DisbursementInstructed", 0, by("mef-approver-2", "MEF", "approver"), "mef-approver-2 pays under A2, and decided on it"),
    ("DisbursementInstructed", 0, by("krcs-officer", "KRCS", "officer"), "krcs-officer pays under A2, and requested it"),
    ("DisbursementReleased", 0, by("krcs-preparer", "KRCS", "preparer"), "krcs-preparer releases D1, and prepared it"),
    ("DisbursementReleased", 0, by("nobody", "KRCS", "releaser"), "nobody is not enrolled"),
    ("DisbursementReleased", 0, by("krcs-retired", "KRCS", "releaser"), "krcs-retired may not do this as releaser of KRCS"),
    ("DisbursementReleased", 0, by("krcs-releaser", "CRC", "releaser"), "krcs-releaser may not do this as releaser of CRC"),
    ("ReceiptAcknowledged", 0, by("krcs-officer", "KRCS", "officer"), "krcs-officer of KRCS acknowledges D2, which is for KBH"),
    ("ApprovalRequested", 1, with_(approvals_required=1), "asks for 1 approvals, which is not what the mechanism asks for"),
    ("ApprovalRequested", 1, with_(terms_sha256=bytes(32)), "A2 is requested twice, for other terms, or for a pledge that has ended"),
    ("ApprovalRequested", 1, with_(amounts=(money("1300"),)), "more KWD is approved than is pledged"),
    ("ApprovalDecided", 1, with_(amounts=(money("1201"),)), "more is approved by mef-approver than was requested"),
    ("DisbursementInstructed", 0, with_(amount=money("1201")), "D1 does not keep to its plan"),
    ("DisbursementInstructed", 2, with_(amount=money("591")), "more KWD is paid under approval A2 than it grants"),
    ("DisbursementInstructed", 1, with_(amount=money("701")), "more KWD goes out of KRCS-CRC than came into it"),
    ("DisbursementInstructed", 2, with_(end_to_end_id="E2E-D1"), "D3 has the end-to-end id of another payment"),
    ("DisbursementInstructed", 0, with_(approval_id="A1"), "approval A1 is superseded"),
    ("DisbursementSettled", 0, with_(amount=money("700.0010")), "D1: instructed, settled and returned do not fall"),
    ("FundsReceived", 0, with_(amount=money("691")), "D1: settled, received and acknowledged do not fall"),
    ("ReceiptAcknowledged", 1, with_(amount=money("591")), "D4: settled, received and acknowledged do not fall"),
    ("UtilisationReported", 0, with_(amount=money("1191")), "more KWD is used than was acknowledged"),
    ("DonationClosed", 0, by("kbh-officer", "KBH", "officer"), "KBH is neither donor nor payer"),
]


@pytest.fixture(scope="module")
def lawful(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(2, tmp_path_factory.mktemp("lawful"), [list(full_life())])


@pytest.mark.parametrize(("kind", "number", "change", "said"), FORGERIES, ids=[f"{k}-{n}-{s[:30]}" for k, n, _, s in FORGERIES])
def test_c2_what_breaks_a_rule_is_named_although_log_seals_and_submissions_agree(
    kind: str, number: int, change: Callable[[e.Event], e.Event], said: str, lawful: World
) -> None:
    held = lawful.held()
    places = [
        (partition, one.entry.record.offset)
        for partition in range(PARTITIONS)
        for one in judged(held.kept["recorded", partition], partition)
        if one.entry.event is not None and one.entry.event.type == kind and one.reason is None
    ]
    partition, offset = places[number]
    rewrite(held, partition, offset, change)
    held.kept["checkpoints", 0], held.sealed_leaves = sealed(held.recorded(), lawful.steps), {}

    report = verifier.verify_export(held, verifier.Trust(TRUSTED))

    assert report.exit_code == 12, report.findings
    assert "C1" not in report.failing
    assert report.first is not None
    assert (report.first.partition, report.first.offset) == (partition, offset)
    assert any(said in one.what for one in report.findings if one.offset == offset), [one.what for one in report.findings]


def test_c2_an_event_that_is_admitted_twice_and_a_submission_that_was_passed_over_are_named(lawful: World) -> None:
    held, number = lawful.held(), max(range(PARTITIONS), key=lambda number: lawful.steps[-1][number])
    first = next(one.entry.event for one in judged(held.kept["recorded", number], number) if one.entry.event is not None)
    rewrite(
        held, number, 4, lambda event: event.model_copy(update={"meta": event.meta.model_copy(update={"event_id": first.meta.event_id})})
    )
    submitted = held.kept["submitted", number]
    submitted.insert(0, submitted[0]._replace(offset=0))
    submitted[:] = [record._replace(offset=at) for at, record in enumerate(submitted)]
    rewrite(held, number, -1, lambda event: event, answer_later=1)
    held.kept["checkpoints", 0], held.sealed_leaves = sealed(held.recorded(), lawful.steps), {}

    report = verifier.verify_export(held, verifier.Trust(TRUSTED))

    assert report.exit_code == 12
    assert any("is admitted twice" in one.what for one in report.findings)
    assert any("submission 0 has no outcome" in one.what for one in report.findings)


def test_c2_a_schema_that_says_something_else_is_not_taken(lawful: World) -> None:
    held = lawful.held()
    settled = next(at for at, text in held.texts.items() if b'"DisbursementSettled"' in text)
    held.texts[settled] = held.texts[settled].replace(b'"bank_reference"', b'"bank_referencf"')

    report = verifier.verify_export(held, verifier.Trust(TRUSTED))

    assert report.exit_code == 12
    assert report.findings[0].topic == f"schema {settled}"
    assert report.findings[0].what == f"expected {verifier.FINGERPRINTS[settled][0]}, found another"


def test_c2_two_schemas_under_each_others_id_are_not_taken_although_both_are_published(conditional: Held) -> None:
    """Else a condition that was breached would read as met."""
    met, breached = (_newest(kind) for kind in ("ConditionMet", "ConditionBreached"))
    conditional.texts[met], conditional.texts[breached] = conditional.texts[breached], conditional.texts[met]

    reports = _both(conditional)

    for report in reports:
        assert report.exit_code == 12
        assert {str(one) for one in report.findings[:2]} == {
            f"C2 fails: schema {met}: expected ConditionMet.v2, found another",
            f"C2 fails: schema {breached}: expected ConditionBreached.v2, found another",
        }


@pytest.mark.parametrize("kind", ["ConditionBreached", "MechanismDefined"])
def test_c2_a_schema_that_a_record_names_and_that_is_not_handed_over_is_named_with_the_record(kind: str, conditional: Held) -> None:
    """Else whoever leaves it out leaves the record out."""
    schema_id = _newest(kind)
    name = verifier.FINGERPRINTS[schema_id][0]
    del conditional.texts[schema_id]

    reports = _both(conditional)

    for report in reports:
        assert "C2" in report.failing
        assert report.exit_code == 12
        said = f"expected the schema {schema_id}, {name}, which the record names, found none"
        named = [one for one in report.findings if one.what == said]
        assert {one.topic for one in named} == {"registry" if kind == "MechanismDefined" else "recorded"}
        assert report.findings[0] == named[0]


def test_a_record_that_names_an_id_of_no_schema_is_undecodable_as_for_the_ledger(conditional: Held) -> None:
    value = b"\0" + (999).to_bytes(4, "big") + b"anything"
    number = max(range(PARTITIONS), key=lambda number: len(conditional.kept["recorded", number]))
    records = conditional.kept["recorded", number]
    records.append(Record(len(records), records[-1].timestamp, b"KRCS-2026-0001", value))
    ends = [len(kept) for kept in conditional.recorded()]
    conditional.kept["checkpoints", 0], conditional.view_ends = sealed(conditional.recorded(), [ends]), ends
    conditional.views, conditional.sealed_leaves = projected(conditional.recorded(), ends), {}

    report = verifier.verify_export(conditional, verifier.Trust(TRUSTED))

    assert report.findings == []
    assert report.void >= 1


@pytest.fixture
def conditional(tmp_path: Path) -> Held:
    """A condition is met, and then breached."""
    acts = Acts("KRCS-2026-0001")
    life = [acts.announced(), acts.confirmed(), acts.requested()]
    life += [acts.approved(conditions=(e.Condition(condition_id="C1", text="a report"),)), acts.approved(by="mef-approver-2")]
    return World(3, tmp_path, [[*life, acts.met(), acts.breached()]]).held()


def _newest(kind: str) -> int:
    return max(row.id for row in contract.published().values() if row.event == kind)


def _both(held: Held) -> list[verifier.Report]:
    """Of the export, and of the bundle of its donation."""
    trust = verifier.Trust(TRUSTED)
    return [verifier.verify_export(held, trust), verifier.verify_bundle(proved(held, "KRCS-2026-0001"), trust)]


def test_c1_an_export_that_says_that_there_are_fewer_partitions_is_found(lawful: World) -> None:
    held = lawful.held()
    held.partitions, held.view_ends = PARTITIONS - 1, (held.view_ends or [])[:-1]

    assert any("expected the 3 partitions" in one.what for one in verifier.verify_export(held, verifier.Trust(TRUSTED)).findings)


def test_c3_a_digest_of_the_views_that_was_sealed_and_is_not_that_of_the_fold_is_named(lawful: World) -> None:
    held, digests = lawful.held(), [digest and bytes(32) if at == 3 else digest for at, digest in enumerate(lawful.digests)]
    sound = verifier.verify_export(held, verifier.Trust(TRUSTED))
    held.kept["checkpoints", 0] = sealed(held.recorded(), lawful.steps, digests=digests)

    report = verifier.verify_export(held, verifier.Trust(TRUSTED))

    assert (sound.exit_code, sound.views_sealed) == (0, 3)
    assert report.exit_code == 13
    assert [one.what for one in report.findings] == ["the digest that manifest 3 sealed is not that of the fold"]


def test_c3_views_that_are_not_there_are_not_taken_for_equal(lawful: World) -> None:
    held = lawful.held()
    held.view_ends = None

    assert verifier.verify_export(held, verifier.Trust(TRUSTED)).exit_code == 13


# --- what the auditor brings along --------------------------------------------------------------------------------------------------


def test_what_was_seen_is_kept_and_replaced_only_by_what_continues_it(tmp_path: Path, world: World, capsys: Any) -> None:
    saved(world.held(2), tmp_path / "early")
    saved(world.held(), tmp_path / "late")
    forged = world.held()
    rewrite(
        forged, *next((n, 0) for n in range(PARTITIONS) if world.steps[0][n] and judged(forged.kept["recorded", n], n)[0].reason is None)
    )
    forged.kept["checkpoints", 0] = sealed(forged.recorded(), world.steps)
    forged.views = projected(forged.recorded(), forged.view_ends or [])
    saved(forged, tmp_path / "forged")
    retouched = world.held()
    number = next(number for number in range(PARTITIONS) if retouched.views["amounts", number])
    retouched.views["amounts", number][0] = {**retouched.views["amounts", number][0], "settled": "1.0000"}
    saved(retouched, tmp_path / "retouched")
    last = tmp_path / "last.json"

    def visit(name: str) -> int:
        return verifier.main(["--key", VKEY, "--last", str(last), str(tmp_path / name)])

    assert visit("early") == 0
    early = last.read_text()
    assert visit("retouched") == 13
    assert last.read_text() == early
    assert visit("late") == 0
    late = last.read_text()
    assert early != late
    assert verifier.main(["--key", VKEY, "--json", str(tmp_path / "retouched")]) == 13
    *before, said = capsys.readouterr().out.splitlines()
    assert any(line.endswith("it continues the one of size 2 that was seen last") for line in before)
    assert [json.loads(said)[name] for name in ("exit_code", "rows_differing", "failing")] == [13, 1, {"C3": 1}]

    assert visit("early") == 11, "shorter than what was seen"
    assert visit("forged") == 11
    assert last.read_text() == late
    evidence = {file.read_text() for file in tmp_path.glob("last.json.conflict-*")}
    assert (forged.kept["checkpoints", 0][-1].value or b"").decode() in evidence
    assert json.loads(late)["checkpoint"] in evidence
    assert "both checkpoints are kept" in capsys.readouterr().err

    assert verifier.main(["--key", VKEY, str(tmp_path / "forged")]) == 0, "who saw nothing before cannot tell"
    last.write_text("{}")
    assert visit("late") == 2
    assert last.read_text() == "{}"


def test_a_quorum_of_witnesses_is_required_where_the_policy_says_so(tmp_path: Path, world: World, capsys: Any) -> None:
    witnesses = [SignerKey.generate(f"{name}.example/witness", COSIGNATURE) for name in ("ministry", "donor", "auditor")]
    policy = tmp_path / "policy"
    lines = [f"log {VKEY}", *(f"witness w{at} {key.verifier}" for at, key in enumerate(witnesses)), "group most 2 w0 w1 w2", "quorum most"]
    policy.write_text("# who must have signed\n\n" + "\n".join(lines) + "\n")

    def verify_signed_by(count: int, spoil: bool = False, again: bool = False) -> int:
        held = world.held()
        newest = held.kept["checkpoints", 0][-1]
        note = parse(newest.value or b"")
        added = [cosign(note.text, key, 1_764_000_000) for key in witnesses[:count]]
        if spoil:
            added[-1] = added[-1]._replace(value=added[-1].value[:-1] + bytes([added[-1].value[-1] ^ 1]))
        held.kept["checkpoints", 0][-1] = newest._replace(value=Note(note.text, (*note.signatures, *added)).encode())
        if again:
            held.kept["checkpoints", 0] += [newest._replace(offset=newest.offset + 1)]
        folder = tmp_path / f"export-{count}-{spoil}-{again}"
        saved(held, folder)
        return verifier.main(["--policy", str(policy), str(folder)])

    assert [verify_signed_by(count) for count in range(4)] == [11, 11, 0, 0]
    assert "witnesses: w0, w1, w2" in capsys.readouterr().out
    assert [verify_signed_by(count, spoil=True) for count in (2, 3)] == [11, 0], "a wrong line is no signature, and spoils no other"
    assert [verify_signed_by(count, again=True) for count in (1, 2)] == [11, 0], "the same note without cosignatures takes none away"
    policy.write_text("\n".join([*lines[:-1], "quorum all-of-them"]))
    assert verifier.main(["--policy", str(policy), str(tmp_path)]) == 2


def test_a_note_with_a_wrong_signature_of_the_log_is_no_checkpoint_whoever_else_signed(world: World) -> None:
    note = parse(world.held().kept["checkpoints", 0][-1].value or b"")
    wrong = note.signatures[0]._replace(value=bytes(64))

    for signatures in ((wrong,), (wrong, *note.signatures), (*note.signatures, wrong)):
        with pytest.raises(verifier.Wrong, match="found a wrong one"):
            verifier.opened(Note(note.text, signatures).encode(), verifier.Key.parse(VKEY), {})


def test_a_cosignature_of_no_time_that_there_is_does_not_count(world: World) -> None:
    """tlog-cosignature: a timestamp must not exceed 2^63 - 1."""
    note = parse(world.held().kept["checkpoints", 0][-1].value or b"")
    witness, log = signer("w.example/witness", COSIGNATURE), verifier.Key.parse(VKEY)
    trusted = {"w": verifier.Key.parse(str(witness.verifier), verifier.WITNESS_KEY)}
    for seconds, counts in ((0, True), (2**63 - 1, True), (2**63, False), (2**64 - 1, False)):
        message = f"cosignature/v1\ntime {seconds}\n{note.text}".encode()
        signature = Ed25519PrivateKey.from_private_bytes(witness.secret).sign(message)
        line = cosign(note.text, witness, 1)._replace(value=seconds.to_bytes(8, "big") + signature)

        opened = verifier.opened(Note(note.text, (*note.signatures, line)).encode(), log, trusted)

        assert opened.witnesses == ({"w"} if counts else set())


def test_a_checkpoint_with_signatures_without_end_is_none(world: World) -> None:
    note = parse(world.held().kept["checkpoints", 0][-1].value or b"")
    encoded = note.encode() + str(note.signatures[0]).encode() * 3000

    with pytest.raises(verifier.Wrong, match="expected a checkpoint of at most 262144 bytes"):
        verifier.opened(encoded, verifier.Key.parse(VKEY), {})


W = [str(signer(f"{name}.example/witness", COSIGNATURE).verifier) for name in "abc"]
WITNESSES = f"witness a {W[0]}\nwitness b {W[1]} https://b.example/\nwitness c {W[2]}\n"


@pytest.mark.parametrize(
    "text",
    [
        f"log {VKEY}\n{WITNESSES}group two 2 a b c\nquorum two\n",
        f"log {VKEY} https://log.example/\n\n# all\n{WITNESSES}group g any a b\ngroup h all g c\nquorum h",
        f"{WITNESSES}quorum b\nlog {VKEY}\n",
        "quorum none",
        "",
        "quorum a",
        "quorum none\nquorum none",
        f"log {W[0]}\nquorum none",
        f"log {VKEY}\nlog {VKEY}\nquorum none",
        f"witness a {VKEY}\nquorum a",
        f"witness none {W[0]}\nquorum none",
        f"witness a {W[0]}\nwitness a {W[1]}\nquorum a",
        f"witness a {W[0]}\nwitness b {W[0]}\nquorum a",
        f"{WITNESSES}group g 4 a b c\nquorum g",
        f"{WITNESSES}group g 0 a b c\nquorum g",
        f"{WITNESSES}group g 2 a a\nquorum g",
        f"{WITNESSES}group g 1 a\ngroup h 1 a\nquorum h",
        f"{WITNESSES}group g any d\nquorum g",
        f"{WITNESSES}group g\nquorum g",
        f"{WITNESSES}group g some a\nquorum g",
        "trust everybody",
        "# witnesses to come\u2028quorum none\n",
        f"# witnesses to come\u2028{WITNESSES}# two\x0bquorum none\x85\nquorum a",
        f"{WITNESSES}quorum\u00a0none",
        f"{WITNESSES}quorum none\r\n",
        f"{WITNESSES}# all\r\nquorum\t a ",
        f"log\u2003{VKEY}\nquorum none",
        f"log {VKEY}\u00a0\nquorum none",
        f"{WITNESSES}group g +2 a b c\nquorum g",
        f"{WITNESSES}group g 02 a b c\nquorum g",
        f"{WITNESSES}group g \u0662 a b c\nquorum g",
        f"{WITNESSES}group g all\nquorum g",
    ],
)
def test_a_policy_means_the_same_to_the_verifier_as_to_the_seal(text: str) -> None:
    def read(parse: Callable[[str], Any], met: str) -> Any:
        try:
            policy = parse(text)
        except (UsageError, verifier.Unusable):
            return "refused"
        return [getattr(policy, met)(frozenset(names)) for count in range(4) for names in itertools.combinations("abc", count)]

    assert read(verifier.Policy.parse, "met") == read(Policy.parse, "is_quorum")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "expected the log's key, as you were told it by another way"),
        (["--key", "nonsense"], "expected a key <name>+<key id>+<base64>"),
        (["--key", VKEY.replace("+", "+0", 1)], "expected a key whose id is that of its name and bytes"),
        (["--key", VKEY], "expected an export (aidtrail-export/1), found no about.json that says so"),
        (["--key", VKEY.replace("a", "\udcff", 1)], "expected a key <name>+<key id>+<base64>"),
        (["--key", VKEY, "--policy", "missing"], "missing: expected a file, found none"),
    ],
)
def test_what_it_cannot_use_is_one_clear_line(arguments: list[str], said: str, tmp_path: Path, capsys: Any) -> None:
    assert verifier.main([*arguments, str(tmp_path)]) == 2
    assert said in capsys.readouterr().err


def _memory(**changes: Any) -> Callable[[str], bytes]:
    return lambda kept: json.dumps(json.loads(kept) | changes).encode()


def _twice(name: str) -> Callable[[str], bytes]:
    return lambda kept: kept.replace("{", f'{{"{name}": {json.dumps(json.loads(kept)[name])},', 1).encode()


def _spaces(count: int) -> Callable[[str], bytes]:
    return lambda _: b" " * count


ROOT = base64.b64encode(bytes(32)).decode()
NO_MEMORY: list[Callable[[str], bytes]] = [
    *map(_spaces, (0, 1, 5 * 2**20)),
    *(lambda _, text=text: text for text in (b"\xff", b"\0", b"null", b"[]", b"{}", b"7", b"[" * 10**5, b'{"a":' * 10**5, b"9" * 5000)),
    *(_memory(checkpoint=value) for value in (None, 5, [], "", "\ud800", "x\n1\nx\n\nx\n")),
    *(_memory(registry={"size": size, "root": ROOT}) for size in (-1, 1.0, True, "1", None, 2**63, 10**4000, float("inf"))),
    *(_memory(registry=value) for value in (5, [], "x", {}, {"size": 1, "root": "AAAA"}, {"size": 1, "root": 5})),
    *(_memory(submitted=value) for value in (None, 5, "x", {"size": 1}, [None], [5])),
    *map(_twice, ("format", "checkpoint", "registry", "submitted")),
]
NO_POLICY = [
    *(b"", b" ", b"\xff", b"\0", b"quorum", b"group", b"witness", b"log", b"quorum none\0", b"{}", b"#" * 2**20),
    f"log {VKEY}\nlog {VKEY}\nquorum none".encode(),
    f"log {VKEY}\n".encode().replace(b"a", b"\xff") + b"quorum none",
    f"log {VKEY}\nquorum none".encode("utf-16"),
]


@pytest.mark.parametrize("made", NO_MEMORY, ids=[f"{at}" for at in range(len(NO_MEMORY))])
def test_a_memory_that_is_none_is_one_clear_line_and_stays(made: Callable[[str], bytes], tmp_path: Path, world: World, capsys: Any) -> None:
    last = tmp_path / "last.json"
    last.write_bytes(made(world.visits[0].text()))
    before = last.read_bytes()

    assert verifier.main(["--key", VKEY, "--last", str(last), str(tmp_path)]) == 2
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert "--last keeps" in said.err or "at most" in said.err
    assert last.read_bytes() == before


@pytest.mark.parametrize("text", NO_POLICY, ids=lambda text: ascii(text[:20]))
def test_a_policy_that_is_none_is_one_clear_line(text: bytes, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "policy").write_bytes(text)

    assert verifier.main(["--key", VKEY, "--policy", str(tmp_path / "policy"), str(tmp_path)]) == 2
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert "policy" in said.err or "expected a key" in said.err


@pytest.mark.parametrize("option", ["--policy", "--last"])
def test_what_stands_where_the_auditors_own_file_should_is_not_opened(option: str, tmp_path: Path, capsys: Any) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "device").symlink_to("/dev/zero")

    for name in ("pipe", "folder", "device"):
        assert verifier.main(["--key", VKEY, option, str(tmp_path / name), str(tmp_path)]) == 2
        assert capsys.readouterr().err == f"{name}: expected a file, found none\n"


def test_any_damage_to_the_auditors_own_files_is_one_clear_line_or_none_at_all(tmp_path: Path, world: World, capsys: Any) -> None:
    held, kept = world.held(), world.visits[0].text()
    rows = [row for number in range(PARTITIONS) for row in held.views["donations", number]]
    (tmp_path / "bundle").write_text(json.dumps(proved(held, rows[0]["donation_id"], since=int(json.loads(kept)["checkpoint"].split()[1]))))
    own = {"--last": kept.encode(), "--policy": f"log {VKEY}\n{WITNESSES}group two 2 a b c\nquorum none\n".encode()}
    chance, codes = random.Random(11), Counter[int]()
    pieces = (b"", b"0", b"9" * 30, b"[" * 3000, b"null", b"{}", b"\n", b'"', b"\\ud800", b"\xff", b"1e999", b"true", b"\xef\xbb\xbf")
    for _ in range(400):
        option = chance.choice(sorted(own))
        damaged = bytearray(own[option])
        for _ in range(chance.randrange(1, 4)):
            place = chance.randrange(len(damaged))
            damaged[place : place + chance.choice((0, 1, 40))] = chance.choice(pieces)
        (tmp_path / "own").write_bytes(damaged)

        code = verifier.main(["--key", VKEY, option, str(tmp_path / "own"), str(tmp_path / "bundle")])
        said = capsys.readouterr()

        codes[code] += 1
        assert code in (0, 2, 11), damaged
        assert "cannot be examined" not in said.out, damaged
        assert code != 2 or (said.out, said.err.count("\n")) == ("", 1), damaged
    print(f"the auditor's own files: exit codes {dict(codes)}")


def test_what_an_editor_leaves_in_the_auditors_own_files_changes_nothing(tmp_path: Path, world: World, capsys: Any) -> None:
    """A byte order mark, and the line ends of Windows; and a comment that is not in UTF-8, as tlog-policy allows."""
    saved(world.held(), tmp_path / "export")
    last, policy = tmp_path / "last.json", tmp_path / "policy"
    kept, text = world.visits[0].text(), f"log {VKEY}\n{WITNESSES}quorum none\n"
    for memory in (kept.encode("utf-8-sig"), kept.replace("\n", "\r\n").encode()):
        for trusted in (text.encode("utf-8-sig"), text.replace("\n", "\r\n").encode(), b"# caf\xe9\n" + text.encode()):
            last.write_bytes(memory)
            policy.write_bytes(trusted)

            assert verifier.main(["--policy", str(policy), "--last", str(last), str(tmp_path / "export")]) == 0
            assert "it continues the one of size" in capsys.readouterr().out
            assert set(read_policy(policy).witnesses) == set("abc"), "and so does the seal"


def test_groups_in_groups_of_any_depth_are_counted(tmp_path: Path, world: World, capsys: Any) -> None:
    saved(world.held(), tmp_path / "export")
    nested = "".join(f"group g{at} any {f'g{at - 1}' if at else 'a b c'}\n" for at in range(1500))
    (tmp_path / "policy").write_text(f"log {VKEY}\n{WITNESSES}{nested}quorum g1499\n")

    assert verifier.main(["--policy", str(tmp_path / "policy"), str(tmp_path / "export")]) == 11
    assert "expected the quorum g1499 of witnesses, found nobody" in capsys.readouterr().out
