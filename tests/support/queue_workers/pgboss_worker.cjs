// A pg-boss worker for one queue. BEHAVIOR of its jobs: return, throw (an error), refuse (another value),
// hang, or slow (5 s).
const { PgBoss } = require('pg-boss');

const { DATABASE, SCHEMA, QUEUE, BEHAVIOR, CONCURRENCY, OPTIONS, LISTENS } = process.env;

(async () => {
  const schema = SCHEMA || 'pgboss';
  const boss = new PgBoss({ connectionString: DATABASE, schema, useListenNotify: Boolean(LISTENS) });
  boss.on('error', (error) => console.log(error.message));
  await boss.start();
  await boss.createQueue(QUEUE, JSON.parse(OPTIONS || '{}'));
  if (BEHAVIOR !== 'nothing') {
    const options = { pollingIntervalSeconds: LISTENS ? 30 : 0.5, localConcurrency: Number(CONCURRENCY || 1) };
    await boss.work(QUEUE, options, async ([job]) => {
      if (BEHAVIOR === 'throw') throw new Error(`no template for ${JSON.stringify(job.data)}`);
      if (BEHAVIOR === 'refuse') throw { code: 7 };
      if (BEHAVIOR === 'hang') await new Promise(() => {});
      if (BEHAVIOR === 'slow') await new Promise((resolve) => setTimeout(resolve, 5000));
      return { received: job.data };
    });
  }
  console.log('ready');
})();
