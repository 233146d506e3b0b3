// BullMQ job schedulers and, unless BEHAVIOR is `nothing`, a worker that runs their jobs.
const { Queue, Worker } = require('bullmq');

const { REDIS, QUEUE, BEHAVIOR, KEEP, FINITE } = process.env; // FINITE: the end of a third scheduler
const url = new URL(REDIS);
const connection = { host: url.hostname, port: Number(url.port), maxRetriesPerRequest: null };
const opts = { removeOnComplete: KEEP !== 'yes', removeOnFail: !KEEP }; // KEEP: 'yes', 'failed', or nothing

(async () => {
  const queue = new Queue(QUEUE, { connection });
  await queue.upsertJobScheduler('digest', { every: 1000 }, { name: 'digest', data: {}, opts });
  await queue.upsertJobScheduler('nightly', { pattern: '0 3 * * *', tz: 'Europe/Berlin' }, { name: 'nightly', opts });
  if (FINITE) {
    const { endsInMs, ...fields } = JSON.parse(FINITE);
    if (endsInMs) fields.endDate = Date.now() + endsInMs;
    await queue.upsertJobScheduler('finite', { every: 500, ...fields }, { name: 'finite', opts });
  }
  let runs = 0;
  if (BEHAVIOR !== 'nothing') {
    const worker = new Worker(
      QUEUE,
      async () => {
        runs += 1;
        if (runs === 2) setTimeout(() => console.log('ready'), 100);
        if (BEHAVIOR === 'throw') throw new Error('no address book');
        if (BEHAVIOR === 'hang' && runs === 2) await new Promise(() => {});
      },
      { connection, concurrency: 1 },
    );
    await worker.waitUntilReady();
  } else {
    console.log('ready');
  }
})();
