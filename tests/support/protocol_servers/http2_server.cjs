// An HTTP/2 server that is no gRPC server: it responds with a page and the status of the environment variable STATUS, and
// writes the head of a request to the file REQUEST_FILE.
const fs = require("node:fs");
const http2 = require("node:http2");

const server = http2.createServer();
server.on("stream", (stream, headers) => {
  if (process.env.REQUEST_FILE) fs.writeFileSync(process.env.REQUEST_FILE, JSON.stringify(headers));
  stream.respond({ ":status": Number(process.env.STATUS || 200), "content-type": "text/html" });
  stream.end("<h1>Welcome</h1>");
});
server.listen(Number(process.argv[2]), "127.0.0.1");
process.on("SIGTERM", () => process.exit(0));
