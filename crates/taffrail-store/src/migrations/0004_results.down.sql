ALTER TABLE tool_calls DROP COLUMN output_bytes;
ALTER TABLE tool_calls DROP COLUMN result_hash;
