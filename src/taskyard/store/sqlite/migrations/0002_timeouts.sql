-- Copies of the spec's timeouts, in seconds, and when they are over. A CHECK cannot be changed, so that a timeout's stop has
-- a column of its own; any other stop beats it, and stands in `stop`.
ALTER TABLE tasks ADD COLUMN queue_timeout REAL;
ALTER TABLE tasks ADD COLUMN total_timeout REAL;
ALTER TABLE tasks ADD COLUMN expires_at REAL;
ALTER TABLE tasks ADD COLUMN until REAL CHECK (until IS NULL OR state = 'created');
ALTER TABLE tasks ADD COLUMN message TEXT CHECK (message IS NULL OR state = 'failed');
ALTER TABLE tasks ADD COLUMN timed_out INTEGER NOT NULL DEFAULT 0
    CHECK (timed_out = 0 OR (timed_out = 1 AND executor_id IS NOT NULL AND stop IS NULL));
