-- The digests of sessions, and the aggregates that are sums of their contributions.
-- Times are milliseconds since the Unix epoch, UTC; money is nano-dollars.

-- Sessions, by row, that changed since they were digested: since when, and a number that grows with the mark.
CREATE TABLE digest_dirty (
    session INTEGER PRIMARY KEY,
    since   INTEGER NOT NULL,
    version INTEGER NOT NULL
);
CREATE INDEX digest_dirty_since ON digest_dirty (since);
-- What is there already was never digested.
INSERT INTO digest_dirty (session, since, version) SELECT id, last_event, 1 FROM sessions;

-- The last digest of each session. It outlives its session's row only until the next look at it.
CREATE TABLE session_digests (
    session       INTEGER PRIMARY KEY,
    session_id    TEXT NOT NULL,
    -- Where its contributions stand.
    place         INTEGER NOT NULL,
    -- Of the digest's own format: one of another version is computed again.
    version       INTEGER NOT NULL,
    digested      INTEGER NOT NULL,
    -- How long reading and digesting took, in microseconds.
    took          INTEGER NOT NULL,
    -- Calls, requests and marks that were left out.
    cut           INTEGER NOT NULL,
    first         INTEGER,
    last          INTEGER,
    -- JSON, packed as payloads are.
    facts_codec   INTEGER NOT NULL,
    facts_bytes   INTEGER NOT NULL,
    facts         BLOB NOT NULL,
    -- What stands in the aggregates: see digest/contributions.rs.
    contributions BLOB NOT NULL
);
CREATE INDEX session_digests_id ON session_digests (session_id);

-- App and user; user '' is not known. In the aggregates, place 0 is all of them.
CREATE TABLE digest_places (
    id   INTEGER PRIMARY KEY,
    app  TEXT NOT NULL,
    user TEXT NOT NULL,
    UNIQUE (app, user)
);

-- What is counted: kind is a number of taffrail_analytics::digest::Kind.
CREATE TABLE digest_keys (
    id     INTEGER PRIMARY KEY,
    kind   INTEGER NOT NULL,
    tool   TEXT NOT NULL,
    name   TEXT NOT NULL,
    detail TEXT NOT NULL,
    label  TEXT NOT NULL
);
CREATE UNIQUE INDEX digest_keys_text ON digest_keys (kind, name, tool, detail);

-- How many keys a bucket of a table has; from a number on, further ones count under (other). grain is a bucket's length.
CREATE TABLE digest_fill (
    kind INTEGER NOT NULL, grain INTEGER NOT NULL, place INTEGER NOT NULL, bucket INTEGER NOT NULL,
    keys INTEGER NOT NULL,
    PRIMARY KEY (kind, grain, place, bucket)
) WITHOUT ROWID;

