// A BullMQ worker for one queue. BEHAVIOR of its jobs: return, throw, hang, slow (5 s), or stall at 40 of 100.
const { Queue, Worker } = require('bullmq');

const { REDIS, QUEUE, BEHAVIOR, CONCURRENCY } = process.env;
const url = new URL(REDIS);
const connection = { host: url.hostname, port: Number(url.port), maxRetriesPerRequest: null };

(async () => {
  const queue = new Queue(QUEUE, { connection });
  await queue.waitUntilReady();
  if (BEHAVIOR !== 'nothing') {
    const worker = new Worker(
      QUEUE,
      async (job) => {
        if (BEHAVIOR === 'throw') throw new Error(`no template for ${job.name}`);
        if (BEHAVIOR === 'stall') await job.updateProgress({ progress: 40, total: 100 });
        if (BEHAVIOR === 'hang' || BEHAVIOR === 'stall') await new Promise(() => {});
        if (BEHAVIOR === 'slow') await new Promise((resolve) => setTimeout(resolve, 5000));
        await job.updateProgress(50);
        return { received: job.data };
      },
      { connection, concurrency: Number(CONCURRENCY || 1), lockDuration: 5000 },
    );
    await worker.waitUntilReady();
  }
  console.log('ready');
})();
