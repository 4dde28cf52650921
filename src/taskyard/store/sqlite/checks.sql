-- What must be true of the rows, beyond what the tables themselves enforce. Each query gives a sentence for each breach;
-- the last three give what the check looks at itself. They use columns of the first migration alone, so that they fit a
-- backup of any age.

-- name: no_generation
SELECT 'the store has no generation'
WHERE NOT EXISTS (SELECT 1 FROM meta WHERE key = 'generation' AND value <> '');

-- name: open_task_without_attempt
SELECT 'task ' || id || ' is ' || state || ', but its attempt ' || attempt || ' is not open'
FROM tasks
WHERE state IN ('scheduled', 'running') AND NOT EXISTS (
    SELECT 1 FROM attempts
    WHERE attempts.task = tasks.ordinal AND attempts.number = tasks.attempt AND attempts.ended_at IS NULL
);

-- name: open_attempt_without_task
SELECT 'attempt ' || number || ' of task ' || id || ' is open, but the task is ' || state || ' with attempt ' || attempt
FROM attempts JOIN tasks ON tasks.ordinal = attempts.task
WHERE attempts.ended_at IS NULL AND (attempts.number <> tasks.attempt OR state NOT IN ('scheduled', 'running'));

-- name: another_executor
SELECT 'task ' || id || ' and its attempt ' || attempt || ' name different executors'
FROM tasks JOIN attempts ON attempts.task = tasks.ordinal AND attempts.number = tasks.attempt
WHERE tasks.executor_id IS NOT NULL AND tasks.executor_id <> attempts.executor_id;

-- name: attempts_missing
SELECT 'task ' || id || ' has had ' || attempt || ' attempts, of which ' || count(number) || ' are kept'
FROM tasks LEFT JOIN attempts ON attempts.task = tasks.ordinal AND attempts.number BETWEEN 1 AND tasks.attempt
GROUP BY ordinal HAVING count(number) <> attempt;

-- name: specs_missing
SELECT 'task ' || id || ' has had ' || tasks.revision || ' revisions, of which ' || count(specs.revision) || ' are kept'
FROM tasks LEFT JOIN specs ON specs.task = tasks.ordinal AND specs.revision BETWEEN 1 AND tasks.revision
GROUP BY ordinal HAVING count(specs.revision) <> tasks.revision;

-- name: history_missing
SELECT 'task ' || id || ' has version ' || tasks.version || ', but ' || count(events.version) || ' events are kept'
FROM tasks LEFT JOIN events ON events.task = tasks.ordinal AND events.version BETWEEN 1 AND tasks.version
GROUP BY ordinal HAVING count(events.version) <> tasks.version;

-- name: history_differs
SELECT 'task ' || id || ' is ' || tasks.state || ', but its history ends with ' || events.state
FROM tasks JOIN events ON events.task = tasks.ordinal AND events.version = tasks.version
WHERE events.state <> tasks.state;

-- name: output_gap
SELECT 'attempt ' || output.attempt || ' of task ' || id || ' has ' || count(*) || ' chunks of output up to chunk '
    || max(sequence)
FROM output JOIN tasks ON tasks.ordinal = output.task
GROUP BY output.task, output.attempt HAVING count(*) <> max(sequence) OR min(sequence) <> 1;

-- name: output_of_no_attempt
SELECT DISTINCT 'there is output of attempt ' || output.attempt || ' of task ' || id || ', which there never was'
FROM output JOIN tasks ON tasks.ordinal = output.task
WHERE NOT EXISTS (
    SELECT 1 FROM attempts WHERE attempts.task = output.task AND attempts.number = output.attempt
);

-- name: count_tasks
SELECT count(*), coalesce(sum(state IN ('scheduled', 'running')), 0) FROM tasks;

-- name: spec_bodies
SELECT id, specs.revision, body FROM specs JOIN tasks ON tasks.ordinal = specs.task;

-- name: outcome_bodies
SELECT id, number, outcome, coalesce((
    SELECT max(sequence) FROM output WHERE output.task = attempts.task AND output.attempt = attempts.number
), 0)
FROM attempts JOIN tasks ON tasks.ordinal = attempts.task
WHERE outcome IS NOT NULL;
