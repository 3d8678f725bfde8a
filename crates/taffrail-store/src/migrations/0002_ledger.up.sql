-- The ledger: API requests merged from every source, their sums, and what transcripts tell beside them.
-- Times are milliseconds since the Unix epoch, UTC; money is nano-dollars.

-- Words that repeat in every row (models, types of agents, reasons), once each.
CREATE TABLE names (
    id   INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
);

-- What transcripts tell of a session, and what the ledger needs of it.
ALTER TABLE sessions ADD COLUMN title TEXT;
ALTER TABLE sessions ADD COLUMN git_branch TEXT;
ALTER TABLE sessions ADD COLUMN client_version TEXT;
-- The moment of the event that told app and user: the earliest that knows them wins.
ALTER TABLE sessions ADD COLUMN app_at INTEGER;
ALTER TABLE sessions ADD COLUMN user_at INTEGER;
-- When what transcripts alone tell was said (branch, version, model, title): the newest wins.
ALTER TABLE sessions ADD COLUMN told_at INTEGER;
ALTER TABLE sessions ADD COLUMN told_prompts INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sessions ADD COLUMN told_compactions INTEGER NOT NULL DEFAULT 0;
-- When its transcript was begun, and the session it was forked from.
ALTER TABLE sessions ADD COLUMN born INTEGER;
ALTER TABLE sessions ADD COLUMN forked_from INTEGER;
-- The app and user under which its sums stand in cost_quarters; NULL while it has none.
ALTER TABLE sessions ADD COLUMN ledger_app TEXT;
ALTER TABLE sessions ADD COLUMN ledger_user TEXT;
CREATE INDEX sessions_fork ON sessions (forked_from) WHERE forked_from IS NOT NULL;

ALTER TABLE agents ADD COLUMN description TEXT;
ALTER TABLE agents ADD COLUMN tool_use_id TEXT;
-- Whether it has requests in the ledger that wait for its type.
ALTER TABLE agents ADD COLUMN untyped INTEGER NOT NULL DEFAULT 0;

-- Of an event that tells of a request: the rest of its tokens.
ALTER TABLE event_metrics ADD COLUMN cache_read_tokens INTEGER;
ALTER TABLE event_metrics ADD COLUMN cache_write_5m_tokens INTEGER;
ALTER TABLE event_metrics ADD COLUMN cache_write_1h_tokens INTEGER;

-- One row per API request. id is time-ordered as that of events. App and user are those of the session.
CREATE TABLE api_requests (
    id             INTEGER PRIMARY KEY,
    ts             INTEGER NOT NULL,
    message_id     TEXT,
    -- By what it is found: see ledger/keys.rs. NULL where the key is another row's; the id is in api_request_ids then.
    message_key    INTEGER,
    request_id     TEXT,
    request_key    INTEGER,
    session        INTEGER NOT NULL,
    born           INTEGER NOT NULL,
    agent_id       TEXT,
    agent_type     INTEGER,
    -- The agent by which it is summed up: 'main', the told type, that of the agent's row, or 'subagent'.
    agent          INTEGER NOT NULL,
    prompt_id      TEXT,
    model          INTEGER NOT NULL,
    input          INTEGER NOT NULL,
    output         INTEGER NOT NULL,
    cache_read     INTEGER NOT NULL,
    cache_write_5m INTEGER NOT NULL,
    cache_write_1h INTEGER NOT NULL,
    web_searches   INTEGER NOT NULL,
    -- NULL where it is unpriced.
    cost           INTEGER,
    told_cost      INTEGER,
    -- 0 exact, 1 repaired, 2 lower_bound, 3 estimated, 4 unpriced.
    confidence     INTEGER NOT NULL,
    -- 1 transcript, 2 OTLP log, 4 OTLP span, 8 progress; 0 for what is derived from the client's total.
    sources        INTEGER NOT NULL,
    -- How much the word of the teller of each field counts, and what is known of the usage: see ledger/requests.rs.
    ranks          INTEGER NOT NULL,
    -- The usage by transcript and by OTLP where they are not both the row's.
    evidence       BLOB,
    speed          INTEGER NOT NULL,
    service_tier   INTEGER,
    inference_geo  INTEGER,
    query_source   INTEGER,
    effort         INTEGER,
    stop_reason    INTEGER,
    duration       INTEGER,
    ttft           INTEGER,
    attempts       INTEGER,
    context_window INTEGER,
    -- The fingerprint of the price table.
    priced_by      INTEGER NOT NULL
);
CREATE UNIQUE INDEX api_requests_message ON api_requests (message_key) WHERE message_key IS NOT NULL;
CREATE UNIQUE INDEX api_requests_request ON api_requests (request_key) WHERE request_key IS NOT NULL;
CREATE INDEX api_requests_session ON api_requests (session);
CREATE UNIQUE INDEX api_requests_derived ON api_requests (session, model) WHERE sources = 0;

-- Further ids of a request, where sources contradict each other, and ids whose key is another row's: kind 0 message,
-- 1 request.
CREATE TABLE api_request_ids (
    kind    INTEGER NOT NULL,
    name    TEXT NOT NULL,
    request INTEGER NOT NULL,
    PRIMARY KEY (kind, name)
) WITHOUT ROWID;
CREATE INDEX api_request_ids_request ON api_request_ids (request);

-- Sessions that show a request of another one: forks and resumes.
CREATE TABLE api_request_copies (
    session INTEGER NOT NULL,
    request INTEGER NOT NULL,
    PRIMARY KEY (session, request)
) WITHOUT ROWID;
CREATE INDEX api_request_copies_request ON api_request_copies (request);

