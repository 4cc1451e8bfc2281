"""Witnesses: what they cosigned is one history, whatever the log's operator signs, and whatever they are asked at once."""

import http.client
import os
import random
import re
import socket
import subprocess
import sys
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from aidtrail.audit import note as notes
from aidtrail.audit.cosigners import Cosigners
from aidtrail.audit.folder import Folder
from aidtrail.audit.keys import make_key
from aidtrail.audit.merkle import EMPTY_ROOT, Tree, consistency_path, leaf_hash, node_hash
from aidtrail.audit.note import COSIGNATURE, ED25519, Checkpoint, Note, SignerKey, sign
from aidtrail.audit.policy import Policy
from aidtrail.audit.witness import MAX_BYTES, Answer, Request, Witness
from aidtrail.audit.witness_server import WitnessServer
from aidtrail.cli import seal as command
from aidtrail.errors import UnavailableError, UsageError
from aidtrail.log.memory import MemoryLog
from tests.sealing import KEY, Fragile, Killed, Subject
from tests.signers import signer
from tests.waiting import eventually

ORIGIN = "log.example/aid"
LOG = signer(ORIGIN)
OTHER = signer(ORIGIN, holder="somebody else")
WITNESS = signer("witness.example/w1", COSIGNATURE)
NOW = 1_760_000_000


class History:
    """A log's leaves, and what its operator can ask a witness with them."""

    def __init__(self, word: str, count: int = 40) -> None:
        self.hashes = [leaf_hash(f"{word} {number}".encode()) for number in range(count)]

    def node(self, level: int, index: int) -> bytes:
        if level == 0:
            return self.hashes[index]
        return node_hash(self.node(level - 1, 2 * index), self.node(level - 1, 2 * index + 1))

    def note(self, size: int, key: SignerKey = LOG, origin: str = ORIGIN) -> Note:
        text = str(Checkpoint(origin, size, Tree.stored(size, self.node).root))
        return Note(text, (sign(text, key),))

    def request(self, old: int, size: int, key: SignerKey = LOG) -> Request:
        proof = consistency_path(old, size, self.node) if 0 < old < size else []
        return Request(old, tuple(proof), self.note(size, key))


TRUE, FALSE = History("true"), History("false")


@pytest.fixture
def witness(tmp_path: Path) -> Iterator[Witness]:
    opened = Witness(WITNESS, [LOG.verifier], tmp_path / "witness", clock=lambda: NOW)
    yield opened
    opened.close()


def ask(witness: Witness, old: int, size: int, history: History = TRUE) -> Answer:
    return witness.add_checkpoint(history.request(old, size).encode())


def evidence(folder: Path) -> list[Path]:
    return sorted(path for path in (folder / "conflict").glob("*/*"))


def test_a_log_that_only_grows_is_cosigned(witness: Witness) -> None:
    for old, size in ((0, 1), (1, 1), (1, 7), (7, 8), (8, 40)):
        answer = ask(witness, old, size)

        assert answer.status == 200
        cosigned = notes.parse(TRUE.note(size).text.encode() + b"\n" + answer.text.encode())
        assert notes.verify(cosigned, [WITNESS.verifier]) == (notes.Signed(WITNESS.verifier, NOW),)


def test_who_asks_with_another_size_is_told_the_newest_one(witness: Witness) -> None:
    ask(witness, 0, 7)

    for old, size in ((0, 9), (3, 9), (8, 9), (0, 3), (3, 3)):
        assert ask(witness, old, size) == Answer(409, "7\n", "text/x.tlog.size")


def test_another_history_is_not_cosigned_and_both_heads_are_kept(witness: Witness, tmp_path: Path) -> None:
    ask(witness, 0, 7)
    assert ask(witness, 7, 9, FALSE).status == 422
    assert ask(witness, 7, 9, FALSE).status == 422
    assert ask(witness, 7, 7, FALSE) == Answer(409, "7\n", "text/x.tlog.size")
    assert ask(witness, 3, 7, FALSE).status == 409

    kept = [path.read_bytes() for path in evidence(tmp_path / "witness")]
    assert sorted(kept) == sorted([FALSE.note(9).encode(), TRUE.note(7).encode(), FALSE.note(7).encode(), TRUE.note(7).encode()])
    assert ask(witness, 7, 9).status == 200


