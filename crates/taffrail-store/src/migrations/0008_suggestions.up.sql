-- What would save money or time, what a person decided of it, and what it brought.

-- id is time-ordered as that of events, by when it was suggested first.
CREATE TABLE suggestions (
    id              INTEGER PRIMARY KEY,
    -- One row per kind, project and subject, so that a dismissed one stays dismissed.
    key             TEXT NOT NULL UNIQUE,
    kind            TEXT NOT NULL,
    source_app      TEXT NOT NULL,
    subject         TEXT NOT NULL,
    title           TEXT NOT NULL,
    advice          TEXT NOT NULL,
    -- JSON: figures with units; ids of sessions; ids of calls; the change of a file, NULL where it is advice only.
    evidence        TEXT NOT NULL,
    sessions        TEXT NOT NULL,
    calls           TEXT NOT NULL,
    edit            TEXT,
    -- Of the last seven days; NULL where it cannot be known.
    saving_nano_usd INTEGER,
    saving_ms       INTEGER,
    basis           TEXT NOT NULL,
    -- 0 open, 1 applied, 2 undone, 3 dismissed.
    state           INTEGER NOT NULL DEFAULT 0,
    suggested       INTEGER NOT NULL,
    -- When the evidence last held.
    seen            INTEGER NOT NULL,
    decided         INTEGER,
    decided_by      TEXT,
    -- JSON: which file was changed, its hashes before and after, where its former bytes are kept.
    change          TEXT,
    -- JSON: the metric before and after.
    effect          TEXT
);
CREATE INDEX suggestions_state ON suggestions (state);
