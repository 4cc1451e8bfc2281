-- What replays and rebuilds found, for metrics and dashboards. A note, not a proof: who doubts it runs the audit again.

CREATE TABLE audits (
    finished_at timestamptz PRIMARY KEY DEFAULT clock_timestamp(),
    kind        text NOT NULL CHECK (kind IN ('replay', 'rebuild')),
    checked     bigint NOT NULL,                    -- entries ruled again, or rows compared
    differences bigint NOT NULL
);
CREATE SCHEMA IF NOT EXISTS live;
CREATE VIEW live.audits AS SELECT * FROM audits;
