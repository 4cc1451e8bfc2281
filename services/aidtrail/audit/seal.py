"""The seal: sign what `recorded` holds, again and again, with a key of its own, so that nobody can rewrite it unnoticed.

Each seal says how far every partition's tree is (a *manifest*), and signs the root of the tree of manifests (a *checkpoint*). What it says
it can never take back, so nothing is signed before two memories hold it: the topic `checkpoints` and a folder (`tiles` says what lies
where).

1. The manifest is appended to `checkpoints`, signed, so that nobody else's is taken for it. Of several with one index the first counts:
   between two seals with one key the log decides.
2. Tiles, then `state.json`: files in the folder, synced.
3. The checkpoint is signed. If there are witnesses, they are asked for their cosignatures: without a quorum of them it is not published.
4. The checkpoint is appended to `checkpoints`, and written into the folder.

When all is sealed and the views have caught up, their digest is sealed as well: a manifest of the same sizes, with `view`.

After a crash, or with an older folder put back from a backup, it goes on from whichever of the two memories is further. Where log, topic
and folder contradict each other it keeps the heads as evidence, signs nothing, and ends. Only where topic and folder are both put back
could it sign what contradicts an earlier checkpoint: that is what witnesses, and auditors with a checkpoint of their own, are for.
"""

import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path

from aidtrail import metrics
from aidtrail.audit.checkpoints import Signed, drafted, leaf_hashes
from aidtrail.audit.cuts import Cut
from aidtrail.audit.folder import Disk, Folder
from aidtrail.audit.manifest import MAX_BYTES, largest
from aidtrail.audit.note import Note, SignerKey, sign
from aidtrail.audit.sealed import CHECKPOINT, Sealed
from aidtrail.audit.tiles import TiledTree
from aidtrail.errors import AppendUnknownError, UnavailableError, UsageError
from aidtrail.log import Appended, Appender, Draft, Log
from aidtrail.topics import Topics, require_write

logger = logging.getLogger(__name__)

SEAL_SECONDS = 1.0
"""At most so often, however much is recorded: each seal adds a manifest and a checkpoint to the topic, about a kilobyte together."""
POLL_SECONDS = 0.5
LOOK_SECONDS = 1.0
"""How often it looks whether the log is as long as it was."""
MAX_BATCH = 10_000
MAX_AGAIN = 500
"""Manifests in one append, where the topic has lost some."""
VIEWS_PAUSE_SECONDS = 60.0
"""So long the views are left alone where they gave no cut."""
LOCK = "lock"

Cosign = Callable[[Note, TiledTree], Note]
"""The signed checkpoint of that tree with the witnesses' cosignatures added. Raises UnavailableError without a quorum."""


