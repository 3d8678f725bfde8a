-- Events and what hangs on them; calls, sessions and agents; rollups; themes.
-- Times are milliseconds since the Unix epoch, UTC. Money, when it comes, is nano-dollars.

-- id is time-ordered: ((timestamp - 2020-01-01) << 12) | sequence. Every index below ends in it.
CREATE TABLE events (
    id                   INTEGER PRIMARY KEY,
    event_id             BLOB NOT NULL,
    dedup_key            BLOB NOT NULL,
    timestamp            INTEGER NOT NULL,
    received             INTEGER NOT NULL,
    source               TEXT NOT NULL,
    source_app           TEXT NOT NULL,
    session_id           TEXT NOT NULL,
    agent_id             TEXT,
    agent_type           TEXT,
    prompt_id            TEXT,
    tool_use_id          TEXT,
    user                 TEXT,
    host                 TEXT,
    model_name           TEXT,
    hook_event_type      TEXT NOT NULL,
    tool_name            TEXT,
    summary              TEXT NOT NULL,
    -- 1: ends its agent's open calls, 2: ends its session's, 4: a prompt by a person, 8: from a recording.
    flags                INTEGER NOT NULL,
    warnings             TEXT,
    issues               TEXT,
    humanInTheLoop       TEXT,
    humanInTheLoopStatus TEXT
);
CREATE UNIQUE INDEX events_dedup ON events (dedup_key);
CREATE INDEX events_session ON events (session_id);
CREATE INDEX events_app ON events (source_app);
CREATE INDEX events_type ON events (hook_event_type);
CREATE INDEX events_tool ON events (tool_name) WHERE tool_name IS NOT NULL;
CREATE INDEX events_agent ON events (agent_id) WHERE agent_id IS NOT NULL;

-- The raw payload, and what the old contract's sender posted beside it. Sizes first: a row's head is read
-- without its blobs.
CREATE TABLE payloads (
    event_id       INTEGER PRIMARY KEY,
    original_bytes INTEGER NOT NULL,
    raw_bytes      INTEGER NOT NULL,
    truncated      INTEGER NOT NULL,
    redactions     INTEGER NOT NULL,
    is_json        INTEGER NOT NULL,
    codec          INTEGER NOT NULL,
    legacy_codec   INTEGER,
    legacy_bytes   INTEGER,
    data           BLOB NOT NULL,
    legacy         BLOB
);

CREATE TABLE event_metrics (
    event_id            INTEGER PRIMARY KEY,
    execution_time      INTEGER,
    input_tokens        INTEGER,
    output_tokens       INTEGER,
    total_tokens        INTEGER,
    cost                INTEGER,
    context_size        INTEGER,
    context_utilization REAL,
    compression_events  INTEGER,
    output_bytes        INTEGER,
    hook_wall_us        INTEGER,
    agent_rss_bytes     INTEGER
);

CREATE TABLE event_errors (
    event_id        INTEGER PRIMARY KEY,
    error_type      TEXT NOT NULL,
    error_message   TEXT NOT NULL,
    stack_trace     TEXT,
    recoverable     INTEGER NOT NULL,
    retry_count     INTEGER NOT NULL,
    resolved        INTEGER NOT NULL DEFAULT 0,
    resolution_time INTEGER,
    fingerprint     TEXT NOT NULL
);

CREATE TABLE file_operations (
    event_id       INTEGER NOT NULL,
    position       INTEGER NOT NULL,
    operation_type TEXT NOT NULL,
    file_path      TEXT NOT NULL,
    file_size      INTEGER,
    duration       INTEGER,
    timestamp      INTEGER NOT NULL,
    lines_added    INTEGER,
    lines_removed  INTEGER,
    PRIMARY KEY (event_id, position)
) WITHOUT ROWID;

CREATE TABLE git_operations (
    event_id      INTEGER NOT NULL,
    position      INTEGER NOT NULL,
    command       TEXT NOT NULL,
    subcommand    TEXT NOT NULL,
    branch        TEXT,
    files_changed INTEGER,
    insertions    INTEGER,
    deletions     INTEGER,
    timestamp     INTEGER NOT NULL,
    commit_id     TEXT,
    PRIMARY KEY (event_id, position)
) WITHOUT ROWID;

