-- The tables of one build of the views. Runs in the schema of the build (views_1, views_2, ...). Everything here follows from the log alone:
-- no clock, no sequence, so that two builds at the same cut are equal row by row. Amounts are numeric(19,4), one row a currency.

CREATE TABLE positions (                            -- how far this build is; moved in the transaction that writes what was read
    partition             integer PRIMARY KEY,
    next_offset           bigint NOT NULL DEFAULT 0,
    last_submitted_offset bigint NOT NULL DEFAULT -1, -- the partition's last outcome: the submission it answers, and its hash
    last_outcome_sha256   bytea NOT NULL DEFAULT decode(repeat('00', 32), 'hex'),
    fence                 bigint NOT NULL DEFAULT 0 -- who claims a partition raises it; a writer with an older one writes nothing
);

CREATE TABLE entries (                              -- every record of `recorded`, as it stands in the log
    partition        integer NOT NULL,
    "offset"         bigint NOT NULL,
    outcome          text NOT NULL,                 -- admitted, refused, void
    donation_id      text,                          -- null only where a void record does not say
    version          bigint,                        -- of an admitted event
    event_type       text,
    event_id         uuid,
    actor_id         text,
    party_id         text,
    role             text,
    occurred_on      timestamptz,
    recorded_at      timestamptz,
    submitted_offset bigint,
    void_reason      text,
    sha256           bytea NOT NULL,                -- of value
    value            bytea NOT NULL,
    PRIMARY KEY (partition, "offset")
);
CREATE INDEX entries_of_donation ON entries (donation_id, partition, "offset");
CREATE INDEX entries_of_event ON entries (event_id);

CREATE TABLE refusals (                             -- what an auditor asks first: who tried what, and why was it refused
    partition        integer NOT NULL,
    "offset"         bigint NOT NULL,
    donation_id      text NOT NULL,
    recorded_at      timestamptz NOT NULL,
    event_id         uuid,                          -- of the submission; null where it could not be decoded
    event_type       text,
    reason           text NOT NULL,
    expected         text NOT NULL,
    found            text NOT NULL,
    submission_sha256 bytea NOT NULL,
    PRIMARY KEY (partition, "offset")
);
CREATE INDEX refusals_of_donation ON refusals (donation_id);
CREATE INDEX refusals_of_event ON refusals (event_id);

CREATE TABLE donations (                            -- the status of each donation, at its head
    donation_id   text PRIMARY KEY,
    partition     integer NOT NULL,
    version       bigint NOT NULL,
    head_sha256   bytea NOT NULL,
    oversight     text NOT NULL,
    contribution  text NOT NULL,
    donor         text NOT NULL,
    beneficiary   text NOT NULL,
    parties       text[] NOT NULL,                  -- everybody on the route
    legs          text[] NOT NULL,
    mechanisms    text[] NOT NULL,                  -- those that it is or was put before
    terms_sha256  bytea NOT NULL,                   -- what a request for approval is bound to (domain.donation.terms_sha256)
    purpose       text,
    headline      text NOT NULL,
    pledge        text NOT NULL,
    approval      text NOT NULL,
    disbursement  text NOT NULL,
    receipt       text NOT NULL,
    announced_on  timestamptz NOT NULL,
    changed_at    timestamptz NOT NULL,
    next_deadline timestamptz                       -- when something of it expires: the timekeeper's list
);
CREATE INDEX donations_due ON donations (next_deadline) WHERE next_deadline IS NOT NULL;

CREATE TABLE amounts (                              -- never added across currencies, nor across oversight or contribution
    donation_id  text NOT NULL,
    currency     text NOT NULL,
    pledged      numeric(19, 4) NOT NULL,
    approved     numeric(19, 4) NOT NULL,
    in_flight    numeric(19, 4) NOT NULL,
    settled      numeric(19, 4) NOT NULL,
    returned     numeric(19, 4) NOT NULL,
    passed_on    numeric(19, 4) NOT NULL,
    held         numeric(19, 4) NOT NULL,
    received     numeric(19, 4) NOT NULL,
    acknowledged numeric(19, 4) NOT NULL,
    utilised     numeric(19, 4) NOT NULL,
    PRIMARY KEY (donation_id, currency)
);

CREATE TABLE approvals (                            -- every request to a mechanism; amounts are {"KWD": "1000.5000"}
    donation_id        text NOT NULL,
    approval_id        text NOT NULL,
    mechanism_id       text NOT NULL,
    state              text NOT NULL,
    legs               text[] NOT NULL,
    requested          jsonb NOT NULL,
    granted            jsonb NOT NULL,                 -- so far; counts once the state is granted
    requested_by       text NOT NULL,
    requested_for      text NOT NULL,               -- the party
    requested_on       timestamptz NOT NULL,        -- when the request says it was made
    approvals_required integer NOT NULL,
    approvals          integer NOT NULL,            -- signatures so far
    deciders           text[] NOT NULL,
    valid_until        timestamptz,
    PRIMARY KEY (donation_id, approval_id)
);
CREATE INDEX approvals_pending ON approvals (requested_on) WHERE state = 'pending';

CREATE TABLE parked (                               -- a donation whose fold failed: its row stays as it was, its entries are kept
    donation_id text PRIMARY KEY,
    partition   integer NOT NULL,
    "offset"    bigint NOT NULL,                    -- of the first entry that was not folded
    error       text NOT NULL
);
