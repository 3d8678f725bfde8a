-- What a call gave back: a hash (its own timings left out) and the size in bytes of JSON. NULL where no end of its own is known.
ALTER TABLE tool_calls ADD COLUMN result_hash INTEGER;
ALTER TABLE tool_calls ADD COLUMN output_bytes INTEGER;