-- Sums per 15 minutes UTC: every time zone's days are unions of those. By session, and by app and user.
CREATE TABLE cost_sessions (
    session INTEGER NOT NULL, bucket INTEGER NOT NULL, model INTEGER NOT NULL, agent INTEGER NOT NULL,
    requests INTEGER NOT NULL, input INTEGER NOT NULL, output INTEGER NOT NULL, cache_read INTEGER NOT NULL,
    cache_write_5m INTEGER NOT NULL, cache_write_1h INTEGER NOT NULL, web_searches INTEGER NOT NULL,
    cost INTEGER NOT NULL,
    exact_requests INTEGER NOT NULL, exact_cost INTEGER NOT NULL,
    repaired_requests INTEGER NOT NULL, repaired_cost INTEGER NOT NULL,
    lower_bound_requests INTEGER NOT NULL, lower_bound_cost INTEGER NOT NULL,
    estimated_requests INTEGER NOT NULL, estimated_cost INTEGER NOT NULL,
    unpriced_requests INTEGER NOT NULL, unpriced_cost INTEGER NOT NULL,
    first INTEGER NOT NULL, last INTEGER NOT NULL,
    PRIMARY KEY (session, bucket, model, agent)
) WITHOUT ROWID;
CREATE TABLE cost_quarters (
    bucket INTEGER NOT NULL, app TEXT NOT NULL, user TEXT NOT NULL, model INTEGER NOT NULL, agent INTEGER NOT NULL,
    requests INTEGER NOT NULL, input INTEGER NOT NULL, output INTEGER NOT NULL, cache_read INTEGER NOT NULL,
    cache_write_5m INTEGER NOT NULL, cache_write_1h INTEGER NOT NULL, web_searches INTEGER NOT NULL,
    cost INTEGER NOT NULL,
    exact_requests INTEGER NOT NULL, exact_cost INTEGER NOT NULL,
    repaired_requests INTEGER NOT NULL, repaired_cost INTEGER NOT NULL,
    lower_bound_requests INTEGER NOT NULL, lower_bound_cost INTEGER NOT NULL,
    estimated_requests INTEGER NOT NULL, estimated_cost INTEGER NOT NULL,
    unpriced_requests INTEGER NOT NULL, unpriced_cost INTEGER NOT NULL,
    first INTEGER NOT NULL, last INTEGER NOT NULL,
    PRIMARY KEY (bucket, app, user, model, agent)
) WITHOUT ROWID;

CREATE TABLE api_failures (
    id           INTEGER PRIMARY KEY,
    key          TEXT NOT NULL UNIQUE,
    witness      INTEGER NOT NULL,
    session      INTEGER NOT NULL,
    ts           INTEGER NOT NULL,
    agent_id     TEXT,
    model        TEXT,
    status_code  INTEGER,
    message      TEXT NOT NULL,
    attempt      INTEGER,
    attempts_max INTEGER,
    retry_in     INTEGER,
    exhausted    INTEGER NOT NULL
);
CREATE INDEX api_failures_session ON api_failures (session, ts);

-- Prompts, compactions and starts of subagents as transcripts tell them.
CREATE TABLE transcript_marks (
    id          INTEGER PRIMARY KEY,
    key         TEXT NOT NULL UNIQUE,
    session     INTEGER NOT NULL,
    born        INTEGER NOT NULL,
    ts          INTEGER NOT NULL,
    agent_id    TEXT,
    -- prompt, compaction, spawn.
    kind        TEXT NOT NULL,
    prompt_id   TEXT,
    trigger     TEXT,
    pre_tokens  INTEGER,
    post_tokens INTEGER,
    tool_use_id TEXT,
    agent_type  TEXT,
    summary     TEXT NOT NULL,
    -- The minute, app and user under which a compaction is counted in the rollups; NULL where a hook's is, or none.
    counted     INTEGER,
    counted_app TEXT,
    counted_user TEXT
);
CREATE INDEX transcript_marks_session ON transcript_marks (session, ts);

CREATE TABLE transcript_files (
    path           BLOB PRIMARY KEY NOT NULL,
    session_id     TEXT NOT NULL,
    agent_id       TEXT,
    device         INTEGER NOT NULL,
    inode          INTEGER NOT NULL,
    size           INTEGER NOT NULL,
    modified_ns    INTEGER NOT NULL,
    offset         INTEGER NOT NULL,
    fingerprint    TEXT NOT NULL,
    born           INTEGER,
    context        TEXT NOT NULL,
    records        INTEGER NOT NULL,
    bad            INTEGER NOT NULL,
    unknown        INTEGER NOT NULL,
    error          TEXT,
    gone           INTEGER,
    archive        TEXT,
    archived_bytes INTEGER NOT NULL,
    archived       INTEGER
) WITHOUT ROWID;

CREATE TABLE session_labels (
    session INTEGER NOT NULL,
    key     TEXT NOT NULL,
    value   TEXT NOT NULL,
    at      INTEGER NOT NULL,
    PRIMARY KEY (session, key)
) WITHOUT ROWID;

-- The client's own running total of a session; models is JSON.
CREATE TABLE client_totals (
    session     INTEGER PRIMARY KEY,
    cost        INTEGER NOT NULL,
    has_unknown INTEGER NOT NULL,
    models      TEXT NOT NULL
);

CREATE TABLE ledger_settings (
    key   TEXT PRIMARY KEY NOT NULL,
    value TEXT NOT NULL
) WITHOUT ROWID;
