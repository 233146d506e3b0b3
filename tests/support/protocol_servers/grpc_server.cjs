// A gRPC server on Node.js: PORT [PEM file with certificate and key]. The services are those of grpc_health.py.
// With NO_HEALTH set, it has no health service.
const fs = require("node:fs");
const grpc = require("@grpc/grpc-js");
const { HealthImplementation } = require("grpc-health-check");

const [port, pemFile] = process.argv.slice(2);
const server = new grpc.Server();
if (!process.env.NO_HEALTH) {
  new HealthImplementation({ "": "SERVING", down: "NOT_SERVING", starting: "UNKNOWN" }).addToServer(server);
}
const pem = pemFile ? fs.readFileSync(pemFile) : null;
const credentials = pem
  ? grpc.ServerCredentials.createSsl(null, [{ private_key: pem, cert_chain: pem }])
  : grpc.ServerCredentials.createInsecure();
server.bindAsync(`127.0.0.1:${port}`, credentials, (error) => {
  if (error) throw error;
});
process.on("SIGTERM", () => server.forceShutdown());
