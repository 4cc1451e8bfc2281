"""The seal's stage: hashing leaves into tiled trees; a seal over a backlog on Kafka; and how soon an entry is sealed."""

import statistics
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from aidtrail.audit.checkpoints import published, records
from aidtrail.audit.folder import Folder
from aidtrail.audit.manifest import Manifest
from aidtrail.audit.merkle import leaf_hash
from aidtrail.audit.note import SignerKey, VerifierKey
from aidtrail.audit.seal import Sealer
from aidtrail.audit.tiles import TiledTree
from aidtrail.log.kafka import KafkaLog
from aidtrail.topics import Topics
from tests.bench import lives

BATCH = 10_000


def hash_leaves(values: list[bytes]) -> None:
    """What a seal does with entries once it has them: leaf hashes, tree, tiles in files, synced."""
    with tempfile.TemporaryDirectory() as name:
        folder = Folder(Path(name))
        tree = TiledTree(folder)
        for begin in range(0, len(values), BATCH):
            tree.extend_hashes([leaf_hash(value) for value in values[begin : begin + BATCH]])
        tree.save()
        folder.settle()


def hashing_rate(partitions: int, count: int) -> dict[str, int]:
    """Leaves a second, and a second of this process's own time, which others on the same cores do not lengthen."""
    drafts = lives.entries("bench", partitions, max(count // len(lives.steps()), 1), active=2000)
    values = [draft.value for draft in islice(drafts, count)]
    start, own_start = time.perf_counter(), time.process_time()
    hash_leaves(values)
    seconds, own_seconds = time.perf_counter() - start, time.process_time() - own_start
    return {"hash_1": round(len(values) / seconds), "hash_1_cpu": round(len(values) / own_seconds)}


def run_sealer(bootstrap: str, topics: Topics, total: int, skey: str) -> None:
    log = KafkaLog([bootstrap])
    with tempfile.TemporaryDirectory() as folder:
        sealer = Sealer(log, topics, SignerKey.parse(skey), Path(folder))
        sealed = 0
        while sealed < total:
            sealed += sealer.turn()
        sealer.close()
    log.close()


def serve_sealer(bootstrap: str, topics: Topics, stop: Any, skey: str) -> None:
    log = KafkaLog([bootstrap])
    with tempfile.TemporaryDirectory() as folder:
        sealer = Sealer(log, topics, SignerKey.parse(skey), Path(folder))
        while not stop.is_set():
            sealer.turn()
        sealer.close()
    log.close()


def lag(log: KafkaLog, topics: Topics, key: VerifierKey, after: int = 0) -> dict[str, Any]:
    """By the broker's clock, from the append of an entry to that of the first checkpoint that covers it; without the first `after`."""
    times = sorted(list(seconds_to_sealed(log, topics, key))[after:])
    cuts = statistics.quantiles(times, n=100)
    return {"sealed": len(times), "p50_s": round(cuts[49], 2), "p99_s": round(cuts[98], 2), "max_s": round(times[-1], 2)}


def seconds_to_sealed(log: Any, topics: Topics, key: VerifierKey) -> Iterator[float]:
    """Of every entry that a checkpoint covers."""
    manifests: list[Manifest] = []
    covered: dict[int, int] = dict.fromkeys(range(log.partitions(topics.recorded)), 0)
    reader = log.reader(topics.recorded)
    for record in records(log, topics.checkpoints, 0, log.end_offsets(topics.checkpoints)[0]):
        found = published(record, key)
        if isinstance(found, Manifest):
            manifests.append(found)
        elif found is not None:
            for number, stand in enumerate(manifests[found.checkpoint.size - 1].partitions):
                if covered[number] < stand.size:
                    reader.assign({number: covered[number]})
                while covered[number] < stand.size:
                    for entry in reader.poll(stand.size - covered[number], 5.0).get(number, [])[: stand.size - covered[number]]:
                        yield (record.timestamp - entry.timestamp) / 1000
                        covered[number] = entry.offset + 1
    reader.close()
