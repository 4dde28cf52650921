# The images of Taskyard, one target each: `docker build --target api -t taskyard-api .`, and the same for `manager` and
# `executor`. How to run them: docs/deploy.md. Nothing here needs BuildKit.

# Any image with Python 3.11 or later, venv and ensurepip included, as `python3`.
ARG BASE=python:3.13-slim

# --- What is installed, in /opt/taskyard. Only that folder goes further. ---------------------------------------------------
FROM ${BASE} AS packages
# Where pip finds packages, for those who have an index of their own; empty: where it always does.
ARG PIP_INDEX_URL
WORKDIR /build
COPY deploy/images/build.lock deploy/images/run.lock ./
# Wheels alone, each held to its hash: nothing is compiled, and no code of a package runs while it is installed.
RUN python3 -m venv pip \
    && python3 -m venv --without-pip /opt/taskyard \
    && pip/bin/pip install --no-cache-dir --no-deps --require-hashes --only-binary :all: -r build.lock \
    && pip/bin/pip --python /opt/taskyard/bin/python3 install --no-cache-dir --no-deps --require-hashes --only-binary :all: \
        -r run.lock
COPY pyproject.toml LICENSE ./
COPY src src
RUN pip/bin/pip wheel --no-cache-dir --no-deps --no-index --no-build-isolation --wheel-dir wheels . \
    && pip/bin/pip --python /opt/taskyard/bin/python3 install --no-cache-dir --no-deps --no-index wheels/*.whl

# The same without uv, which makes up more than half of it: only executors build environments.
FROM packages AS packages-without-uv
RUN pip/bin/pip --python /opt/taskyard/bin/python3 uninstall --yes uv

# --- What the three images share. -----------------------------------------------------------------------------------------
FROM ${BASE} AS base
ARG VERSION=0.1.0
LABEL org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.licenses="Apache-2.0"
# The folders are there so that volumes mounted over them begin as that user's.
RUN groupadd --gid 10001 taskyard \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/taskyard --shell /usr/sbin/nologin taskyard \
    && rm -rf /var/log/lastlog /var/log/faillog /etc/passwd- /etc/group- /etc/shadow- /etc/gshadow- \
    && install -d -o taskyard -g taskyard -m 0755 /var/lib/taskyard \
    && install -d -o taskyard -g taskyard -m 0700 /var/lib/taskyard-token
ENV PATH=/opt/taskyard/bin:${PATH}
WORKDIR /var/lib/taskyard
VOLUME /var/lib/taskyard

# --- API Server -----------------------------------------------------------------------------------------------------------
FROM base AS api
LABEL org.opencontainers.image.title="Taskyard API Server"
COPY --from=packages-without-uv /opt/taskyard /opt/taskyard
ENV HOST=0.0.0.0 TASKYARD_DATA_DIR=/var/lib/taskyard
USER 10001:10001
EXPOSE 5001
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s CMD ["taskyard", "ready", "api"]
ENTRYPOINT ["taskyard", "api"]

# --- Service Manager ------------------------------------------------------------------------------------------------------
FROM base AS manager
LABEL org.opencontainers.image.title="Taskyard Service Manager"
COPY --from=packages-without-uv /opt/taskyard /opt/taskyard
ENV HOST=0.0.0.0 TASKYARD_DATA_DIR=/var/lib/taskyard
USER 10001:10001
EXPOSE 5555 5556
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s CMD ["taskyard", "ready", "manager"]
ENTRYPOINT ["taskyard", "manager"]

# --- Executor Node: root, to give each attempt a user of its own; it needs no more of root than compose.yaml leaves it, and
# --- runs as any other user too.
FROM base AS executor
LABEL org.opencontainers.image.title="Taskyard Executor Node"
COPY --from=packages /opt/taskyard /opt/taskyard
# Attempts and environments lie where the users of attempts can reach them; what is the executor's own does not.
# The users are others than those of an executor that runs on the same machine outside: it kills whatever is its users'.
ENV TASKYARD_DATA_DIR=/var/lib/taskyard/own TASKYARD_WORK_DIR=/var/lib/taskyard/work TASKYARD_FIRST_UID=59000 \
    TASKYARD_READY_FILE=/tmp/taskyard-ready
# Which user ids are taken is written there, also where the root file system is read-only: without it attempts run as root.
VOLUME /run/taskyard
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s CMD ["taskyard", "ready", "executor"]
ENTRYPOINT ["taskyard", "executor"]
