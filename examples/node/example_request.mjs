/**
 * A client of ../example_broker.py: one notification, which nobody answers, and one call.
 *
 *     node example_request.mjs
 *
 * The broker is amqp://localhost, or what the environment has as AMQP_URL.
 */

import { Client } from './jsonrpc_amqp.mjs';

const client = new Client(process.env.AMQP_URL ?? 'amqp://localhost', { service: 'example', timeout: 5_000 });
try {
  await client.notify('log.write', { line: 'example_request asks for the time' });
  const { msg } = await client.call('time.now');
  console.log(msg);
} finally {
  await client.close();
}
