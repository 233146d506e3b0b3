// An MCP server on the TypeScript SDK whose jobs go through BullMQ. The tool export_data starts a job and returns its id;
// the resource job:{id} returns its state. health_check_job starts a job, reports its progress and returns when the job
// has ended. health_check returns the scheduled tasks from the hash QUEUE:tasks.
// It serves streamable HTTP on PORT, where /health reports the queue; without PORT, standard input and output.
const { randomUUID } = require('node:crypto');
const http = require('node:http');
const { Queue } = require('bullmq');
const { Redis } = require('ioredis');
const { McpServer, ResourceTemplate } = require('@modelcontextprotocol/sdk/server/mcp.js');
const { StdioServerTransport } = require('@modelcontextprotocol/sdk/server/stdio.js');
const { StreamableHTTPServerTransport } = require('@modelcontextprotocol/sdk/server/streamableHttp.js');
const { z } = require('zod');

const url = new URL(process.env.REDIS);
const connection = { host: url.hostname, port: Number(url.port), maxRetriesPerRequest: 1, retryStrategy: () => 200 };
const queue = new Queue(process.env.QUEUE, { connection });
queue.on('error', () => {});
const records = new Redis(process.env.REDIS, { lazyConnect: true });

const answer = (value) => ({ content: [{ type: 'text', text: JSON.stringify(value) }], structuredContent: value });
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// Limits the wait: BullMQ's client waits for its broker without a limit.
async function startJob(name, data) {
  let timer;
  const timeout = new Promise((_, reject) => {
    timer = setTimeout(reject, Number(process.env.ADD_WITHIN_MS ?? 20000), new Error('Redis gives no answer'));
  });
  return Promise.race([queue.add(name, data), timeout]).finally(() => clearTimeout(timer));
}

async function readJob(id) {
  const status = await queue.getJobState(id); // read before the job, so that the job has the reason of that state
  const job = await queue.getJob(id);
  if (!job) throw new Error(`no job ${id}`);
  return { job_id: id, status, progress: job.progress, failedReason: job.failedReason };
}

function createServer() {
  const server = new McpServer({ name: 'Exporter', version: '1.0.0' });
  const format = z.string().default('csv');
  server.registerTool('export_data', { inputSchema: { format, key: z.string().optional() } }, async ({ format, key }) => {
    const job = await startJob('export', { format, key });
    return answer({ job_id: job.id, poll_resource: `job:${job.id}` });
  });
  server.registerTool('health_check_job', { inputSchema: {} }, async (_, extra) => {
    const job = await startJob('health', {});
    const progressToken = extra._meta?.progressToken;
    for (let last; ; await pause(50)) {
      const now = await readJob(job.id);
      if (now.status === 'completed') return answer({ ok: true, job_id: job.id });
      if (now.status === 'failed') throw new Error(now.failedReason);
      const progress = typeof now.progress === 'object' ? now.progress : { progress: now.progress };
      if (progressToken !== undefined && now.status === 'active' && JSON.stringify(progress) !== last) {
        await extra.sendNotification({ method: 'notifications/progress', params: { progressToken, ...progress } });
        last = JSON.stringify(progress);
      }
    }
  });
  server.registerTool('health_check', { inputSchema: {} }, async () => {
    const tasks = Object.values(await records.hgetall(`${queue.name}:tasks`))
      .map((record) => JSON.parse(record))
      .map((task) => ({ ...task, staleness_ms: task.last_run_at && Date.now() - task.last_run_at }));
    return answer({ healthy: tasks.every((task) => task.ok), tasks });
  });
  server.registerResource('job', new ResourceTemplate('job:{id}', { list: undefined }), {}, async (uri, { id }) => ({
    contents: [{ uri: uri.href, mimeType: 'application/json', text: JSON.stringify(await readJob(id)) }],
  }));
  return server;
}

const sessions = new Map();

async function health(response) {
  const { waiting, failed } = await queue.getJobCounts('waiting', 'failed');
  const healthy = failed <= 50 && waiting <= 200;
  response.writeHead(healthy ? 200 : 503, { 'content-type': 'application/json' });
  response.end(JSON.stringify({ status: healthy ? 'ok' : 'overloaded', queue: { waiting, failed } }));
}

async function serve(request, response) {
  if (request.url === '/health') return health(response);
  let transport = sessions.get(request.headers['mcp-session-id']);
  if (!transport) {
    transport = new StreamableHTTPServerTransport({
      sessionIdGenerator: randomUUID,
      onsessioninitialized: (id) => sessions.set(id, transport),
    });
    await createServer().connect(transport);
  }
  await transport.handleRequest(request, response);
}

if (process.env.PORT) {
  http.createServer(serve).listen(Number(process.env.PORT), '127.0.0.1', () => console.log('ready'));
} else {
  createServer().connect(new StdioServerTransport());
}