-- One row per tool call, merged from every event that speaks of it. agent_id '' is the main agent.
CREATE TABLE tool_calls (
    id          INTEGER PRIMARY KEY,
    session_id  TEXT NOT NULL,
    agent_id    TEXT NOT NULL,
    agent_type  TEXT,
    tool_use_id TEXT,
    source_app  TEXT NOT NULL,
    user        TEXT,
    tool_name   TEXT NOT NULL,
    input_hash  INTEGER NOT NULL,
    status      TEXT NOT NULL,
    -- How good the evidence for the status is: 4 its own Post, 3 a denial, 2 a batch, 1 the end of its agent, 0 none.
    rank        INTEGER NOT NULL,
    started     INTEGER,
    ended       INTEGER,
    -- The client's own clock; duration_ms is this, else ended - started.
    told_ms     INTEGER,
    duration_ms INTEGER,
    start_event INTEGER,
    end_event   INTEGER,
    summary     TEXT NOT NULL,
    error_type  TEXT,
    -- The earliest event that speaks of it, and the moment it is ordered by: started, else seen.
    seen        INTEGER NOT NULL,
    at          INTEGER NOT NULL
);
CREATE UNIQUE INDEX tool_calls_use ON tool_calls (session_id, agent_id, tool_use_id) WHERE tool_use_id IS NOT NULL;
CREATE INDEX tool_calls_at ON tool_calls (session_id, agent_id, at);
CREATE INDEX tool_calls_ended ON tool_calls (ended) WHERE ended IS NOT NULL;
CREATE INDEX tool_calls_open ON tool_calls (rank, session_id, agent_id) WHERE rank <= 1;
-- Calls without an id that wait for their Post, and those that wait for their Pre.
CREATE INDEX tool_calls_unended ON tool_calls (session_id, tool_name, input_hash)
    WHERE tool_use_id IS NULL AND rank <= 1;
CREATE INDEX tool_calls_unstarted ON tool_calls (session_id, tool_name, input_hash)
    WHERE tool_use_id IS NULL AND start_event IS NULL;

CREATE TABLE sessions (
    id           INTEGER PRIMARY KEY,
    session_id   TEXT NOT NULL UNIQUE,
    source_app   TEXT NOT NULL,
    user         TEXT,
    host         TEXT,
    cwd          TEXT,
    model        TEXT,
    start_source TEXT,
    started      INTEGER NOT NULL,
    last_event   INTEGER NOT NULL,
    -- The newest SessionEnd, and the newest sign of work (start, prompt, tool): it is over while ended >= worked.
    ended        INTEGER,
    worked       INTEGER NOT NULL,
    end_reason   TEXT,
    events       INTEGER NOT NULL,
    prompts      INTEGER NOT NULL,
    calls        INTEGER NOT NULL,
    failed_calls INTEGER NOT NULL,
    subagents    INTEGER NOT NULL,
    compactions  INTEGER NOT NULL,
    last_prompt  TEXT,
    prompted     INTEGER
);
CREATE INDEX sessions_last ON sessions (last_event);

CREATE TABLE agents (
    session_id   TEXT NOT NULL,
    agent_id     TEXT NOT NULL,
    agent_type   TEXT,
    started      INTEGER NOT NULL,
    last_event   INTEGER NOT NULL,
    -- The newest event that ended its open calls, and the newest sign of work.
    ended        INTEGER,
    worked       INTEGER NOT NULL,
    events       INTEGER NOT NULL,
    calls        INTEGER NOT NULL,
    failed_calls INTEGER NOT NULL,
    PRIMARY KEY (session_id, agent_id)
) WITHOUT ROWID;
CREATE INDEX agents_last ON agents (last_event);

-- How many events have a value, so that filter options need no scan. Kinds: app, type, tool.
CREATE TABLE facets (
    kind  TEXT NOT NULL,
    value TEXT NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (kind, value)
) WITHOUT ROWID;

