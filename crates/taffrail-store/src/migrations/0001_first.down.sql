-- Indexes go with their tables.
DROP TABLE themes;
DROP TABLE rollup_errors;
DROP TABLE rollup_tool_hour;
DROP TABLE rollup_tool_minute;
DROP TABLE rollup_hour;
DROP TABLE rollup_minute;
DROP TABLE facets;
DROP TABLE agents;
DROP TABLE sessions;
DROP TABLE tool_calls;
DROP TABLE git_operations;
DROP TABLE file_operations;
DROP TABLE event_errors;
DROP TABLE event_metrics;
DROP TABLE payloads;
DROP TABLE events;
