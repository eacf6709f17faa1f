"""Pipelines as people write them: their interventions were fixed before any verdict was seen."""

from __future__ import annotations

import asyncio
import collections
import itertools
import queue
import random
import threading
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, as_completed, wait
from typing import TYPE_CHECKING, Any

from lab import REAL_TIME, SHAPES, Knobs, q, run_threads, shape, step, tq, tstep

import otel_pipeline_metrics as opm

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

__all__ = ["REAL_TIME", "SHAPES"]


@shape("ordinary", faster="download parse", limits="permits")
async def crawler_with_a_semaphore(k: Knobs) -> int:
    """A task for each URL; a wrapped semaphore lets eight download."""
    permits = opm.wrap_limit(asyncio.Semaphore(k.limit("permits", 8)), name="permits")
    download, parse = (
        step(k, "download", 0.080, "exponential", kind="fetch"),
        step(k, "parse", 0.006),
    )

    async def one(number: int) -> None:
        async with permits:
            page = await download(number)
        await parse(page)

    await asyncio.gather(*(one(number) for number in range(300)))
    return 300


@shape("ordinary", faster="read transform insert")
def etl_in_chunks(k: Knobs) -> int:
    """Rows are read one by one, transformed, and inserted fifty at a time."""
    read, transform = k.times("read", 0.002), tstep(k, "transform", 0.001)
    insert_s = k.times("insert", 0.120)

    @opm.fetch("read")
    def rows() -> Iterator[int]:
        for number in range(1000):
            time.sleep(read())
            yield number

    @opm.write("insert")
    def insert(batch: list[int]) -> None:
        time.sleep(insert_s())

    batch: list[int] = []
    for row in rows():
        batch.append(transform(row))
        if len(batch) == 50:
            insert(batch)
            batch = []
    return 1000


@shape("ordinary", faster="request save", workers="request")
def requests_as_completed(k: Knobs) -> int:
    """Six threads request; the main thread saves what is done."""
    request, save = tstep(k, "request", 0.060, "exponential", kind="fetch"), tstep(k, "save", 0.004)
    with ThreadPoolExecutor(k.workers("request", 6)) as executor:
        for done in as_completed([executor.submit(request, number) for number in range(300)]):
            save(done.result())
    return 300


@shape("ordinary", faster="split embed upsert", workers="embed")
async def documents_to_vectors(k: Knobs) -> int:  # noqa: C901 - a pipeline as a whole
    """Chunks are collected into batches of sixteen for a model."""
    chunks, batches = q(64, "chunks"), q(4, "batches")
    split, upsert = step(k, "split", 0.030), step(k, "upsert", 0.020, kind="write")
    embed_s, workers = k.times("embed", 0.110), k.workers("embed", 2)

    @opm.process("embed")
    async def embed(batch: list[int]) -> list[int]:
        await asyncio.sleep(embed_s())
        return batch

    async def splitting() -> None:
        for document in range(150):
            await split(document)
            for number in range(12):
                await chunks.put(number)
        await chunks.put(None)

    async def collecting() -> None:
        batch: list[int] = []
        while (chunk := await chunks.get()) is not None:
            batch.append(chunk)
            if len(batch) == 16:
                await batches.put(batch)
                batch = []
        for _ in range(workers):
            await batches.put(None)

    async def embedding() -> None:
        while (batch := await batches.get()) is not None:
            await upsert(await embed(batch))

    await asyncio.gather(splitting(), collecting(), *(embedding() for _ in range(workers)))
    return 150


@shape("ordinary", faster="receive handle delete", workers="handle")
async def messages_in_polls_of_ten(k: Knobs) -> int:
    """A poll brings ten messages; they are handled at a time and then deleted together."""
    receive_s, delete_s = k.times("receive", 0.025), k.times("delete", 0.015)
    handle = step(k, "handle", 0.040, "exponential")
    slots = asyncio.Semaphore(k.workers("handle", 5))

    @opm.fetch("receive")
    async def receive() -> range:
        await asyncio.sleep(receive_s())
        return range(10)

    @opm.write("delete")
    async def delete() -> None:
        await asyncio.sleep(delete_s())

    async def one(number: int) -> None:
        async with slots:
            await handle(number)

    for _ in range(60):
        messages = await receive()
        await asyncio.gather(*map(one, messages))
        await delete()
    return 600


