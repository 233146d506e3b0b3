// A WebSocket server of the package ws: PORT [PEM file with certificate and key]. It answers each message with "echo: "
// and the message, after it has greeted with the path. /closed: it closes with code 4401.
const fs = require("node:fs");
const http = require("node:http");
const https = require("node:https");
const { WebSocketServer } = require("ws");

const [port, pemFile] = process.argv.slice(2);
const pem = pemFile ? fs.readFileSync(pemFile) : null;
const server = pem ? https.createServer({ key: pem, cert: pem }) : http.createServer();
const sockets = new WebSocketServer({ server, handleProtocols: (offered) => (offered.has("chat.v2") ? "chat.v2" : false) });
sockets.on("connection", (socket, request) => {
  if (request.url === "/closed") {
    socket.close(4401, "token expired");
    return;
  }
  socket.send(`path ${request.url}`);
  socket.on("message", (data, isBinary) => socket.send(isBinary ? data : `echo: ${data}`));
});
server.listen(Number(port), "127.0.0.1");
process.on("SIGTERM", () => process.exit(0));
