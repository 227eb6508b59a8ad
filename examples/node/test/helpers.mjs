/** What the tests of the client stand on: the broker, services of their own, and a wire that can be cut. */

import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import net from 'node:net';

import amqplib from 'amqplib';

import { Client } from '../jsonrpc_amqp.mjs';

export const url = process.env.AMQP_URL ?? 'amqp://localhost';
export const service = process.env.SERVICE ?? 'conformance';

/** A connection to the broker, or an error that says what to do: without a broker the tests fail. */
export async function connectToBroker() {
  try {
    return await amqplib.connect(url);
  } catch (error) {
    const { host } = new URL(url);
    const reason = error.message || error.code;
    throw new Error(`No broker at ${host} (${reason}). Start RabbitMQ and set AMQP_URL; see README.md.`);
  }
}

/** The Python service must run, too. */
export async function checkServiceRuns() {
  const client = new Client(url, { service, timeout: 10_000 });
  try {
    await client.call('get_data');
  } catch (error) {
    throw new Error(`Service ${service} does not answer (${error.message}). Start it; see README.md.`);
  } finally {
    await client.close();
  }
}

/** A client that is closed when its test ends. */
export function newClient(t, options, at = url) {
  const client = new Client(at, { service, timeout: 20_000, ...options });
  t.after(() => client.close());
  return client;
}

/**
 * A service whose every request is handed to `receive`, to see what is on the wire and to answer what no server would.
 * Its queue is gone with the connection.
 */
export async function newService(connection, receive, queueArguments) {
  const name = `node-test-${randomUUID()}`;
  const channel = await connection.createChannel();
  await channel.assertExchange('jsonrpc', 'topic', { durable: true });
  await channel.assertQueue(`${name}_req`, { exclusive: true, arguments: queueArguments });
  await channel.bindQueue(`${name}_req`, 'jsonrpc', `${name}.request.#`);
  const answer = ({ fields, properties }, body) => {
    const key = fields.routingKey.replace(`${name}.request.`, `${name}.response.`);
    channel.publish('jsonrpc', key, Buffer.from(body), { correlationId: properties.correlationId });
  };
  if (receive) await channel.consume(`${name}_req`, (message) => receive(message, answer), { noAck: true });
  return name;
}

/** A service that keeps its requests; `received` gives them in their order, and waits for the next. */
export async function newSilentService(connection) {
  const waiting = [];
  const messages = [];
  let answer;
  const name = await newService(connection, (message, answerer) => {
    answer = answerer;
    const next = waiting.shift();
    if (next) next(message);
    else messages.push(message);
  });
  const received = async () => messages.shift() ?? new Promise((resolve) => waiting.push(resolve));
  return { name, received, answer: (message, body) => answer(message, body) };
}

/** A wire to the broker that can be cut or go silent for a while, and that can say what the broker does not. */
export async function newWire(t) {
  const broker = new URL(url);
  const near = new Set();
  /** @type {(() => void)[] | undefined} what is held back while it is silent */
  let held;
  const server = net.createServer((socket) => {
    const far = net.connect(Number(broker.port) || 5672, broker.hostname || 'localhost');
    near.add(socket);
    for (const [one, other] of [
      [socket, far],
      [far, socket],
    ]) {
      one.on('data', (bytes) => (held ? held.push(() => other.write(bytes)) : other.write(bytes)));
      one.on('error', () => {});
      one.on('close', () => other.destroy());
    }
    socket.on('close', () => near.delete(socket));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const cut = () => near.forEach((socket) => socket.destroy());
  t.after(() => {
    server.close();
    cut();
  });
  const here = new URL(url);
  here.hostname = '127.0.0.1';
  here.port = server.address().port;
  return {
    url: here.href,
    cut,
    stop: () => server.close(),
    silence: () => (held = []),
    speak: () => {
      held.forEach((write) => write());
      held = undefined;
    },
    say: (bytes) => near.forEach((socket) => socket.write(bytes)),
  };
}

/** A port that takes connections and says nothing. */
export async function newSilentPort(t) {
  const sockets = new Set();
  const server = net.createServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => {});
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => {
    server.close();
    sockets.forEach((socket) => socket.destroy());
  });
  return `amqp://127.0.0.1:${server.address().port}`;
}