@shape("ordinary", faster="download resize upload", workers="all")
async def images_through_threads(k: Knobs) -> int:
    """Workers download, resize in a thread and upload, one image at a time."""
    download, upload = (
        step(k, "download", 0.030, kind="fetch"),
        step(k, "upload", 0.020, kind="write"),
    )
    resize, images, workers = tstep(k, "resize", 0.045), q(10, "images"), k.workers("all", 4)

    async def work() -> None:
        while (number := await images.get()) is not None:
            await upload(await asyncio.to_thread(resize, await download(number)))

    async def fill() -> None:
        for number in itertools.chain(range(200), [None] * workers):
            await images.put(number)

    await asyncio.gather(fill(), *(work() for _ in range(workers)))
    return 200


@shape("ordinary", faster="poll process commit")
def poll_process_commit(k: Knobs) -> int:
    """The loop of a consumer group."""
    poll_s, commit_s = k.times("poll", 0.018), k.times("commit", 0.010)
    process = tstep(k, "process", 0.0015)

    @opm.fetch("poll")
    def poll() -> range:
        time.sleep(poll_s())
        return range(20)

    @opm.write("commit")
    def commit() -> None:
        time.sleep(commit_s())

    for _ in range(60):
        for record in poll():
            process(record)
        commit()
    return 1200


@shape("ordinary", faster="call store", errors={"without": ("errors",)})
async def retries_with_back_off_inside(k: Knobs) -> int:
    """A call fails three times in ten, and is tried again after a while."""
    rng, times = random.Random(random.random()), k.times("call", 0.020)
    calls, results, store = q(8, "calls"), q(8, "results"), step(k, "store", 0.006, kind="write")

    @opm.process("call")
    async def call(number: int) -> int:
        for attempt in range(4):
            await asyncio.sleep(times())
            if not (k.has("errors") and rng.random() < 0.3):
                break
            opm.current_stage().count_retry("TimeoutError")
            await asyncio.sleep(0.040 * 2**attempt)
        return number

    async def calling() -> None:
        while (number := await calls.get()) is not None:
            await results.put(await call(number))

    async def storing() -> None:
        for _ in range(200):
            await store(await results.get())

    async def fill() -> None:
        for number in itertools.chain(range(200), [None] * 3):
            await calls.put(number)

    await asyncio.gather(fill(), storing(), *(calling() for _ in range(3)))
    return 200


@shape("ordinary", faster="fetch insert", workers="fetch insert", limits="insert")
def threads_that_share_a_connection(k: Knobs) -> int:
    """Four threads insert through one connection, which has a lock that nobody wrapped."""
    permits = k.limit("insert", 1)
    connection: Any = threading.Lock() if permits == 1 else threading.Semaphore(permits)
    jobs, rows = tq(20, "jobs"), tq(20, "rows")
    fetch, insert_s = tstep(k, "fetch", 0.030, kind="fetch"), k.times("insert", 0.012)
    fetches, inserts = k.workers("fetch", 4), k.workers("insert", 4)

    @opm.write("insert")
    def insert(row: int) -> None:
        with connection:
            time.sleep(insert_s())

    def fetching() -> None:
        while (job := jobs.get()) is not None:
            rows.put(fetch(job))

    def fetched() -> None:
        run_threads([fetching] * fetches)
        for _ in range(inserts):
            rows.put(None)

    def inserting() -> None:
        while (row := rows.get()) is not None:
            insert(row)

    def fill() -> None:
        for job in itertools.chain(range(200), [None] * fetches):
            jobs.put(job)

    run_threads([fill, fetched, *[inserting] * inserts])
    return 200


@shape("ordinary", faster="page detail save")
async def pages_and_their_details(k: Knobs) -> int:
    """A page lists twenty things; their details are fetched at a time and saved in turn."""
    page, detail = step(k, "page", 0.060, kind="fetch"), step(k, "detail", 0.050, kind="fetch")
    save = step(k, "save", 0.004, kind="write")
    for number in range(30):
        await page(number)
        for found in await asyncio.gather(*(detail(item) for item in range(20))):
            await save(found)
    return 600


@shape("ordinary", faster="list hash", workers="list hash")
def folders_and_files(k: Knobs) -> int:
    """One thread lists folders; three hash the files; a plain queue lies between."""
    files: queue.Queue[Any] = queue.Queue(50)
    list_s, hash_, hashes = k.times("list", 0.060), tstep(k, "hash", 0.020), k.workers("hash", 3)
    lists = k.workers("list", 1)
    folders = collections.deque(range(60))

    @opm.fetch("list")
    def listed(folder: int) -> range:
        time.sleep(list_s())
        return range(8)

    def listing() -> None:
        while folders:
            for file in listed(folders.popleft()):
                files.put(file)

    def all_listed() -> None:
        run_threads([listing] * lists)
        for _ in range(hashes):
            files.put(None)

    def hashing() -> None:
        while (file := files.get()) is not None:
            hash_(file)

    run_threads([all_listed, *[hashing] * hashes])
    return 480


