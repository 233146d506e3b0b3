// pg-boss schedules and, unless BEHAVIOR is `nothing`, a worker that runs their jobs. Prints `ready` after the first run.
// READY=start: prints it at once, and has no queue with several schedules.
const { PgBoss } = require('pg-boss');

const { DATABASE, QUEUE, BEHAVIOR, READY } = process.env;
const options = { retryLimit: 0, expireInSeconds: 5 };

(async () => {
  const boss = new PgBoss({ connectionString: DATABASE, cronMonitorIntervalSeconds: 1, cronWorkerIntervalSeconds: 1 });
  boss.on('error', (error) => console.log(error.message));
  await boss.start();
  for (const queue of [QUEUE, `${QUEUE}-nightly`, `${QUEUE}-shared`]) await boss.createQueue(queue, options);
  await boss.schedule(QUEUE, '* * * * *', {});
  await boss.schedule(`${QUEUE}-nightly`, '0 3 * * *', {}, { tz: 'Europe/Berlin' });
  if (READY !== 'start') {
    await boss.schedule(`${QUEUE}-shared`, '* * * * *', {}, { key: 'often' });
    await boss.schedule(`${QUEUE}-shared`, 'RRULE:FREQ=YEARLY;BYMONTH=1;BYMONTHDAY=1', {}, { key: 'rule' });
  }
  if (BEHAVIOR === 'nothing') return console.log('ready');
  const polling = { pollingIntervalSeconds: 0.5 };
  await boss.work(`${QUEUE}-shared`, polling, async () => {});
  await boss.work(QUEUE, polling, async () => {
    setTimeout(() => console.log('ready'), 1000);
    if (BEHAVIOR === 'throw') throw new Error('no address book');
    if (BEHAVIOR === 'hang') await new Promise(() => {});
  });
  if (READY === 'start') console.log('ready');
})();