-- Tools in a row.
CREATE TABLE chain_hours (
    place INTEGER NOT NULL, bucket INTEGER NOT NULL, key INTEGER NOT NULL,
    count INTEGER NOT NULL, sessions INTEGER NOT NULL, failed INTEGER NOT NULL, work_ms INTEGER NOT NULL, histogram BLOB,
    PRIMARY KEY (place, bucket, key)
) WITHOUT ROWID;
CREATE TABLE chain_days (
    place INTEGER NOT NULL, bucket INTEGER NOT NULL, key INTEGER NOT NULL,
    count INTEGER NOT NULL, sessions INTEGER NOT NULL, failed INTEGER NOT NULL, work_ms INTEGER NOT NULL, histogram BLOB,
    PRIMARY KEY (place, bucket, key)
) WITHOUT ROWID;
-- A tool and the next one.
CREATE TABLE transition_hours (
    place INTEGER NOT NULL, bucket INTEGER NOT NULL, key INTEGER NOT NULL,
    count INTEGER NOT NULL, sessions INTEGER NOT NULL, failed INTEGER NOT NULL, parallel INTEGER NOT NULL, histogram BLOB,
    PRIMARY KEY (place, bucket, key)
) WITHOUT ROWID;
CREATE TABLE transition_days (
    place INTEGER NOT NULL, bucket INTEGER NOT NULL, key INTEGER NOT NULL,
    count INTEGER NOT NULL, sessions INTEGER NOT NULL, failed INTEGER NOT NULL, parallel INTEGER NOT NULL, histogram BLOB,
    PRIMARY KEY (place, bucket, key)
) WITHOUT ROWID;
-- The same tool and input again.
CREATE TABLE repetition_hours (
    place INTEGER NOT NULL, bucket INTEGER NOT NULL, key INTEGER NOT NULL,
    count INTEGER NOT NULL, sessions INTEGER NOT NULL, in_row INTEGER NOT NULL, same_result INTEGER NOT NULL, failed INTEGER NOT NULL,
    wasted_ms INTEGER NOT NULL, wasted_tokens INTEGER NOT NULL, wasted_nano_usd INTEGER NOT NULL,
    PRIMARY KEY (place, bucket, key)
) WITHOUT ROWID;
CREATE TABLE repetition_days (
    place INTEGER NOT NULL, bucket INTEGER NOT NULL, key INTEGER NOT NULL,
    count INTEGER NOT NULL, sessions INTEGER NOT NULL, in_row INTEGER NOT NULL, same_result INTEGER NOT NULL, failed INTEGER NOT NULL,
    wasted_ms INTEGER NOT NULL, wasted_tokens INTEGER NOT NULL, wasted_nano_usd INTEGER NOT NULL,
    PRIMARY KEY (place, bucket, key)
) WITHOUT ROWID;
-- Periods of equal calls.
CREATE TABLE cycle_hours (
    place INTEGER NOT NULL, bucket INTEGER NOT NULL, key INTEGER NOT NULL,
    count INTEGER NOT NULL, sessions INTEGER NOT NULL, repeats INTEGER NOT NULL, wasted_calls INTEGER NOT NULL,
    wasted_ms INTEGER NOT NULL, wasted_tokens INTEGER NOT NULL, wasted_nano_usd INTEGER NOT NULL,
    PRIMARY KEY (place, bucket, key)
) WITHOUT ROWID;
CREATE TABLE cycle_days (
    place INTEGER NOT NULL, bucket INTEGER NOT NULL, key INTEGER NOT NULL,
    count INTEGER NOT NULL, sessions INTEGER NOT NULL, repeats INTEGER NOT NULL, wasted_calls INTEGER NOT NULL,
    wasted_ms INTEGER NOT NULL, wasted_tokens INTEGER NOT NULL, wasted_nano_usd INTEGER NOT NULL,
    PRIMARY KEY (place, bucket, key)
) WITHOUT ROWID;
-- Alternating edits of one file.
CREATE TABLE thrash_hours (
    place INTEGER NOT NULL, bucket INTEGER NOT NULL, key INTEGER NOT NULL,
    count INTEGER NOT NULL, sessions INTEGER NOT NULL, flips INTEGER NOT NULL, turns INTEGER NOT NULL, wasted_ms INTEGER NOT NULL,
    wasted_tokens INTEGER NOT NULL, wasted_nano_usd INTEGER NOT NULL,
    PRIMARY KEY (place, bucket, key)
) WITHOUT ROWID;
CREATE TABLE thrash_days (
    place INTEGER NOT NULL, bucket INTEGER NOT NULL, key INTEGER NOT NULL,
    count INTEGER NOT NULL, sessions INTEGER NOT NULL, flips INTEGER NOT NULL, turns INTEGER NOT NULL, wasted_ms INTEGER NOT NULL,
    wasted_tokens INTEGER NOT NULL, wasted_nano_usd INTEGER NOT NULL,
    PRIMARY KEY (place, bucket, key)
) WITHOUT ROWID;
-- Failed calls.
CREATE TABLE error_hours (
    place INTEGER NOT NULL, bucket INTEGER NOT NULL, key INTEGER NOT NULL,
    count INTEGER NOT NULL, sessions INTEGER NOT NULL, on_retry INTEGER NOT NULL, retried INTEGER NOT NULL, resolved INTEGER NOT NULL,
    resolved_same_input INTEGER NOT NULL, histogram BLOB,
    PRIMARY KEY (place, bucket, key)
) WITHOUT ROWID;
CREATE TABLE error_days (
    place INTEGER NOT NULL, bucket INTEGER NOT NULL, key INTEGER NOT NULL,
    count INTEGER NOT NULL, sessions INTEGER NOT NULL, on_retry INTEGER NOT NULL, retried INTEGER NOT NULL, resolved INTEGER NOT NULL,
    resolved_same_input INTEGER NOT NULL, histogram BLOB,
    PRIMARY KEY (place, bucket, key)
) WITHOUT ROWID;
-- What came after a failed call.
CREATE TABLE error_next_hours (
    place INTEGER NOT NULL, bucket INTEGER NOT NULL, key INTEGER NOT NULL,
    count INTEGER NOT NULL, sessions INTEGER NOT NULL,
    PRIMARY KEY (place, bucket, key)
) WITHOUT ROWID;
CREATE TABLE error_next_days (
    place INTEGER NOT NULL, bucket INTEGER NOT NULL, key INTEGER NOT NULL,
    count INTEGER NOT NULL, sessions INTEGER NOT NULL,
    PRIMARY KEY (place, bucket, key)
) WITHOUT ROWID;
-- Failed attempts at API requests.
CREATE TABLE api_failure_hours (
    place INTEGER NOT NULL, bucket INTEGER NOT NULL, key INTEGER NOT NULL,
    count INTEGER NOT NULL, sessions INTEGER NOT NULL, exhausted INTEGER NOT NULL, retry_wait_ms INTEGER NOT NULL,
    PRIMARY KEY (place, bucket, key)
) WITHOUT ROWID;
CREATE TABLE api_failure_days (
    place INTEGER NOT NULL, bucket INTEGER NOT NULL, key INTEGER NOT NULL,
    count INTEGER NOT NULL, sessions INTEGER NOT NULL, exhausted INTEGER NOT NULL, retry_wait_ms INTEGER NOT NULL,
    PRIMARY KEY (place, bucket, key)
) WITHOUT ROWID;
-- Touches of a file.
CREATE TABLE file_hours (
    place INTEGER NOT NULL, bucket INTEGER NOT NULL, key INTEGER NOT NULL,
    count INTEGER NOT NULL, sessions INTEGER NOT NULL, reads INTEGER NOT NULL, writes INTEGER NOT NULL, edits INTEGER NOT NULL,
    deletes INTEGER NOT NULL, lines_added INTEGER NOT NULL, lines_removed INTEGER NOT NULL, rework INTEGER NOT NULL,
    repeated_reads INTEGER NOT NULL, repeated_read_bytes INTEGER NOT NULL, shared_changes INTEGER NOT NULL,
    PRIMARY KEY (place, bucket, key)
) WITHOUT ROWID;
CREATE TABLE file_days (
    place INTEGER NOT NULL, bucket INTEGER NOT NULL, key INTEGER NOT NULL,
    count INTEGER NOT NULL, sessions INTEGER NOT NULL, reads INTEGER NOT NULL, writes INTEGER NOT NULL, edits INTEGER NOT NULL,
    deletes INTEGER NOT NULL, lines_added INTEGER NOT NULL, lines_removed INTEGER NOT NULL, rework INTEGER NOT NULL,
    repeated_reads INTEGER NOT NULL, repeated_read_bytes INTEGER NOT NULL, shared_changes INTEGER NOT NULL,
    PRIMARY KEY (place, bucket, key)
) WITHOUT ROWID;
-- Git commands.
CREATE TABLE git_hours (
    place INTEGER NOT NULL, bucket INTEGER NOT NULL, key INTEGER NOT NULL,
    count INTEGER NOT NULL, sessions INTEGER NOT NULL, failed INTEGER NOT NULL, commits INTEGER NOT NULL,
    files_changed INTEGER NOT NULL, insertions INTEGER NOT NULL, deletions INTEGER NOT NULL,
    PRIMARY KEY (place, bucket, key)
) WITHOUT ROWID;
CREATE TABLE git_days (
    place INTEGER NOT NULL, bucket INTEGER NOT NULL, key INTEGER NOT NULL,
    count INTEGER NOT NULL, sessions INTEGER NOT NULL, failed INTEGER NOT NULL, commits INTEGER NOT NULL,
    files_changed INTEGER NOT NULL, insertions INTEGER NOT NULL, deletions INTEGER NOT NULL,
    PRIMARY KEY (place, bucket, key)
) WITHOUT ROWID;
-- Quality and parallelism.
CREATE TABLE quality_hours (
    place INTEGER NOT NULL, bucket INTEGER NOT NULL, key INTEGER NOT NULL,
    count INTEGER NOT NULL, sessions INTEGER NOT NULL, succeeded INTEGER NOT NULL, failed INTEGER NOT NULL, denied INTEGER NOT NULL,
    interrupted INTEGER NOT NULL, first_tries INTEGER NOT NULL, first_try_succeeded INTEGER NOT NULL, changes INTEGER NOT NULL,
    rework INTEGER NOT NULL, test_runs INTEGER NOT NULL, tests_passed INTEGER NOT NULL, tests_failed INTEGER NOT NULL,
    parallel INTEGER NOT NULL, wasted_calls INTEGER NOT NULL, wasted_ms INTEGER NOT NULL, wasted_tokens INTEGER NOT NULL,
    wasted_nano_usd INTEGER NOT NULL, subagents_parallel_ms INTEGER NOT NULL, compactions INTEGER NOT NULL,
    PRIMARY KEY (place, bucket, key)
) WITHOUT ROWID;
CREATE TABLE quality_days (
    place INTEGER NOT NULL, bucket INTEGER NOT NULL, key INTEGER NOT NULL,
    count INTEGER NOT NULL, sessions INTEGER NOT NULL, succeeded INTEGER NOT NULL, failed INTEGER NOT NULL, denied INTEGER NOT NULL,
    interrupted INTEGER NOT NULL, first_tries INTEGER NOT NULL, first_try_succeeded INTEGER NOT NULL, changes INTEGER NOT NULL,
    rework INTEGER NOT NULL, test_runs INTEGER NOT NULL, tests_passed INTEGER NOT NULL, tests_failed INTEGER NOT NULL,
    parallel INTEGER NOT NULL, wasted_calls INTEGER NOT NULL, wasted_ms INTEGER NOT NULL, wasted_tokens INTEGER NOT NULL,
    wasted_nano_usd INTEGER NOT NULL, subagents_parallel_ms INTEGER NOT NULL, compactions INTEGER NOT NULL,
    PRIMARY KEY (place, bucket, key)
) WITHOUT ROWID;
-- Commands that run tests.
CREATE TABLE test_hours (
    place INTEGER NOT NULL, bucket INTEGER NOT NULL, key INTEGER NOT NULL,
    count INTEGER NOT NULL, sessions INTEGER NOT NULL, passed INTEGER NOT NULL, failed INTEGER NOT NULL, unclear INTEGER NOT NULL,
    histogram BLOB,
    PRIMARY KEY (place, bucket, key)
) WITHOUT ROWID;
CREATE TABLE test_days (
    place INTEGER NOT NULL, bucket INTEGER NOT NULL, key INTEGER NOT NULL,
    count INTEGER NOT NULL, sessions INTEGER NOT NULL, passed INTEGER NOT NULL, failed INTEGER NOT NULL, unclear INTEGER NOT NULL,
    histogram BLOB,
    PRIMARY KEY (place, bucket, key)
) WITHOUT ROWID;
-- Agents by type.
CREATE TABLE agent_hours (
    place INTEGER NOT NULL, bucket INTEGER NOT NULL, key INTEGER NOT NULL,
    count INTEGER NOT NULL, sessions INTEGER NOT NULL, calls INTEGER NOT NULL, failed INTEGER NOT NULL, work_ms INTEGER NOT NULL,
    waiting_ms INTEGER NOT NULL, requests INTEGER NOT NULL, input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL,
    cache_read_tokens INTEGER NOT NULL, cache_write_tokens INTEGER NOT NULL, nano_usd INTEGER NOT NULL,
    unpriced_requests INTEGER NOT NULL, handoffs INTEGER NOT NULL, histogram BLOB,
    PRIMARY KEY (place, bucket, key)
) WITHOUT ROWID;
CREATE TABLE agent_days (
    place INTEGER NOT NULL, bucket INTEGER NOT NULL, key INTEGER NOT NULL,
    count INTEGER NOT NULL, sessions INTEGER NOT NULL, calls INTEGER NOT NULL, failed INTEGER NOT NULL, work_ms INTEGER NOT NULL,
    waiting_ms INTEGER NOT NULL, requests INTEGER NOT NULL, input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL,
    cache_read_tokens INTEGER NOT NULL, cache_write_tokens INTEGER NOT NULL, nano_usd INTEGER NOT NULL,
    unpriced_requests INTEGER NOT NULL, handoffs INTEGER NOT NULL, histogram BLOB,
    PRIMARY KEY (place, bucket, key)
) WITHOUT ROWID;
-- What filled the context.
CREATE TABLE fill_hours (
    place INTEGER NOT NULL, bucket INTEGER NOT NULL, key INTEGER NOT NULL,
    count INTEGER NOT NULL, sessions INTEGER NOT NULL, tokens INTEGER NOT NULL, bytes INTEGER NOT NULL,
    PRIMARY KEY (place, bucket, key)
) WITHOUT ROWID;
CREATE TABLE fill_days (
    place INTEGER NOT NULL, bucket INTEGER NOT NULL, key INTEGER NOT NULL,
    count INTEGER NOT NULL, sessions INTEGER NOT NULL, tokens INTEGER NOT NULL, bytes INTEGER NOT NULL,
    PRIMARY KEY (place, bucket, key)
) WITHOUT ROWID;
-- Compactions.
CREATE TABLE compaction_hours (
    place INTEGER NOT NULL, bucket INTEGER NOT NULL, key INTEGER NOT NULL,
    count INTEGER NOT NULL, sessions INTEGER NOT NULL, pre_tokens INTEGER NOT NULL, post_tokens INTEGER NOT NULL,
    measured INTEGER NOT NULL,
    PRIMARY KEY (place, bucket, key)
) WITHOUT ROWID;
CREATE TABLE compaction_days (
    place INTEGER NOT NULL, bucket INTEGER NOT NULL, key INTEGER NOT NULL,
    count INTEGER NOT NULL, sessions INTEGER NOT NULL, pre_tokens INTEGER NOT NULL, post_tokens INTEGER NOT NULL,
    measured INTEGER NOT NULL,
    PRIMARY KEY (place, bucket, key)
) WITHOUT ROWID;

-- Examples of a failure.
CREATE INDEX event_errors_fingerprint ON event_errors (fingerprint);
