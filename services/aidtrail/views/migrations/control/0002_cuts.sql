-- Cuts that were given a name: where each partition stood, and the digest of the views there (aidtrail.audit.cuts).

CREATE TABLE cuts (
    name       text PRIMARY KEY,
    build      text NOT NULL,                       -- that was live then; it may be gone
    taken_at   timestamptz NOT NULL DEFAULT now(),
    partitions jsonb NOT NULL,
    sha256     bytea NOT NULL                       -- the digest; follows from partitions
);
