"""An APScheduler scheduler with a database job store: a job every second, a nightly one and a paused one."""

from __future__ import annotations

import os
import time

from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
from apscheduler.schedulers.background import BackgroundScheduler

if __name__ == "__main__":
    scheduler = BackgroundScheduler(jobstores={"default": SQLAlchemyJobStore(url=os.environ["DATABASE"])})
    scheduler.add_job(time.monotonic, "interval", seconds=1, id="digest", replace_existing=True)
    scheduler.add_job(time.monotonic, "cron", hour=3, id="nightly", replace_existing=True)
    scheduler.add_job(time.monotonic, "interval", seconds=1, id="paused", replace_existing=True, next_run_time=None)
    scheduler.start()
    print("ready", flush=True)
    time.sleep(600)