@pytest.mark.parametrize(
    ("change", "status"),
    [
        (lambda r: r._replace(note=TRUE.note(9, OTHER)), 403),
        (lambda r: r._replace(note=Note(r.note.text, (r.note.signatures[0]._replace(value=bytes(64)),))), 403),
        (lambda r: r._replace(note=TRUE.note(9, origin="other.example")), 404),
        (lambda r: r._replace(old_size=10), 400),
        (lambda r: r._replace(proof=r.proof[:-1]), 422),
        (lambda r: r._replace(proof=(*r.proof, bytes(32))), 422),
        (lambda r: r._replace(proof=r.proof[::-1]), 422),
        (lambda r: r._replace(proof=()), 422),
        (lambda r: r._replace(proof=(bytes(32),) * 64), 400),
    ],
)
def test_what_is_wrong_is_answered_as_the_specification_says(witness: Witness, tmp_path: Path, change: Any, status: int) -> None:
    ask(witness, 0, 7)
    before = (witness.add_checkpoint(TRUE.request(0, 7).encode()), len(evidence(tmp_path)))

    assert witness.add_checkpoint(change(TRUE.request(7, 9)).encode()).status == status
    assert before[0].status == 409
    assert ask(witness, 7, 9).status == 200


def test_a_first_checkpoint_needs_no_proof_and_may_have_none(witness: Witness) -> None:
    assert witness.add_checkpoint(TRUE.request(0, 7)._replace(proof=(bytes(32),)).encode()).status == 422
    text = str(Checkpoint(ORIGIN, 0, bytes(32)))
    assert witness.add_checkpoint(Request(0, (), Note(text, (sign(text, LOG),))).encode()).status == 409
    text = str(Checkpoint(ORIGIN, 0, EMPTY_ROOT))
    assert witness.add_checkpoint(Request(0, (), Note(text, (sign(text, LOG),))).encode()).status == 200
    assert ask(witness, 0, 7).status == 200


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\n",
        b"old 0\n",
        b"old 00\n\n",
        b"old -1\n\n",
        b"old  7\n\n",
        b"new 7\n\n",
        b"old 7\nnot base64\n\n",
        b"old 7\r\n\r\n",
        b"\xff" * 99,
    ],
)
def test_a_request_that_is_none_is_answered_400(witness: Witness, body: bytes) -> None:
    ask(witness, 0, 7)
    assert witness.add_checkpoint(body).status == 400
    if body.endswith(b"\n\n"):
        assert witness.add_checkpoint(body + TRUE.note(9).encode()).status == 400


def test_it_remembers_over_a_restart(tmp_path: Path) -> None:
    for old, size in ((0, 3), (3, 9)):
        opened = Witness(WITNESS, [LOG.verifier], tmp_path)
        assert ask(opened, old, size).status == 200
        opened.close()
    opened = Witness(WITNESS, [LOG.verifier], tmp_path)
    assert ask(opened, 0, 3) == Answer(409, "9\n", "text/x.tlog.size")
    with pytest.raises(UnavailableError, match="another witness works in"):
        Witness(WITNESS, [LOG.verifier], tmp_path)
    opened.close()


def test_of_two_histories_asked_for_at_once_it_cosigns_one(tmp_path: Path) -> None:
    """Eight threads, two histories, sizes in any order: all that is cosigned is of one history, and it never steps back."""
    rounds, cosigned_count = 12, 0
    for seed in range(rounds):
        opened = Witness(WITNESS, [LOG.verifier], tmp_path / str(seed))
        rng = random.Random(seed)
        asked = [(rng.choice((TRUE, FALSE)), old, size) for size in range(1, 25) for old in range(size + 1) if rng.random() < 0.4]
        rng.shuffle(asked)
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda one, opened=opened: (*one, ask(opened, one[1], one[2], one[0])), asked))
        cosigned = [(history, size) for history, _, size, answer in answers if answer.status == 200]
        cosigned_count += len(cosigned)
        top = max(size for _, size in cosigned)
        assert len({id(history) for history, _ in cosigned}) == 1
        assert ask(opened, 0, 1).text == f"{top}\n"
        opened.close()
    print(f"{rounds} rounds: {cosigned_count} cosigned, 0 of another history")


class FailsToSync(Fragile):
    """A disk on which the next sync of what was renamed fails once, when that is set."""

    fails = False

    def sync(self, paths: Collection[Path]) -> None:
        if self.fails and not any(path.name.endswith(".new") for path in paths):
            self.fails = False
            raise OSError("Input/output error")
        super().sync(paths)


@contextmanager
def witness_on(disk: Fragile, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Witness]:
    opened = Witness(WITNESS, [LOG.verifier], folder)
    monkeypatch.setattr(opened, "_folder", Folder(folder, disk))
    try:
        yield opened
    finally:
        opened.close()


