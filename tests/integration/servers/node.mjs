// The contract of tests/integration/test_exchange_servers.py in Node. node node.mjs PORT
import http from "node:http";

const routes = {
  "/count": (request, response, length) => response.end(`${length} ${request.socket.remotePort}`),
  "/chunked": (_request, response) => {
    response.write("part one, ");
    setImmediate(() => response.end("part two"));
  },
  "/busy": (_request, response) => response.writeHead(503, { "Retry-After": "7" }).end(),
  "/none": (_request, response) => response.writeHead(204).end(),
  "/gone": (_request, response) => response.writeHead(410).end("gone"),
  "/moved": (_request, response) => response.writeHead(302, { Location: "/count" }).end(),
  "/close": (_request, response) => response.writeHead(200, { Connection: "close" }).end("bye"),
  "/hints": (_request, response) =>
    response.writeEarlyHints({ link: "</style.css>; rel=preload" }, () => response.end("hinted")),
  "/broken": (_request, response) => {
    response.writeHead(200, { "Content-Length": "100" });
    response.write("not a hundred", () => response.socket.destroy());
  },
};

const server = http.createServer((request, response) => {
  let length = 0;
  request.on("data", (chunk) => (length += chunk.length));
  request.on("end", () => routes[request.url](request, response, length));
});
server.listen(Number(process.argv[2]), "127.0.0.1");
