-- The course of an attempt: since when its task had waited, when its claim was committed and sent, when its first output came,
-- and how its executor started it.
ALTER TABLE attempts ADD COLUMN queued_at REAL;
ALTER TABLE attempts ADD COLUMN committed_at REAL;
ALTER TABLE attempts ADD COLUMN dispatched_at REAL;
ALTER TABLE attempts ADD COLUMN first_output_at REAL;
ALTER TABLE attempts ADD COLUMN started_by TEXT NOT NULL DEFAULT '';