def kept_size(folder: Path) -> int:
    """Of the newest checkpoint that the witness in this folder says it cosigned."""
    opened = Witness(WITNESS, [LOG.verifier], folder)
    answer = ask(opened, 39, 40)
    opened.close()
    return 39 if answer.status == 200 else int(answer.text)


@pytest.mark.parametrize("asks_again", [False, True])
def test_killed_at_every_step_it_cosigned_nothing_that_it_forgets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asks_again: bool
) -> None:
    """The power is cut at the step; or later: the process is killed there, started again, and asked again for what it knows."""
    steps = answered = 0
    for at in range(1, 1000):
        folder, rng = tmp_path / str(at), random.Random(at)
        disk = Fragile(at, None if asks_again else rng)
        cosigned = 0
        try:
            with witness_on(disk, folder, monkeypatch) as opened:
                for old, size in ((0, 3), (3, 9), (9, 9), (9, 20)):
                    assert ask(opened, old, size).status == 200
                    cosigned = size
            break
        except Killed:
            steps += 1
        if asks_again:
            with witness_on(disk, folder, monkeypatch) as opened:
                for size in (3, 9, 20):
                    if ask(opened, size, size).status == 200:
                        cosigned, answered = size, answered + 1
            disk.cut_power(rng)
        assert kept_size(folder) >= cosigned, at
    print(f"{steps} steps, the power cut at each, {answered} cosigned again before: 0 forgotten")

    assert steps > 8
    assert (answered > 8) == asks_again


def test_a_sync_that_failed_is_made_up_for_before_it_cosigns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(8):
        folder, disk = tmp_path / str(seed), FailsToSync(0)
        with witness_on(disk, folder, monkeypatch) as opened:
            assert ask(opened, 0, 3).status == 200
            disk.fails = True
            with pytest.raises(OSError, match="Input/output error"):
                ask(opened, 3, 9)
            assert ask(opened, 9, 9).status == 200
        disk.cut_power(random.Random(seed))

        assert kept_size(folder) == 9


# --- policies ------------------------------------------------------------------------------------------------------------------------

KEYS = {name: signer(f"{name}.example/w", COSIGNATURE) for name in ("ministry", "donor", "auditor")}


def policy(rule: str, urls: dict[str, str] | None = None) -> Policy:
    lines = [f"log {KEY.verifier}", "# three parties", ""]
    lines += [f"witness\t{name}  {key.verifier} {(urls or {}).get(name, '')}" for name, key in KEYS.items()]
    return Policy.parse("\n".join([*lines, *rule.split(";"), ""]))


@pytest.mark.parametrize(
    ("rule", "enough", "too_few"),
    [
        ("quorum none", [[]], []),
        ("quorum donor", [["donor"], ["donor", "auditor"]], [[], ["ministry", "auditor"]]),
        ("group g any ministry donor auditor;quorum g", [["donor"]], [[]]),
        ("group g all ministry donor auditor;quorum g", [["ministry", "donor", "auditor"]], [["donor", "auditor"]]),
        ("group g 2 ministry donor auditor;quorum g", [["donor", "auditor"]], [["donor"], ["nobody", "donor"]]),
        ("group a any donor auditor;group b all a ministry;quorum b", [["ministry", "donor"]], [["donor", "auditor"], ["ministry"]]),
    ],
)
def test_a_quorum_is_what_the_policy_says(rule: str, enough: Sequence[list[str]], too_few: Sequence[list[str]]) -> None:
    parsed = policy(rule)

    assert parsed.logs == [KEY.verifier]
    assert all(map(parsed.is_quorum, enough))
    assert not any(map(parsed.is_quorum, too_few))


@pytest.mark.parametrize(
    ("rule", "found"),
    [
        ("", "expected a line 'quorum <name>' or 'quorum none', found none"),
        ("quorum none;quorum none", "line 8: expected one quorum line"),
        ("quorum later;group later any donor", "line 7: expected the name of a witness or group on a line before, found later"),
        ("group g 4 ministry donor auditor;quorum g", "expected all, any or a number from 1 to 3, found 4"),
        ("group g 0 donor;quorum g", "found 0"),
        ("group g 01 donor;quorum g", "found 01"),
        ("group g any;quorum g", "expected log <vkey>"),
        ("group g any donor donor;quorum g", "expected each name a member once, found donor"),
        ("group a any donor;group b any donor auditor;quorum b", "expected each name a member once, found donor"),
        ("group donor any auditor;quorum donor", "expected a name that is not taken, found donor"),
        ("group none any auditor;quorum none", "expected a name that is not taken, found none"),
        ("group g any none;quorum g", "found none"),
        (f"witness again {KEYS['donor'].verifier};quorum none", "expected each witness once"),
        (f"witness log {KEY.verifier};quorum none", "expected the key of a witness, of type 4, found one of type 1"),
        (f"log {KEYS['donor'].verifier};quorum none", "expected the key of a log"),
        (f"log {KEY.verifier};quorum none", "expected each log once"),
        ("log x;quorum none", "verifier key: expected"),
        ("quorum\x0bnone", "no control characters"),
        ("Quorum none", "expected log <vkey>"),
    ],
)
def test_a_wrong_policy_is_refused_with_its_line(rule: str, found: str) -> None:
    with pytest.raises(UsageError, match=re.escape(found)):
        policy(rule)


