-- Windows: rows per 2 seconds and per day, by type of agent, and branches; limits of names; how far it all is.
CREATE TABLE rollup_fine (
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
CREATE TABLE rollup_day (
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
CREATE TABLE rollup_tool_day (
    app TEXT NOT NULL, user TEXT NOT NULL, bucket INTEGER NOT NULL, tool TEXT NOT NULL,
    calls INTEGER NOT NULL, succeeded INTEGER NOT NULL, failed INTEGER NOT NULL, denied INTEGER NOT NULL,
    interrupted INTEGER NOT NULL, abandoned INTEGER NOT NULL,
    duration_sum INTEGER NOT NULL, duration_count INTEGER NOT NULL,
    duration_sketch BLOB,
    PRIMARY KEY (app, user, bucket, tool)
) WITHOUT ROWID;
CREATE TABLE rollup_agent_minute (
    app TEXT NOT NULL, user TEXT NOT NULL, bucket INTEGER NOT NULL, agent TEXT NOT NULL,
    calls INTEGER NOT NULL, succeeded INTEGER NOT NULL, failed INTEGER NOT NULL, denied INTEGER NOT NULL,
    interrupted INTEGER NOT NULL, abandoned INTEGER NOT NULL,
    duration_sum INTEGER NOT NULL, duration_count INTEGER NOT NULL,
    duration_sketch BLOB,
    PRIMARY KEY (app, user, bucket, agent)
) WITHOUT ROWID;
CREATE TABLE rollup_agent_hour (
    app TEXT NOT NULL, user TEXT NOT NULL, bucket INTEGER NOT NULL, agent TEXT NOT NULL,
    calls INTEGER NOT NULL, succeeded INTEGER NOT NULL, failed INTEGER NOT NULL, denied INTEGER NOT NULL,
    interrupted INTEGER NOT NULL, abandoned INTEGER NOT NULL,
    duration_sum INTEGER NOT NULL, duration_count INTEGER NOT NULL,
    duration_sketch BLOB,
    PRIMARY KEY (app, user, bucket, agent)
) WITHOUT ROWID;
CREATE TABLE rollup_agent_day (
    app TEXT NOT NULL, user TEXT NOT NULL, bucket INTEGER NOT NULL, agent TEXT NOT NULL,
    calls INTEGER NOT NULL, succeeded INTEGER NOT NULL, failed INTEGER NOT NULL, denied INTEGER NOT NULL,
    interrupted INTEGER NOT NULL, abandoned INTEGER NOT NULL,
    duration_sum INTEGER NOT NULL, duration_count INTEGER NOT NULL,
    duration_sketch BLOB,
    PRIMARY KEY (app, user, bucket, agent)
) WITHOUT ROWID;

-- Branches that git commands named, per minute, hour and day (resolution is the bucket's length in milliseconds).
CREATE TABLE rollup_branches (
    resolution INTEGER NOT NULL, app TEXT NOT NULL, user TEXT NOT NULL, bucket INTEGER NOT NULL, branch TEXT NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (resolution, app, user, bucket, branch)
) WITHOUT ROWID;

-- The names that have rows of their own in the rollups: the first of each kind, up to its limit.
CREATE TABLE rollup_names (
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    PRIMARY KEY (kind, name)
) WITHOUT ROWID;
INSERT INTO rollup_names SELECT DISTINCT 'app', app FROM rollup_hour WHERE app <> '';
INSERT INTO rollup_names SELECT DISTINCT 'user', user FROM rollup_hour WHERE user <> '';
INSERT INTO rollup_names SELECT DISTINCT 'tool', tool FROM rollup_tool_hour WHERE app = '' AND user = '';

-- Counting the sessions of a window reads nothing but this.
DROP INDEX sessions_last;
CREATE INDEX sessions_last ON sessions (last_event, started, source_app, user, ended, worked);

-- Days with rows; a closed one has them in the tables per day, made of those of its hours.
CREATE TABLE rollup_days (
    day     INTEGER PRIMARY KEY,
    -- When something last came for it.
    touched INTEGER NOT NULL,
    closed  INTEGER NOT NULL
);
INSERT INTO rollup_days SELECT DISTINCT bucket - bucket % 86400000, 0, 0 FROM rollup_hour WHERE app = '' AND user = '';

-- From fine_since on every event is in rollup_fine: after the newest that was stored before there was one.
CREATE TABLE rollup_state (
    fine_since INTEGER NOT NULL
);
INSERT INTO rollup_state SELECT coalesce((max(id) >> 12) + 1577836800000 + 2000, 0) FROM events;
