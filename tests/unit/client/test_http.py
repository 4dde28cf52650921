from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import httpx2
import pytest

from taskyard import AsyncClient, Conflict, InvalidInput, NotFound, TaskyardError, Unauthorized, Unavailable
from taskyard.errors import NameTaken, StorageFull, TooLarge
from taskyard.settings import ClientSettings
from tests.certificates import make_certificate
from tests.unit.client.scripted import ScriptedApi, problem


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [(404, "not_found", NotFound), (409, "name_taken", NameTaken), (507, "storage_full", StorageFull)],
)
async def test_a_problem_becomes_the_error_of_its_code(
    client: AsyncClient, api: ScriptedApi, status: int, code: str, kind: type[TaskyardError]
) -> None:
    api.on("GET /tasks/hello", problem(status, code, "do this instead"))
    with pytest.raises(kind) as caught:
        await client.get("hello")
    assert type(caught.value) is kind
    assert caught.value.message == "do this instead"


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, Unauthorized), (409, Conflict), (413, TooLarge), (502, Unavailable), (418, TaskyardError)],
)
async def test_the_answer_of_a_proxy_becomes_the_error_of_its_status(
    client: AsyncClient, api: ScriptedApi, status: int, kind: type[TaskyardError]
) -> None:
    api.on("GET /tasks/hello", httpx2.Response(status, text="<html>"))
    with pytest.raises(kind, match=str(status)) as caught:
        await client.get("hello")
    assert type(caught.value) is kind


async def test_a_refused_token_is_told_where_it_came_from(client: AsyncClient, api: ScriptedApi) -> None:
    api.on("GET /tasks/hello", problem(401, "unauthorized", "wrong token"))
    with pytest.raises(Unauthorized, match=r"^wrong token \(the token that was sent: the one that was given\)$"):
        await client.get("hello")


async def test_whoever_has_no_token_is_told_how_to_give_one(tmp_path: Path, api: ScriptedApi) -> None:
    refused = problem(401, "unauthorized", "send the header 'Authorization: Bearer TOKEN'")
    api.on("GET /tasks/hello", refused, refused)
    settings = ClientSettings(data_dir=tmp_path)
    for url, said in (
        ("http://127.0.0.1:1", f"set TASKYARD_USER_TOKEN to it, or give --data-dir, as there is none in {tmp_path}"),
        ("http://taskyard.example", "set TASKYARD_USER_TOKEN to it, as the data directory's is for loopback"),
    ):
        async with AsyncClient(url, settings=settings, transport=api) as client:
            with pytest.raises(Unauthorized) as caught:
                await client.get("hello")
        assert said in caught.value.message
        assert "header" not in caught.value.message


@pytest.mark.parametrize(
    ("failure", "sentence"),
    [
        (httpx2.ConnectError("refused"), "no API Server can be reached at http://127.0.0.1:1 .*--url or TASKYARD_URL"),
        (httpx2.ReadTimeout("slow"), "did not answer in time"),
        (httpx2.DecodingError("bad"), "broke"),
    ],
)
async def test_every_failure_of_the_network_is_unavailable(
    client: AsyncClient, api: ScriptedApi, failure: Exception, sentence: str
) -> None:
    api.on("GET /tasks/hello", failure)
    with pytest.raises(Unavailable, match=sentence):
        await client.get("hello")


async def test_a_certificate_that_is_not_trusted_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    made = make_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.certificate, made.key)

    async def served(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(served, "127.0.0.1", 0, ssl=context) as server:
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with AsyncClient(url, token="t", patience=0.0) as client:
            with pytest.raises(
                Unavailable, match=rf"certificate of {url} is not trusted \(self.signed .*SSL_CERT_FILE"
            ):
                await client.get("hello")


async def test_a_get_is_repeated_once(client: AsyncClient, api: ScriptedApi) -> None:
    api.on("GET /tasks/hello", httpx2.ReadError("reset"), httpx2.ReadError("reset"))
    with pytest.raises(Unavailable):
        await client.get("hello")
    assert len(api.requests) == 2


@pytest.mark.parametrize("url", ["nonsense", "ftp://host", "http://", "http://host:port"])
def test_a_wrong_address_is_told(url: str) -> None:
    with pytest.raises(InvalidInput, match="is no address of an API Server"):
        AsyncClient(url)


async def test_a_path_below_the_root_is_kept(api: ScriptedApi) -> None:
    api.on("GET /taskyard/api/v2/tasks/hello", problem(404, "not_found", "none"))
    async with AsyncClient("https://host.example/taskyard/", token="t", transport=api) as client:
        with pytest.raises(NotFound):
            await client.get("hello")


@pytest.mark.parametrize("url", ["http://[::1", "\udcff", "http://\udcff", "", "host:1", "ftp://x", "http://"])
def test_what_is_no_address_of_an_api_server(url: str) -> None:
    settings = ClientSettings(url=url)
    for token in ("x", None):
        with pytest.raises(InvalidInput, match="is no address of an API Server"):
            AsyncClient(token=token, settings=settings)


async def test_what_is_no_text_can_be_a_name_and_is_no_parameter(client: AsyncClient, api: ScriptedApi) -> None:
    api.on("GET /tasks/%FF", problem(404, "not_found", "there is no such task"))
    with pytest.raises(NotFound):
        await client.get("\udcff")
    with pytest.raises(InvalidInput, match="cannot be sent"):
        [task async for task in client.list(name_prefix="\udcff")]
