DROP TABLE telemetry_names;
DROP TABLE telemetry_resources;
DROP TABLE telemetry;
