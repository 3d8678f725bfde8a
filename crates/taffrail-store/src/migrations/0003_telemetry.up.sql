-- What telemetry brings beside the events: metrics, spans and the client's chatter about itself. One lean row each.

-- id is time-ordered as that of events. A span's timestamp is its begin.
CREATE TABLE telemetry (
    id          INTEGER PRIMARY KEY,
    dedup_key   BLOB NOT NULL,
    received    INTEGER NOT NULL,
    -- log, metric or span.
    signal      TEXT NOT NULL,
    name        TEXT NOT NULL,
    session_id  TEXT,
    -- Of a metric: its value (of a distribution the sum), and whether it is a delta or a cumulative sum.
    value       REAL,
    temporality TEXT,
    -- Of a span, in microseconds.
    duration    INTEGER,
    -- JSON, redacted.
    attributes  TEXT NOT NULL,
    detail      TEXT,
    resource    INTEGER NOT NULL
);
CREATE UNIQUE INDEX telemetry_dedup ON telemetry (dedup_key);
CREATE INDEX telemetry_name ON telemetry (name);
CREATE INDEX telemetry_session ON telemetry (session_id) WHERE session_id IS NOT NULL;

-- Resource and scope of many rows, once: JSON, redacted.
CREATE TABLE telemetry_resources (
    id         INTEGER PRIMARY KEY,
    hash       BLOB NOT NULL UNIQUE,
    attributes TEXT NOT NULL
);

-- How many rows there are of each name.
CREATE TABLE telemetry_names (
    signal  TEXT NOT NULL,
    name    TEXT NOT NULL,
    records INTEGER NOT NULL,
    newest  INTEGER NOT NULL,
    PRIMARY KEY (signal, name)
) WITHOUT ROWID;
