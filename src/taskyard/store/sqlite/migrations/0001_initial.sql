-- Rows of a task refer to it by its ordinal, which is also the order of submission and is never given twice.
CREATE TABLE tasks (
    ordinal INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    principal TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('created', 'scheduled', 'running', 'finished', 'failed', 'stopped')),
    stop TEXT CHECK (stop IN ('user', 'update', 'delete')),
    executor_id TEXT,
    started_at REAL,
    not_before REAL,
    ended_at REAL,
    reason TEXT,
    revision INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    failures INTEGER NOT NULL,
    losses INTEGER NOT NULL,
    retries INTEGER NOT NULL,
    max_losses INTEGER NOT NULL,
    priority INTEGER NOT NULL,
    requirement TEXT NOT NULL, -- JSON, for the filter by label
    created_at REAL NOT NULL,
    version INTEGER NOT NULL,
    deleted INTEGER NOT NULL DEFAULT 0 CHECK (deleted IN (0, 1)),
    -- Each state carries exactly its own data.
    CHECK (not_before IS NULL OR state = 'created'),
    CHECK ((executor_id IS NOT NULL) = (state IN ('scheduled', 'running'))),
    CHECK (stop IS NULL OR executor_id IS NOT NULL),
    CHECK ((started_at IS NOT NULL) = (state = 'running')),
    CHECK ((ended_at IS NOT NULL) = (state IN ('finished', 'failed', 'stopped'))),
    CHECK ((reason IS NOT NULL) = (state = 'failed'))
) STRICT;

CREATE UNIQUE INDEX tasks_name ON tasks (namespace, name) WHERE deleted = 0;
CREATE INDEX tasks_waiting ON tasks (priority DESC, ordinal) WHERE state = 'created';
CREATE INDEX tasks_state ON tasks (state);
CREATE INDEX tasks_ended ON tasks (ended_at) WHERE ended_at IS NOT NULL;

CREATE TABLE specs (
    task INTEGER NOT NULL REFERENCES tasks (ordinal) ON DELETE CASCADE,
    revision INTEGER NOT NULL,
    body BLOB NOT NULL, -- msgpack
    PRIMARY KEY (task, revision)
) STRICT;

CREATE TABLE attempts (
    task INTEGER NOT NULL REFERENCES tasks (ordinal) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    executor_id TEXT NOT NULL,
    executor_name TEXT NOT NULL,
    claimed_at REAL NOT NULL,
    started_at REAL,
    ended_at REAL,
    outcome BLOB, -- msgpack
    PRIMARY KEY (task, number),
    CHECK ((ended_at IS NULL) = (outcome IS NULL))
) STRICT, WITHOUT ROWID;

CREATE TABLE output (
    task INTEGER NOT NULL REFERENCES tasks (ordinal) ON DELETE CASCADE,
    attempt INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    stream TEXT NOT NULL CHECK (stream IN ('stdout', 'stderr')),
    data BLOB NOT NULL,
    dropped INTEGER NOT NULL,
    at REAL NOT NULL,
    PRIMARY KEY (task, attempt, sequence)
) STRICT;

CREATE TABLE events (
    task INTEGER NOT NULL REFERENCES tasks (ordinal) ON DELETE CASCADE,
    version INTEGER NOT NULL,
    at REAL NOT NULL,
    event TEXT NOT NULL,
    state TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    reason TEXT,
    message TEXT NOT NULL,
    PRIMARY KEY (task, version)
) STRICT, WITHOUT ROWID;

-- Files in the repository that a spec or an artifact of a task needs.
CREATE TABLE file_references (
    task INTEGER NOT NULL REFERENCES tasks (ordinal) ON DELETE CASCADE,
    sha256 TEXT NOT NULL,
    PRIMARY KEY (task, sha256)
) STRICT, WITHOUT ROWID;

CREATE INDEX file_references_sha256 ON file_references (sha256);

-- Independent of the tasks: a key outlives what was submitted under it.
CREATE TABLE idempotency_keys (
    namespace TEXT NOT NULL,
    key TEXT NOT NULL,
    digest TEXT NOT NULL,
    answer BLOB NOT NULL, -- msgpack
    at REAL NOT NULL,
    PRIMARY KEY (namespace, key)
) STRICT;

CREATE INDEX idempotency_keys_at ON idempotency_keys (at);

CREATE TABLE executors (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    labels TEXT NOT NULL, -- JSON
    capacity TEXT NOT NULL, -- JSON
    draining INTEGER NOT NULL CHECK (draining IN (0, 1)),
    last_heard REAL NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE meta (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO meta (key, value) VALUES ('generation', lower(hex(randomblob(8))));
