-- Every statement of the SQLite store, by name. `{name}` stands for the text of a query above it.

-- name: generation
SELECT value FROM meta WHERE key = 'generation';

-- name: renew_generation
UPDATE meta SET value = lower(hex(randomblob(8))) WHERE key = 'generation';

-- name: tenure
SELECT value FROM meta WHERE key = 'tenure';

-- name: note_tenure
INSERT INTO meta (key, value) VALUES ('tenure', :value) ON CONFLICT (key) DO UPDATE SET value = excluded.value;

-- name: task_columns
tasks.ordinal, tasks.id, tasks.namespace, tasks.name, tasks.principal, tasks.state, tasks.stop, tasks.executor_id,
tasks.started_at, tasks.not_before, tasks.ended_at, tasks.reason, tasks.revision, tasks.attempt, tasks.failures,
tasks.losses, tasks.retries, tasks.max_losses, tasks.priority, tasks.requirement, tasks.created_at, tasks.version,
tasks.deleted, tasks.until, tasks.message, tasks.timed_out, tasks.queue_timeout, tasks.total_timeout, tasks.expires_at

-- name: ordinal_of_task
(SELECT ordinal FROM tasks WHERE id = :task_id)

-- One task -------------------------------------------------------------------------------------------------------------

-- name: insert_task
-- No row where the id or the name is there already.
INSERT INTO tasks (
    id, namespace, name, principal, state, not_before, revision, attempt, failures, losses, retries, max_losses,
    priority, requirement, created_at, version, queue_timeout, total_timeout, until, expires_at
) VALUES (
    :id, :namespace, :name, :principal, 'created', 0, 1, 0, 0, 0, :retries, :max_losses,
    :priority, :requirement, :created_at, 1, :queue_timeout, :total_timeout, :until, :expires_at
)
ON CONFLICT DO NOTHING
RETURNING ordinal;

-- name: task_by_id
SELECT {task_columns} FROM tasks WHERE id = :task_id;

-- name: id_of_name
SELECT id FROM tasks WHERE namespace = :namespace AND name = :name AND deleted = 0;

-- name: undeleted_id
SELECT id FROM tasks WHERE id = :task_id AND deleted = 0;

-- name: version_of_task
SELECT version FROM tasks WHERE id = :task_id;

-- name: update_task
UPDATE tasks SET
    state = :state, stop = :stop, executor_id = :executor_id, started_at = :started_at, not_before = :not_before,
    ended_at = :ended_at, reason = :reason, attempt = :attempt, failures = :failures, losses = :losses,
    version = :version, until = :until, message = :message, timed_out = :timed_out, expires_at = :expires_at
WHERE ordinal = :task AND attempt = :read_attempt AND version = :read_version;

-- name: claim_task
-- This one and the next two write what update_task would, where only that can have changed: every task goes through them.
UPDATE tasks SET
    state = 'scheduled', executor_id = :executor_id, not_before = NULL, until = NULL, attempt = :attempt, version = :version
WHERE ordinal = :task AND attempt = :read_attempt AND version = :read_version;

-- name: begin_task
UPDATE tasks SET state = 'running', started_at = :started_at, version = :version
WHERE ordinal = :task AND attempt = :read_attempt AND version = :read_version;

-- name: finish_task
UPDATE tasks SET
    state = 'finished', stop = NULL, executor_id = NULL, started_at = NULL, timed_out = 0, ended_at = :ended_at,
    version = :version
WHERE ordinal = :task AND attempt = :read_attempt AND version = :read_version;

-- name: shift_times
-- The times that are still to come. A backoff of 0 is none.
UPDATE tasks SET
    not_before = iif(not_before > 0, not_before + :step, not_before), until = until + :step, expires_at = expires_at + :step
WHERE state IN ('created', 'scheduled', 'running');

-- name: shift_keys
UPDATE idempotency_keys SET at = at + :step;

-- name: revise_task
UPDATE tasks SET
    revision = :revision, priority = :priority, requirement = :requirement, retries = :retries,
    max_losses = :max_losses, queue_timeout = :queue_timeout, total_timeout = :total_timeout
WHERE ordinal = :task;

-- name: hide_task
UPDATE tasks SET deleted = 1 WHERE ordinal = :task;

-- name: remove_task
-- What belongs to it goes by the foreign keys.
DELETE FROM tasks WHERE ordinal = :task AND attempt = :read_attempt AND version = :read_version;

-- Specs and the files that they need -----------------------------------------------------------------------------------

-- name: insert_spec
INSERT INTO specs (task, revision, body) VALUES (:task, :revision, :body);

-- name: spec
SELECT body FROM specs WHERE task = {ordinal_of_task} AND revision = :revision;

-- name: spec_of_ordinal
SELECT body FROM specs WHERE task = :task AND revision = :revision;

-- name: insert_file_reference
INSERT OR IGNORE INTO file_references (task, sha256) VALUES (:task, :sha256);

-- name: unreferenced
SELECT value FROM json_each(:sha256s) AS asked
WHERE NOT EXISTS (SELECT 1 FROM file_references WHERE file_references.sha256 = asked.value);

-- Attempts -------------------------------------------------------------------------------------------------------------

-- name: insert_attempt
-- The event that made the task wait is the last one before its claim.
INSERT INTO attempts (task, number, revision, executor_id, executor_name, claimed_at, queued_at)
VALUES (
    :task, :number, :revision, :executor_id, :executor_name, :claimed_at,
    coalesce((SELECT at FROM events WHERE task = :task AND version = :waiting_version), :claimed_at)
)
RETURNING queued_at;

