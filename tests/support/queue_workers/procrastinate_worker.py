"""A Procrastinate worker for one queue; with BEHAVIOR=nothing it only creates the tables."""

from __future__ import annotations

import asyncio
import os

import procrastinate

connector = procrastinate.PsycopgConnector(conninfo=os.environ["DATABASE"])
app = procrastinate.App(connector=connector)
LATER = procrastinate.RetryStrategy(max_attempts=5, wait=60)


@app.task(name="throw")
async def throw() -> None:
    raise ValueError("no template")


@app.task(name="retry_later", retry=LATER)
async def retry_later() -> None:
    raise ValueError("not yet")


@app.task(name="hang")
async def hang() -> None:
    await asyncio.sleep(3600)


@app.task(name="slow")
async def slow() -> None:
    await asyncio.sleep(5)


@app.task(name="echo")
async def echo(name: str) -> str:
    return name


if behavior := os.environ.get("PERIODIC"):

    @app.periodic(cron="* * * * * *")
    @app.task(name="digest", queue=os.environ["QUEUE"], retry=LATER if behavior == "retry" else False)
    async def digest(timestamp: int) -> None:
        if behavior in ("throw", "retry"):
            raise ValueError("no address book")
        if behavior == "hang":
            await asyncio.sleep(3600)


if arguments := os.environ.get("PERIODIC_IDS"):  # one task under two ids, with the same arguments or others

    @app.task(name="export", queue=os.environ["QUEUE"])
    async def export(timestamp: int, region: str = "") -> None:
        if region == "eu":
            raise ValueError("no address book")

    for region in ("eu", "us"):
        kwargs: dict[str, procrastinate.types.JSONValue] = {"region": region} if arguments == "others" else {}
        app.periodic(cron="* * * * * *", periodic_id=region, task_kwargs=kwargs)(export)


async def main() -> None:
    async with app.open_async():
        if not await app.check_connection_async():
            await app.schema_manager.apply_schema_async()
        print("ready", flush=True)
        if os.environ.get("BEHAVIOR") != "nothing":
            await app.run_worker_async(
                queues=[os.environ.get("QUEUE_OF_WORKER", os.environ["QUEUE"])], fetch_job_polling_interval=0.5,
                delete_jobs=os.environ.get("DELETES", "never"),
            )  # fmt: skip


if __name__ == "__main__":
    asyncio.run(main())