@shape("ordinary", faster="render send", workers="render send", limits="quota")
async def mails_with_a_quota(k: Knobs) -> int:
    """The provider takes forty a second: a rate limit that is wrapped."""

    class Quota:
        def __init__(self, rate: float) -> None:
            self._gap_s, self._free_at = 1 / rate, 0.0

        async def acquire(self) -> None:
            now = asyncio.get_running_loop().time()
            begin = max(now, self._free_at)
            self._free_at = begin + self._gap_s
            await asyncio.sleep(begin - now)

    quota = opm.wrap_limit(Quota(k.limit("quota", 40)), name="quota")
    mails, sent_s = q(10, "mails"), k.times("send", 0.050)
    render, renders, sends = step(k, "render", 0.012), k.workers("render", 1), k.workers("send", 6)
    left = iter(range(250))

    @opm.write("send")
    async def send(mail: int) -> None:
        await quota.acquire()
        await asyncio.sleep(sent_s())

    async def rendering() -> None:
        for number in left:
            await mails.put(await render(number))

    async def rendered() -> None:
        await asyncio.gather(*(rendering() for _ in range(renders)))
        for _ in range(sends):
            await mails.put(None)

    async def sending() -> None:
        while (mail := await mails.get()) is not None:
            await send(mail)

    await asyncio.gather(rendered(), *(sending() for _ in range(sends)))
    return 250


@shape("ordinary", faster="lookup enrich index", workers="lookup enrich index")
async def enrich_what_the_cache_lacks(k: Knobs) -> int:  # noqa: C901 - a pipeline as a whole
    """Seven in ten are in the cache; the rest is enriched by a slow service."""
    events, misses, docs = q(20, "events"), q(20, "misses"), q(20, "docs")
    lookup, enrich = step(k, "lookup", 0.004), step(k, "enrich", 0.060, "exponential")
    index = step(k, "index", 0.007, kind="write")
    counts = {name: k.workers(name, n) for name, n in (("lookup", 1), ("enrich", 2), ("index", 1))}
    rng = random.Random(random.random())
    is_known = [rng.random() < 0.7 for _ in range(400)]

    async def looking() -> None:
        while (number := await events.get()) is not None:
            await lookup(number)
            await (docs if is_known[number] else misses).put(number)

    async def enriching() -> None:
        while (number := await misses.get()) is not None:
            await docs.put(await enrich(number))

    async def indexing() -> None:
        while (number := await docs.get()) is not None:
            await index(number)

    async def each(name: str, work: Any, sink: Any, following: int) -> None:
        await asyncio.gather(*(work() for _ in range(counts[name])))
        for _ in range(following):
            await sink.put(None)

    async def middle() -> None:
        await each("lookup", looking, misses, counts["enrich"])

    async def fill() -> None:
        for number in itertools.chain(range(400), [None] * counts["lookup"]):
            await events.put(number)

    async def enriched() -> None:
        await asyncio.gather(middle(), each("enrich", enriching, docs, 0))
        for _ in range(counts["index"]):
            await docs.put(None)

    await asyncio.gather(fill(), enriched(), each("index", indexing, docs, 0))
    return 400


@shape("ordinary", faster="read decode write")
async def streams_of_async_generators(k: Knobs) -> int:
    """Async generators, one around the other, and a sink that writes."""
    read_s, decode_s = k.times("read", 0.006), k.times("decode", 0.003)
    write = step(k, "write", 0.008, kind="write")

    @opm.fetch("read")
    async def read() -> AsyncIterator[int]:
        for number in range(300):
            await asyncio.sleep(read_s())
            yield number

    @opm.process("decode")
    async def decode(lines: AsyncIterator[int]) -> AsyncIterator[int]:
        async for number in lines:
            await asyncio.sleep(decode_s())
            yield number

    async for number in decode(read()):
        await write(number)
    return 300


@shape("ordinary", faster="submit run collect", workers="run")
def bounded_futures(k: Knobs) -> int:
    """At most twelve futures at a time; the main thread submits, waits and collects."""
    submit, collect = tstep(k, "submit", 0.003), tstep(k, "collect", 0.005)
    run, left, pending = tstep(k, "run", 0.040), iter(range(300)), set[Future[Any]]()
    with ThreadPoolExecutor(k.workers("run", 4)) as executor:
        while True:
            for number in itertools.islice(left, 12 - len(pending)):
                pending.add(executor.submit(run, submit(number)))
            if not pending:
                return 300
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            for future in done:
                collect(future.result())
