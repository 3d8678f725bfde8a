DROP TABLE models;
DROP TABLE anomalies;
