-- Which builds of the views there are, and which one is live. Runs in the schema `aidtrail`.

CREATE TABLE builds (
    name       text PRIMARY KEY,                    -- the schema that holds the build: views_1, views_2, ...
    purpose    text NOT NULL,                       -- 'live', 'rebuild'
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE live (                                 -- one row: the pointer that going live moves
    one   boolean PRIMARY KEY DEFAULT true CHECK (one),
    build text NOT NULL REFERENCES builds (name)
);
