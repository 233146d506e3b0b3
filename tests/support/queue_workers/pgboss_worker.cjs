// A worker on one queue of pg-boss. What a job does is said by the environment: return, throw, or hang.
const { PgBoss } = require('pg-boss');

const { DATABASE, SCHEMA, QUEUE, DOES, CONCURRENCY, OPTIONS, LISTENS } = process.env;

(async () => {
  const schema = SCHEMA || 'pgboss';
  const boss = new PgBoss({ connectionString: DATABASE, schema, useListenNotify: Boolean(LISTENS) });
  boss.on('error', (error) => console.log(error.message));
  await boss.start();
  await boss.createQueue(QUEUE, JSON.parse(OPTIONS || '{}'));
  if (DOES !== 'nothing') {
    const options = { pollingIntervalSeconds: LISTENS ? 30 : 0.5, localConcurrency: Number(CONCURRENCY || 1) };
    await boss.work(QUEUE, options, async ([job]) => {
      if (DOES === 'throw') throw new Error(`no template for ${JSON.stringify(job.data)}`);
      if (DOES === 'refuse') throw { code: 7 };
      if (DOES === 'hang') await new Promise(() => {});
      return { seen: job.data };
    });
  }
  console.log('ready');
})();
