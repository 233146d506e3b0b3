// A worker on one queue of BullMQ. What a job does is said by the environment: return, throw, hang, or stall at 40 of 100.
const { Queue, Worker } = require('bullmq');

const { REDIS, QUEUE, DOES, CONCURRENCY } = process.env;
const url = new URL(REDIS);
const connection = { host: url.hostname, port: Number(url.port), maxRetriesPerRequest: null };

(async () => {
  const queue = new Queue(QUEUE, { connection });
  await queue.waitUntilReady();
  if (DOES !== 'nothing') {
    const worker = new Worker(
      QUEUE,
      async (job) => {
        if (DOES === 'throw') throw new Error(`no template for ${job.name}`);
        if (DOES === 'stall') await job.updateProgress({ progress: 40, total: 100 });
        if (DOES === 'hang' || DOES === 'stall') await new Promise(() => {});
        await job.updateProgress(50);
        return { seen: job.data };
      },
      { connection, concurrency: Number(CONCURRENCY || 1), lockDuration: 5000 },
    );
    await worker.waitUntilReady();
  }
  console.log('ready');
})();