def test_a_quorum_that_cannot_be_asked_for_is_refused() -> None:
    with pytest.raises(UsageError, match="expected a URL for each witness that the quorum"):
        Cosigners(policy("group g 2 ministry donor auditor;quorum g", {"donor": "http://127.0.0.1:1"}), KEY.verifier)
    with pytest.raises(UsageError, match="expected a line for the log"):
        Cosigners(policy("quorum none"), OTHER.verifier)
    with pytest.raises(UsageError, match="expected a URL with http or https"):
        Cosigners(policy("quorum donor", {"donor": "ftp://donor.example"}), KEY.verifier)
    for url in ("http://[donor", "http://donor.example:99999", "http://donor.example:x"):
        with pytest.raises(UsageError, match="expected a URL with http or https"):
            Cosigners(policy("quorum donor", {"donor": url}), KEY.verifier)


# --- over HTTP -------------------------------------------------------------------------------------------------------------------------


@contextmanager
def serving(folder: Path, name: str = "donor", port: int = 0) -> Iterator[str]:
    server = WitnessServer(Witness(KEYS[name], [KEY.verifier, LOG.verifier], folder), "127.0.0.1", port)
    server.start()
    try:
        yield "http://{}:{}".format(*server.server_address[:2])
    finally:
        server.close()


def test_http_answers_on_one_connection(tmp_path: Path) -> None:
    with serving(tmp_path) as url:
        connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=10)
        connection.connect()
        first = connection.sock
        for path, body, status, kind in [
            ("/add-checkpoint", TRUE.request(0, 7).encode(), 200, "text/plain; charset=utf-8"),
            ("/add-checkpoint", TRUE.request(0, 9).encode(), 409, "text/x.tlog.size"),
            ("/add-checkpoint", b"?", 400, "text/plain; charset=utf-8"),
            ("/", b"", 404, "text/plain; charset=utf-8"),
            ("/add-checkpoint", b"?" * (MAX_BYTES + 1), 413, "text/plain; charset=utf-8"),
        ]:
            assert connection.sock is first
            connection.request("POST", path, body)
            response = connection.getresponse()
            response.read()
            assert (response.status, response.headers["Content-Type"]) == (status, kind)
        connection.close()


@pytest.mark.parametrize(("length", "status"), [("9" * 5000, 413), ("-1", 413), ("\u0661", 413), ("1_0", 413), ("", 411)])
def test_http_answers_whatever_length_is_stated(length: str, status: int, tmp_path: Path) -> None:
    with serving(tmp_path) as url:
        connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=10)
        connection.putrequest("POST", "/add-checkpoint")
        connection.putheader("Content-Length", length.encode())
        connection.endheaders()

        assert connection.getresponse().status == status
        connection.close()


def test_a_witness_that_does_not_answer_is_waited_for_no_longer_than_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aidtrail.audit.cosigners.ANSWER_SECONDS", 1.0)
    subject = Subject(MemoryLog(), tmp_path / "seal")
    with socket.create_server(("127.0.0.1", 0)) as silent, serving(tmp_path / "w", "donor") as url:
        urls = {"donor": url, "ministry": f"http://127.0.0.1:{silent.getsockname()[1]}"}
        one = Cosigners(policy("group g any donor ministry;quorum g", urls), KEY.verifier)
        all_ = Cosigners(policy("group g all donor ministry;quorum g", urls), KEY.verifier)
        subject.record(3)
        subject.seal(cosign=one)
        subject.record(3)
        with pytest.raises(UnavailableError, match=r"1 of 2 cosigned: nothing is published\. ministry: no answer|timed out"):
            subject.seal(cosign=all_)
        subject.seal(cosign=one)
        one.close()
        all_.close()

    assert subject.sealed_records() == 6


