-- Tasks that have ended well, :count of them, each with its spec, its attempt and its history, written straight into a new store.
-- They ended one after the other in the hour before :now.
CREATE TEMP TABLE numbers AS
WITH RECURSIVE counted (number) AS (VALUES (1) UNION ALL SELECT number + 1 FROM counted WHERE number < :count)
SELECT number, :now - 3600.0 + 3600.0 * number / :count AS at FROM counted;

INSERT INTO tasks (
    ordinal, id, namespace, name, principal, state, ended_at, revision, attempt, failures, losses, retries, max_losses,
    priority, requirement, created_at, version
)
SELECT
    number, printf('%08x-%04x-7000-8000-%012x', number >> 16, number & 65535, number), 'default',
    printf('ended-%d', number), '', 'finished', at, 1, 1, 0, 0, 0, 3, 0, :requirement, at - 1, 4
FROM numbers;

INSERT INTO specs (task, revision, body) SELECT number, 1, :body FROM numbers;

INSERT INTO attempts (
    task, number, revision, executor_id, executor_name, claimed_at, started_at, ended_at, outcome, queued_at
)
SELECT number, 1, 1, 'gone', 'gone', at - 1, at - 1, at, :outcome, at - 1 FROM numbers;

INSERT INTO output (task, attempt, sequence, stream, data, dropped, at)
SELECT number, 1, 1, 'stdout', CAST(printf('hello %d', number) AS BLOB), 0, at FROM numbers;

INSERT INTO events (task, version, at, event, state, attempt, message)
SELECT number, steps.version, at, steps.event, steps.state, 1, ''
FROM numbers, (
    SELECT 1 AS version, 'submitted' AS event, 'created' AS state
    UNION ALL SELECT 2, 'claimed', 'scheduled'
    UNION ALL SELECT 3, 'started', 'running'
    UNION ALL SELECT 4, 'ended', 'finished'
) AS steps;

DROP TABLE numbers;