-- name: keep_course
-- What is known already stays where nothing is said.
committed_at = coalesce(:committed_at, committed_at), dispatched_at = coalesce(:dispatched_at, dispatched_at),
first_output_at = coalesce(:first_output_at, first_output_at), started_by = coalesce(:started_by, started_by)

-- name: begin_attempt
UPDATE attempts SET started_at = :started_at, {keep_course} WHERE task = :task AND number = :number;

-- name: end_attempt
UPDATE attempts SET
    started_at = coalesce(:started_at, started_at), ended_at = :ended_at, outcome = :outcome, {keep_course}
WHERE task = :task AND number = :number;

-- name: attempt_columns
number, revision, executor_id, executor_name, claimed_at, started_at, ended_at, outcome,
queued_at, committed_at, dispatched_at, first_output_at, started_by

-- name: attempts
SELECT {attempt_columns} FROM attempts WHERE task = {ordinal_of_task} ORDER BY number;

-- name: attempt
SELECT {attempt_columns} FROM attempts WHERE task = {ordinal_of_task} AND number = :number;

-- Output ---------------------------------------------------------------------------------------------------------------

-- name: insert_output
INSERT INTO output (task, attempt, sequence, stream, data, dropped, at)
VALUES (:task, :attempt, :sequence, :stream, :data, :dropped, :at);

-- name: stored_of_ordinal
SELECT coalesce(max(sequence), 0) FROM output WHERE task = :task AND attempt = :attempt;

-- name: stored
SELECT coalesce(max(sequence), 0) FROM output WHERE task = {ordinal_of_task} AND attempt = :attempt;

-- name: output
SELECT sequence, stream, data, dropped, at FROM output
WHERE task = {ordinal_of_task} AND attempt = :attempt AND sequence > :after
    AND (:stream IS NULL OR stream = :stream)
ORDER BY sequence;

-- name: output_bytes
SELECT coalesce(sum(length(data)), 0) FROM output WHERE task = :task;

-- History --------------------------------------------------------------------------------------------------------------

-- name: insert_event
INSERT INTO events (task, version, at, event, state, attempt, reason, message)
VALUES (:task, :version, :at, :event, :state, :attempt, :reason, :message);

-- name: events
SELECT version, at, event, state, attempt, reason, message FROM events
WHERE task = {ordinal_of_task} AND version > :after_version
ORDER BY version LIMIT :limit;

-- Many tasks -----------------------------------------------------------------------------------------------------------

-- name: matches
tasks.deleted = 0
AND (:name_prefix = '' OR substr(tasks.name, 1, length(:name_prefix)) = :name_prefix)
AND (:executor_id = '' OR EXISTS (
    SELECT 1 FROM attempts
    WHERE attempts.task = tasks.ordinal AND attempts.number = tasks.attempt AND attempts.executor_id = :executor_id
))
AND NOT EXISTS (
    SELECT 1 FROM json_each(:labels) AS wanted
    WHERE NOT EXISTS (
        SELECT 1 FROM json_each(tasks.requirement, '$.labels') AS has
        WHERE has.value ->> 0 = wanted.key AND has.value ->> 1 = wanted.value
    )
)

-- name: newest_tasks
SELECT {task_columns} FROM tasks
WHERE tasks.ordinal < :before AND {matches}
ORDER BY tasks.ordinal DESC LIMIT :limit;

-- name: newest_tasks_in_state
SELECT {task_columns} FROM tasks
WHERE tasks.state = :state AND tasks.ordinal < :before AND {matches}
ORDER BY tasks.ordinal DESC LIMIT :limit;

-- name: names
SELECT name FROM tasks WHERE namespace = :namespace AND deleted = 0 ORDER BY ordinal;

-- name: waiting_of_priority
SELECT {task_columns} FROM tasks INDEXED BY tasks_waiting
WHERE state = 'created' AND priority = :priority AND ordinal > :after
ORDER BY ordinal LIMIT :limit;

-- name: waiting_below_priority
-- SQLite would rather sort all that wait, for each page again.
SELECT {task_columns} FROM tasks INDEXED BY tasks_waiting
WHERE state = 'created' AND priority < :priority
ORDER BY priority DESC, ordinal LIMIT :limit;

-- name: open_tasks
SELECT {task_columns} FROM tasks WHERE state IN ('scheduled', 'running') ORDER BY ordinal;

-- Idempotency keys and what becomes old --------------------------------------------------------------------------------

-- name: insert_key
INSERT INTO idempotency_keys (namespace, key, digest, answer, at) VALUES (:namespace, :key, :digest, :answer, :at);

-- name: key
SELECT digest, answer FROM idempotency_keys WHERE namespace = :namespace AND key = :key;

-- name: expire_keys
DELETE FROM idempotency_keys
WHERE rowid IN (SELECT rowid FROM idempotency_keys WHERE at < :before ORDER BY at LIMIT :limit);

-- name: ended_tasks
SELECT {task_columns} FROM tasks WHERE ended_at < :before ORDER BY ended_at LIMIT :limit;

-- Executors ------------------------------------------------------------------------------------------------------------

-- name: save_executor
INSERT INTO executors (id, name, labels, capacity, draining, last_heard)
VALUES (:id, :name, :labels, :capacity, :draining, :last_heard)
ON CONFLICT (id) DO UPDATE SET
    name = excluded.name, labels = excluded.labels, capacity = excluded.capacity, last_heard = excluded.last_heard;

-- name: drain_executor
UPDATE executors SET draining = :draining WHERE id = :id;

-- name: forget_executor
DELETE FROM executors WHERE id = :id;

-- name: executors
SELECT id, name, labels, capacity, draining, last_heard FROM executors ORDER BY name, id;