class Process:
    """`aidtrail audit witness`."""

    def __init__(self, name: str, folder: Path, port: int = 0) -> None:
        folder.mkdir(exist_ok=True)
        key = folder / "key"
        if not key.exists():
            key.touch(0o600)
            key.write_text(KEYS[name].skey + "\n")
        command = [sys.executable, "-c", "from aidtrail.cli import main; main()", "audit", "witness", str(key)]
        command += ["--log", str(KEY.verifier), "--folder", str(folder), "--listen", f"127.0.0.1:{port}"]
        self._stderr = folder / "stderr"
        with open(self._stderr, "wb") as stderr:
            self._process = subprocess.Popen(command, stderr=stderr, env={**os.environ, "AIDTRAIL_LOG_LEVEL": "INFO"})

    @property
    def url(self) -> str:
        assert eventually(lambda: "/add-checkpoint" in self._stderr.read_text(), 60), self._stderr.read_text()
        (url,) = re.findall(r"(http://\S+)/add-checkpoint", self._stderr.read_text())
        return str(url)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(30)


def test_an_operator_who_rewrites_history_is_refused_by_every_witness(tmp_path: Path) -> None:
    """Three witnesses, each a process. The operator has the log's key."""
    with ExitStack() as stack:
        processes = {name: Process(name, tmp_path / name) for name in KEYS}
        for process in processes.values():
            stack.callback(process.kill)
        urls = {name: process.url for name, process in processes.items()}
        cosigners = Cosigners(policy("group two 2 ministry donor auditor;quorum two", urls), KEY.verifier)
        stack.callback(cosigners.close)

        subject = Subject(MemoryLog(), tmp_path / "seal")
        for _ in range(4):
            subject.record(10)
            subject.seal(cosign=cosigners)
        newest = subject.newest()
        assert len(notes.verify(newest.note, [KEY.verifier, *(key.verifier for key in KEYS.values())])) >= 3

        answers = []
        for seals in (6, 3, 1):  # longer than what was cosigned, as long, and shorter
            rewritten = Subject(MemoryLog(), tmp_path / f"rewritten-{seals}")
            for _ in range(seals):
                rewritten.record(10, partition=1)
                rewritten.seal()
            rewritten.record(1)
            with pytest.raises(UnavailableError, match="0 of 3 cosigned: nothing is published") as raised:
                rewritten.seal(cosign=cosigners)
            answers.append(str(raised.value))
            assert rewritten.sealed_records() == 10 * seals
        print(f"longer: {answers[0].count('422')} of 3 answered 422; as long or shorter: ", end="")
        print(f"{[answer.count('(409)') for answer in answers[1:]]} of 3 answered 409; 0 cosigned")
        assert answers[0].count("it answered 422") == 3
        assert answers[1].count("it has cosigned another history of size 4 (409)") == 3
        assert answers[2].count("it has cosigned a history of size 4, which is longer than this one of 2 (409)") == 3
        for name in KEYS:
            kept = evidence(tmp_path / name)
            assert len(kept) == 4
            for path in kept:  # both heads, each with the log's own signature
                notes.verify(notes.parse(path.read_bytes()), [KEY.verifier])

        subject.record(5)
        subject.seal(cosign=cosigners)
        processes["donor"].kill()
        subject.record(5)
        subject.seal(cosign=cosigners)
        processes["ministry"].kill()
        sealed = subject.sealed_records()
        subject.record(5)
        with pytest.raises(UnavailableError, match="1 of 3 cosigned: nothing is published"):
            subject.seal(cosign=cosigners)
        assert subject.sealed_records() == sealed
        again = Process("donor", tmp_path / "donor", int(urls["donor"].rsplit(":", 1)[1]))
        stack.callback(again.kill)
        assert again.url == urls["donor"]
        subject.seal(cosign=cosigners)

    assert subject.sealed_records() == sealed + 5
    subject.require_true()
    subject.require_files()


@pytest.mark.parametrize(
    ("log", "listen", "found"),
    [
        ("example.org+x", "127.0.0.1:0", "--log: verifier key: expected"),
        (str(WITNESS.verifier), "127.0.0.1:0", "--log: expected the key of a log"),
        (str(LOG.verifier), "8090", "--listen: expected host:port, found 8090"),
        (str(LOG.verifier), "127.0.0.1:65536", "--listen: expected host:port"),
        (str(LOG.verifier), "127.0.0.1:0", "expected the secret key of a witness"),
    ],
)
def test_a_witness_that_is_told_nonsense_says_so(tmp_path: Path, log: str, listen: str, found: str) -> None:
    file = tmp_path / "key"
    make_key("log.example", ED25519, file)
    with pytest.raises(UsageError, match=re.escape(found)):
        command.witness(file, [log], tmp_path / "witness", listen)