-- Figures per minute and per hour for every scope: app '' is all apps, user '' all users. Calls count where they ended.
CREATE TABLE rollup_minute (
    app TEXT NOT NULL, user TEXT NOT NULL, bucket INTEGER NOT NULL,
    events INTEGER NOT NULL, calls INTEGER NOT NULL, succeeded INTEGER NOT NULL, failed INTEGER NOT NULL,
    denied INTEGER NOT NULL, interrupted INTEGER NOT NULL, abandoned INTEGER NOT NULL,
    duration_sum INTEGER NOT NULL, duration_count INTEGER NOT NULL,
    prompts INTEGER NOT NULL, compactions INTEGER NOT NULL,
    files_read INTEGER NOT NULL, files_written INTEGER NOT NULL, files_edited INTEGER NOT NULL,
    files_deleted INTEGER NOT NULL, lines_added INTEGER NOT NULL, lines_removed INTEGER NOT NULL,
    git_operations INTEGER NOT NULL, git_commits INTEGER NOT NULL, git_insertions INTEGER NOT NULL,
    git_deletions INTEGER NOT NULL,
    duration_sketch BLOB, latency_sketch BLOB,
    PRIMARY KEY (app, user, bucket)
) WITHOUT ROWID;
CREATE TABLE rollup_hour (
    app TEXT NOT NULL, user TEXT NOT NULL, bucket INTEGER NOT NULL,
    events INTEGER NOT NULL, calls INTEGER NOT NULL, succeeded INTEGER NOT NULL, failed INTEGER NOT NULL,
    denied INTEGER NOT NULL, interrupted INTEGER NOT NULL, abandoned INTEGER NOT NULL,
    duration_sum INTEGER NOT NULL, duration_count INTEGER NOT NULL,
    prompts INTEGER NOT NULL, compactions INTEGER NOT NULL,
    files_read INTEGER NOT NULL, files_written INTEGER NOT NULL, files_edited INTEGER NOT NULL,
    files_deleted INTEGER NOT NULL, lines_added INTEGER NOT NULL, lines_removed INTEGER NOT NULL,
    git_operations INTEGER NOT NULL, git_commits INTEGER NOT NULL, git_insertions INTEGER NOT NULL,
    git_deletions INTEGER NOT NULL,
    duration_sketch BLOB, latency_sketch BLOB,
    PRIMARY KEY (app, user, bucket)
) WITHOUT ROWID;

-- The same per tool, with what is shown per tool.
CREATE TABLE rollup_tool_minute (
    app TEXT NOT NULL, user TEXT NOT NULL, bucket INTEGER NOT NULL, tool TEXT NOT NULL,
    calls INTEGER NOT NULL, succeeded INTEGER NOT NULL, failed INTEGER NOT NULL, denied INTEGER NOT NULL,
    interrupted INTEGER NOT NULL, abandoned INTEGER NOT NULL,
    duration_sum INTEGER NOT NULL, duration_count INTEGER NOT NULL,
    duration_sketch BLOB,
    PRIMARY KEY (app, user, bucket, tool)
) WITHOUT ROWID;
CREATE TABLE rollup_tool_hour (
    app TEXT NOT NULL, user TEXT NOT NULL, bucket INTEGER NOT NULL, tool TEXT NOT NULL,
    calls INTEGER NOT NULL, succeeded INTEGER NOT NULL, failed INTEGER NOT NULL, denied INTEGER NOT NULL,
    interrupted INTEGER NOT NULL, abandoned INTEGER NOT NULL,
    duration_sum INTEGER NOT NULL, duration_count INTEGER NOT NULL,
    duration_sketch BLOB,
    PRIMARY KEY (app, user, bucket, tool)
) WITHOUT ROWID;

-- Failures by class, per minute and per hour (resolution is the bucket's length in milliseconds).
CREATE TABLE rollup_errors (
    resolution INTEGER NOT NULL, app TEXT NOT NULL, user TEXT NOT NULL, bucket INTEGER NOT NULL, class TEXT NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (resolution, app, user, bucket, class)
) WITHOUT ROWID;

-- As the old server had it.
CREATE TABLE themes (
    id            TEXT PRIMARY KEY NOT NULL,
    name          TEXT NOT NULL UNIQUE,
    displayName   TEXT NOT NULL,
    description   TEXT,
    colors        TEXT NOT NULL,
    isPublic      INTEGER NOT NULL DEFAULT 0,
    authorId      TEXT,
    authorName    TEXT,
    createdAt     INTEGER NOT NULL,
    updatedAt     INTEGER NOT NULL,
    tags          TEXT,
    downloadCount INTEGER NOT NULL DEFAULT 0,
    rating        REAL NOT NULL DEFAULT 0,
    ratingCount   INTEGER NOT NULL DEFAULT 0
);
