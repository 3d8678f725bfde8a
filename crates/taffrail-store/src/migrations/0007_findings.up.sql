-- What detectors and the isolation forest found, what a person said of it, and the models that found it.

-- id is time-ordered as that of events, by when the episode began.
CREATE TABLE anomalies (
    id            INTEGER PRIMARY KEY,
    -- One row per episode: detector, scope and what it is about.
    key           TEXT NOT NULL UNIQUE,
    detector      TEXT NOT NULL,
    -- 0 info, 1 warning, 2 critical: the highest it was told with.
    severity      INTEGER NOT NULL,
    source_app    TEXT NOT NULL,
    user          TEXT,
    session_id    TEXT,
    agent_id      TEXT,
    agent_type    TEXT,
    tool_name     TEXT,
    started       INTEGER NOT NULL,
    last          INTEGER NOT NULL,
    -- When this house found it.
    detected      INTEGER NOT NULL,
    -- NULL while it goes on.
    ended         INTEGER,
    told          INTEGER NOT NULL,
    score         REAL,
    title         TEXT NOT NULL,
    -- JSON: figures by name; features by contribution; ids of calls.
    evidence      TEXT NOT NULL,
    reasons       TEXT NOT NULL,
    calls         TEXT NOT NULL,
    cost          INTEGER,
    action        TEXT NOT NULL,
    advice        TEXT NOT NULL,
    model_version INTEGER,
    -- 0 open, 1 dismissed, 2 confirmed.
    state         INTEGER NOT NULL DEFAULT 0,
    decided       INTEGER,
    decided_by    TEXT,
    note          TEXT,
    -- JSON: what an investigation froze.
    bundle        TEXT
);
CREATE INDEX anomalies_detector ON anomalies (detector);
CREATE INDEX anomalies_session ON anomalies (session_id) WHERE session_id IS NOT NULL;
CREATE INDEX anomalies_open ON anomalies (state) WHERE ended IS NULL;

-- Trained models: the newest few of each family.
CREATE TABLE models (
    kind    TEXT NOT NULL,
    family  TEXT NOT NULL,
    version INTEGER NOT NULL,
    trained INTEGER NOT NULL,
    rows    INTEGER NOT NULL,
    about   TEXT NOT NULL,
    data    BLOB NOT NULL,
    PRIMARY KEY (kind, family, version)
) WITHOUT ROWID;