class Sealer:
    """The loop. One process for each folder; a second one with the same key loses every race and signs nothing else."""

    name = "sealer"

    def __init__(
        self,
        log: Log,
        topics: Topics,
        key: SignerKey,
        folder: Path,
        *,
        cosign: Cosign | None = None,
        live_cut: Callable[[], Cut] | None = None,
        seal_seconds: float = SEAL_SECONDS,
        disk: Disk | None = None,
    ) -> None:
        self._partitions = topics.require(log)
        _require_checkpoints(log, topics)
        if largest(key.name, self._partitions) > MAX_BYTES:
            raise UsageError(f"a manifest of {self._partitions} partitions is larger than the {MAX_BYTES} bytes that tlog-tiles allows")
        self._log, self._topics, self._key, self._cosign, self._seal_seconds = log, topics, key, cosign, seal_seconds
        self._lock = _locked(folder)
        self._folder, self._disk = folder, disk
        self._reader = log.reader(topics.recorded)
        self._appender: Appender | None = None
        self._sealed: Sealed | None = None
        self._oldest: int | None = None
        """Append time of the oldest record that was read since the last seal, in milliseconds."""
        self._live_cut = live_cut
        self._sealed_at = self._looked_at = self._views_from = float("-inf")

    def turn(self) -> int:
        try:
            if self._sealed is None:
                self._sealed = self._open()
            return self._turn(self._sealed)
        except AppendUnknownError as error:
            metrics.APPENDS_UNKNOWN.inc()
            logger.warning("sealer: %s; reading the topic again", error)
            self.reset()
            return 1
        except OSError as error:
            raise UnavailableError(f"the seal's folder {self._folder} cannot be written: {error}") from error

    def reset(self) -> None:
        """Both memories are read again before the next seal."""
        self._sealed, self._oldest = None, None
        if self._appender is not None:
            self._appender.close()
            self._appender = None

    def close(self) -> None:
        self.reset()
        self._reader.close()
        os.close(self._lock)

    def _turn(self, sealed: Sealed) -> int:
        due = max(0.0, self._sealed_at + self._seal_seconds - time.monotonic())
        batches = self._reader.poll(MAX_BATCH, POLL_SECONDS if self._oldest is None else due)
        for number, batch in batches.items():
            tree = sealed.trees[number]
            hashes, _ = leaf_hashes(batch, tree.size)
            if len(hashes) > len(batch):
                logger.warning("sealer: partition %d: %d offsets hold no record, sealed as empty", number, len(hashes) - len(batch))
            tree.extend_hashes(hashes)
            oldest = min(record.timestamp for record in batch)
            self._oldest = oldest if self._oldest is None else min(oldest, self._oldest)
        if self._oldest is not None and time.monotonic() - self._sealed_at >= self._seal_seconds:
            self._seal(sealed)
        self._look(sealed)
        return sum(map(len, batches.values()))

    def _seal(self, sealed: Sealed, view: bytes | None = None) -> None:
        """Everything that was read comes under a new checkpoint."""
        manifest = sealed.next_manifest(view)
        (appended,) = self._append([self._drafted(manifest.encode())])
        if appended.offset != sealed.next_offset:
            logger.warning("sealer: expected offset %d, found %d: another writer; reading again", sealed.next_offset, appended.offset)
            self.reset()
            return
        sealed.add(manifest, appended.offset)
        self._publish(sealed)

    def _publish(self, sealed: Sealed) -> None:
        """Steps 2 to 4, for the last manifest. May be done again after a crash at any point."""
        sealed.save()
        text = str(sealed.checkpoint)
        note = Note(text, (sign(text, self._key),))
        if self._cosign is not None:
            note = self._cosign(note, sealed.manifests)
        (appended,) = self._append([Draft(self._topics.checkpoints, 0, self._key.name.encode(), note.encode())])
        if appended.offset == sealed.next_offset:  # if not, the next manifest will not be where it is expected either
            sealed.next_offset += 1
        sealed.newest = Signed(sealed.checkpoint, note)
        sealed.folder.replace(CHECKPOINT, note.encode())
        sealed.folder.settle()
        sealed.folder.tidy()
        if self._oldest is not None:
            metrics.TIME_TO_SEALED.observe(max(0, appended.timestamp - self._oldest) / 1000)
        self._oldest = None
        self._sealed_at = time.monotonic()
        metrics.SEALED_AT.set_to_current_time()
        if sealed.last is not None and sealed.last.view is not None:
            metrics.SEALED_DIGEST_AT.set_to_current_time()
        metrics.SEALED_ENTRIES.set(sealed.records)

    def _look(self, sealed: Sealed) -> None:
        """The log must still be as long as it was. Tell how far behind the seal is."""
        if time.monotonic() - self._looked_at >= LOOK_SECONDS:
            self._looked_at = time.monotonic()
            ends = self._log.end_offsets(self._topics.recorded)
            sealed.require_length(ends)
            unread = sum(ends[number] - at for number, at in self._reader.positions().items())  # markers at the end are no entries
            metrics.UNSEALED_ENTRIES.set(unread + sum(tree.size for tree in sealed.trees) - sealed.records)
            if self._oldest is None:
                self._seal_views(sealed)

    def _seal_views(self, sealed: Sealed) -> None:
        """The digest of the views, if they stand where the last manifest does, which has none yet."""
        last = sealed.last
        if self._live_cut is None or last is None or last.view is not None or time.monotonic() < self._views_from:
            return
        try:
            cut = self._live_cut()
        except (UnavailableError, UsageError) as error:  # it seals on without
            logger.warning("sealer: the digest of the views is not sealed: %s", error)
            self._views_from = time.monotonic() + VIEWS_PAUSE_SECONDS
            return
        if cut.next_offsets == {number: stand.size for number, stand in enumerate(last.partitions)}:
            self._seal(sealed, cut.sha256)

    def _open(self) -> Sealed:
        """What was sealed, all of it published; and the reader at where its trees end."""
        sealed = Sealed(Folder(self._folder, self._disk), self._key.verifier, self._partitions)
        while (known := sealed.catch_up(self._log, self._topics)) < sealed.size:
            logger.warning("sealer: the topic has %d of %d manifests; appending the others again", known, sealed.size)
            lost = sealed.manifests_from(known)
            while some := list(islice(lost, MAX_AGAIN)):
                self._append(map(self._drafted, some))
        if sealed.last is not None and not sealed.is_published:
            self._publish(sealed)
        self._reader.assign({number: tree.size for number, tree in enumerate(sealed.trees)})
        metrics.SEALED_ENTRIES.set(sealed.records)
        logger.info("sealer: %s goes on after %d checkpoints, %d entries", self._key.name, sealed.size, sealed.records)
        return sealed

    def _drafted(self, manifest: bytes) -> Draft:
        return drafted(manifest, self._topics.checkpoints, self._key)

    def _append(self, drafts: Iterable[Draft]) -> list[Appended]:
        """To the topic. Raises AppendUnknownError."""
        if self._appender is None:
            self._appender = self._log.appender()
        return self._appender.append(list(drafts))


def _locked(folder: Path) -> int:
    """The folder is this process's own as long as the handle is open."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise UnavailableError(f"the seal's folder {folder} cannot be written: {error}") from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise UnavailableError(f"another seal works in {folder}: stop it, or set another AIDTRAIL_HOME") from None
    return handle


def _require_checkpoints(log: Log, topics: Topics) -> None:
    differences = log.check_topic(topics.checkpoints)
    if not differences and log.partitions(topics.checkpoints) != 1:
        differences = [f"{topics.checkpoints}: expected one partition, found {log.partitions(topics.checkpoints)}; create it anew"]
    if differences:
        raise UnavailableError("; ".join(differences))
    require_write(log, topics.checkpoints)
