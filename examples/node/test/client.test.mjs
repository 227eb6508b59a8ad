/** The client against the broker at AMQP_URL and the Python service SERVICE, examples/conformance_service.py. */

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { after, describe, test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';

import {
  Blocked,
  CallTimeout,
  Client,
  ClientClosed,
  ConnectionLost,
  InvalidArgument,
  MalformedReply,
  NotConnected,
  Overloaded,
  Refused,
  RemoteError,
  Unroutable,
} from '../jsonrpc_amqp.mjs';
import {
  checkServiceRuns,
  connectToBroker,
  newClient,
  newService,
  newSilentPort,
  newSilentService,
  newWire,
  service,
  url,
} from './helpers.mjs';

const broker = await connectToBroker();
await checkServiceRuns().catch(async (error) => {
  await broker.close();
  throw error;
});

const fails = (type, mayHaveRun) => (error) => {
  assert.ok(error instanceof type, `${error} is no ${type.name}`);
  assert.equal(error.name, type.name);
  if (mayHaveRun !== undefined) {
    assert.equal(error.mayHaveRun, mayHaveRun);
    assert.match(error.message, mayHaveRun ? /the method may have run$/ : /the method has not run$/);
  }
  return true;
};
const failsWithCode = (code) => (error) => fails(RemoteError)(error) && error.code === code;

const milliseconds = async (work) => {
  const begin = performance.now();
  await work();
  return performance.now() - begin;
};

describe('against the Python server', () => {
  test('a call with params by position and by name, and without', async (t) => {
    const client = newClient(t);
    assert.equal(await client.call('subtract', [42, 23]), 19);
    assert.equal(await client.call('subtract', { subtrahend: 23, minuend: 42 }), 19);
    assert.deepEqual(await client.call('get_data'), ['hello', 5]);
    assert.equal(await client.call('update', [1, 2]), null);
  });

  test('ids of every kind', async (t) => {
    const client = newClient(t);
    for (const id of ['q538', '1', '', 'a.b', 'ü', 'x'.repeat(65), null, 0, -5, 1.5, 1e21, 2n ** 64n, 10n ** 70n]) {
      assert.equal(await client.call('sum', [1, 2], { id }), 3);
    }
  });

  test('an error of the method, with data', async (t) => {
    await assert.rejects(newClient(t).call('refuse'), (error) => {
      assert.ok(error instanceof RemoteError);
      assert.equal(error.code, 1);
      assert.equal(error.message, 'not today');
      assert.deepEqual(error.data, { when: 'tomorrow' });
      return true;
    });
  });

  test('errors of the server', async (t) => {
    const client = newClient(t);
    await assert.rejects(client.call('no.such.method'), failsWithCode(-32601));
    await assert.rejects(client.call('subtract', [1]), failsWithCode(-32602));
    await assert.rejects(client.call('fail'), (error) => {
      assert.equal(error.code, -32603);
      assert.doesNotMatch(JSON.stringify(error) + error.message, /this text stays here/);
      return true;
    });
  });

  test('a notification is confirmed and runs', async (t) => {
    const client = newClient(t);
    const words = [randomUUID(), randomUUID()];
    assert.equal(await client.notify('notify_hello', [words[0]]), undefined);
    assert.deepEqual(await client.batch([{ method: 'notify_hello', params: [words[1]], notification: true }]), []);
    const wereTold = async () => {
      const told = await client.call('was_told');
      return words.every((word) => told.includes(word));
    };
    // Several requests run at once in the server, so it may take a moment.
    for (let round = 0; !(await wereTold()); round++) {
      assert.ok(round < 500, 'the notifications were confirmed but did not run');
      await pause(20);
    }
  });

  test('a batch', async (t) => {
    const client = newClient(t);
    const word = randomUUID();
    const outcomes = await client.batch([
      { method: 'sum', params: [1, 2, 4] },
      { method: 'notify_hello', params: [word], notification: true },
      { method: 'refuse' },
      { method: 'subtract', params: { minuend: 1, subtrahend: 2 } },
      { method: 'was_told' },
    ]);
    assert.deepEqual(
      outcomes.map(({ status, value, reason }) => (status === 'fulfilled' ? value : reason.code)).slice(0, 3),
      [7, 1, -1],
    );
    assert.ok(outcomes[3].value.includes(word));
  });

  test('a batch that is refused as a whole', async (t) => {
    const outcomes = await newClient(t).batch(Array(1001).fill({ method: 'get_data' }));
    assert.equal(outcomes.length, 1001);
    for (const { reason } of outcomes) assert.equal(reason.code, -32600);
  });

  test('the end of a call that takes too long', async (t) => {
    const client = newClient(t);
    await client.call('get_data');
    const took = await milliseconds(() =>
      assert.rejects(client.call('sleep', [1], { timeout: 200 }), fails(CallTimeout, true)),
    );
    assert.ok(took >= 199 && took < 900, `it took ${took} ms`);
    // While the late answer comes, the client goes on.
    for (let number = 0; number < 20; number++) {
      assert.equal(await client.call('echo', [number]), number);
      await pause(50);
    }
  });

  test('text of all alphabets', async (t) => {
    const client = newClient(t);
    const text = 'grüße, ελ, 日本, 🐇, "quoted", back\\slash, \u0000\u001f\u2028';
    assert.equal(await client.call('echo', [text]), text);
    assert.deepEqual(await client.call('echo', { value: { [text]: [text] } }), { [text]: [text] });
    await assert.rejects(client.call(text), failsWithCode(-32601));
  });

  test('a body of 2 MB', async (t) => {
    const client = newClient(t);
    const large = 'ü"'.repeat(700_000);
    assert.equal(await client.call('echo', [large]), large);
  });

  test('1,000 calls in flight at once', async (t) => {
    const client = newClient(t);
    const numbers = Array.from({ length: 1000 }, (_, number) => number);
    const results = await Promise.all(numbers.map((number) => client.call('echo', [{ number }])));
    assert.deepEqual(
      results,
      numbers.map((number) => ({ number })),
    );
  });

  test('tasks side by side, with failures among them', async (t) => {
    const client = newClient(t);
    const task = async (name) => {
      for (let round = 0; round < 10; round++) {
        const word = `${name}.${round}`;
        assert.equal(await client.call('echo', [word]), word);
        await assert.rejects(client.call('subtract', [word]), failsWithCode(-32602));
        await client.notify('update', [word]);
        const [echo, absent] = await client.batch([{ method: 'echo', params: [word] }, { method: word }]);
        assert.equal(echo.value, word);
        assert.equal(absent.reason.code, -32601);
      }
    };
    await Promise.all(Array.from({ length: 10 }, (_, name) => task(name)));
  });

  test('the examples of the JSON-RPC specification', async (t) => {
    const client = newClient(t);
    const file = new URL('../../../tests/vectors/specification.json', import.meta.url);
    // An error's message is the server's own, and it may have data.
    const essence = (response) => ({ ...response, error: response.error?.code });
    const essences = (answer) =>
      Array.isArray(answer)
        ? answer.map((each) => JSON.stringify(Object.entries(essence(each)).sort())).sort()
        : essence(answer);
    for (const { description, request, response } of JSON.parse(readFileSync(file, 'utf8')).examples) {
      const answer = await client.sendRaw(request);
      if (response === null) assert.equal(answer, undefined, description);
      else assert.deepEqual(essences(JSON.parse(answer)), essences(response), description);
    }
  });
});

describe('on the wire', () => {
  test('what a call and a notification look like', async (t) => {
    const seen = await newSilentService(broker);
    const client = newClient(t, { service: seen.name });
    const user = decodeURIComponent(new URL(url).username) || 'guest';

    const result = client.call('add', [1, 2], { id: 'q538', timeout: 5_000, headers: { trace: 'x' } });
    const { fields, properties, content } = await seen.received();
    const [word, qid] = fields.routingKey.slice(`${seen.name}.request.`.length).split('.');
    assert.match(word, /^[^.]+-[a-z0-9]{12}$/);
    assert.equal(qid, 'q538');
    assert.equal(content.toString(), '{"jsonrpc":"2.0","method":"add","params":[1,2],"id":"q538"}');
    assert.equal(properties.contentType, 'application/json');
    assert.equal(properties.contentEncoding, undefined);
    assert.equal(properties.deliveryMode, 1);
    assert.equal(properties.correlationId, '1');
    assert.equal(properties.userId, user);
    assert.equal(properties.replyTo, undefined);
    assert.equal(properties.messageId, undefined);
    assert.equal(properties.headers.trace, 'x');
    const timeLeft = properties.headers['timeout-ms'];
    assert.ok(timeLeft >= 1 && timeLeft <= 5_000, `${timeLeft} ms`);
    assert.equal(properties.expiration, String(timeLeft));
    seen.answer({ fields, properties }, '{"jsonrpc":"2.0","result":3,"id":"q538"}');
    assert.equal(await result, 3);

    await client.notify('add', [1, 2]);
    const notification = await seen.received();
    assert.equal(notification.fields.routingKey, `${seen.name}.request.${word}`);
    assert.equal(notification.content.toString(), '{"jsonrpc":"2.0","method":"add","params":[1,2]}');
    assert.equal(notification.properties.deliveryMode, 2);
    assert.equal(notification.properties.messageId, `${word}-2`);
    assert.equal(notification.properties.userId, user);
    for (const name of ['correlationId', 'replyTo', 'expiration']) {
      assert.equal(notification.properties[name], undefined);
    }
  });

  test('a late answer is not taken for that of the next call', async (t) => {
    const slow = await newSilentService(broker);
    const client = newClient(t, { service: slow.name });
    const connects = client.call('any', [], { id: 1 });
    slow.answer(await slow.received(), '{"jsonrpc":"2.0","result":"connected","id":1}');
    await connects;
    await assert.rejects(client.call('first', [], { id: 1, timeout: 200 }), fails(CallTimeout, true));
    const second = client.call('second', [], { id: 1 });
    slow.answer(await slow.received(), '{"jsonrpc":"2.0","result":"late","id":1}');
    slow.answer(await slow.received(), '{"jsonrpc":"2.0","result":"in time","id":1}');
    assert.equal(await second, 'in time');
  });

  test('answers are paired by correlation_id, whatever their order', async (t) => {
    const service = await newSilentService(broker);
    const client = newClient(t, { service: service.name });
    const results = [client.call('first', [], { id: 1 }), client.call('second', [], { id: 1 })];
    const requests = [await service.received(), await service.received()];
    for (const request of requests.reverse()) {
      const { method } = JSON.parse(request.content);
      service.answer(request, JSON.stringify({ jsonrpc: '2.0', result: method, id: 1 }));
    }
    assert.deepEqual(await Promise.all(results), ['first', 'second']);
  });

  test('answers that are malformed', async (t) => {
    let answer;
    const name = await newService(broker, (message, publish) => publish(message, answer));
    const client = newClient(t, { service: name });
    for (const body of ['', 'no JSON', '[]', '{"jsonrpc":"2.0","result":1,"id":"1"}', '{"jsonrpc":"2.0","id":1}']) {
      answer = body;
      await assert.rejects(client.call('any', [], { id: 1 }), fails(MalformedReply, true));
    }
    await assert.rejects(client.batch([{ method: 'any' }]), fails(MalformedReply, true));
    answer = '[{"jsonrpc":"2.0","result":"here","id":2}]';
    const [absent, here] = await client.batch([{ method: 'any' }, { method: 'any' }]);
    assert.ok(fails(MalformedReply, true)(absent.reason));
    assert.equal(here.value, 'here');
  });

  test('a connection that is lost fails what is under way, and the next call makes another', async (t) => {
    const wire = await newWire(t);
    const seen = await newSilentService(broker);
    const client = newClient(t, { service: seen.name }, wire.url);
    const lost = [client.call('one'), client.call('two')].map((call) =>
      assert.rejects(call, fails(ConnectionLost, true)),
    );
    const before = await seen.received();
    await seen.received();
    assert.ok((await milliseconds(() => Promise.all([wire.cut(), ...lost]))) < 5_000);

    const again = client.call('three', [], { id: 3 });
    const after = await seen.received();
    const clientOf = ({ fields }) => fields.routingKey.split('.')[2];
    assert.notEqual(clientOf(after), clientOf(before));
    seen.answer(after, '{"jsonrpc":"2.0","result":"works again","id":3}');
    assert.equal(await again, 'works again');
  });

  test('many calls around a loss each end', async (t) => {
    const wire = await newWire(t);
    const client = newClient(t, {}, wire.url);
    for (let round = 0; round < 2; round++) {
      const calls = Array.from({ length: 40 }, () => client.call('sleep', [0.1]));
      await Promise.race(calls);
      wire.cut();
      const outcomes = await Promise.allSettled(calls);
      for (const { status, reason } of outcomes) if (status === 'rejected') fails(ConnectionLost, true)(reason);
      assert.ok(outcomes.some(({ status }) => status === 'rejected'));
      assert.equal(await client.call('echo', [round]), round);
    }
  });

  test('a connection that the broker closes', async (t) => {
    const wire = await newWire(t);
    const client = newClient(t, {}, wire.url);
    await client.call('get_data');
    wire.silence();
    const lost = [client.call('get_data'), client.notify('update')].map((each) =>
      assert.rejects(each, fails(ConnectionLost, true)),
    );
    // connection.close 320, as when the broker is stopped.
    const text = Buffer.from('CONNECTION_FORCED');
    const method = Buffer.concat([Buffer.from([0, 10, 0, 50, 1, 0x40, text.length]), text, Buffer.alloc(4)]);
    wire.say(frame(method));
    await Promise.all(lost);
    wire.speak();
    assert.equal(await client.call('echo', [1]), 1);
  });

  test('a broker that is blocked', async (t) => {
    const wire = await newWire(t);
    const client = newClient(t, {}, wire.url);
    await client.call('get_data');
    const text = Buffer.from('low on memory');
    wire.say(frame(Buffer.concat([Buffer.from([0, 10, 0, 60, text.length]), text])));
    await pause(100);
    await assert.rejects(client.call('get_data'), fails(Blocked, false));
    await assert.rejects(client.notify('update'), fails(Blocked, false));
    wire.say(frame(Buffer.from([0, 10, 0, 61])));
    await pause(100);
    assert.equal(await client.call('echo', [1]), 1);
  });

  after(() => broker.close());
});

describe('failures', () => {
  test('a service that was never set up, at once', async (t) => {
    const client = newClient(t, { service: `absent-${randomUUID()}`, timeout: 20_000 });
    const took = await milliseconds(async () => {
      await assert.rejects(client.call('any'), fails(Unroutable, false));
      await assert.rejects(client.notify('any'), fails(Unroutable, false));
      await assert.rejects(client.batch([{ method: 'any' }]), fails(Unroutable, false));
      await assert.rejects(client.sendRaw('no JSON'), fails(Unroutable, false));
    });
    assert.ok(took < 5_000, `it took ${took} ms`);
    assert.equal(await client.call('echo', ['still works'], { service }), 'still works');
  });

  test('a queue that is full', async (t) => {
    const connection = await connectToBroker();
    t.after(() => connection.close());
    const full = await newService(connection, null, { 'x-max-length': 1, 'x-overflow': 'reject-publish' });
    const client = newClient(t, { service: full });
    await client.notify('fills it');
    await assert.rejects(client.notify('too much'), fails(Overloaded, false));
  });

  test('no broker', async (t) => {
    const client = newClient(t, {}, 'amqp://alice:secret@127.0.0.1:1');
    await assert.rejects(client.call('any'), (error) => {
      assert.match(error.message, /127\.0\.0\.1:1.*ECONNREFUSED/);
      assert.doesNotMatch(error.message, /secret/);
      return fails(NotConnected, false)(error);
    });
  });

  test('a broker that says nothing', async (t) => {
    const client = newClient(t, {}, await newSilentPort(t));
    const took = await milliseconds(async () => {
      await assert.rejects(client.call('any', [], { timeout: 200 }), fails(NotConnected, false));
      const waiting = assert.rejects(client.call('any'), fails(ClientClosed, false));
      await client.close();
      await waiting;
    });
    assert.ok(took < 5_000, `it took ${took} ms`);
  });

  test('what had no time left when the broker was ready is not sent', async (t) => {
    const connection = await connectToBroker();
    t.after(() => connection.close());
    const seen = await newSilentService(connection);
    const wire = await newWire(t);
    const client = newClient(t, { service: seen.name }, wire.url);
    wire.silence();
    await assert.rejects(client.call('first', [], { timeout: 100 }), fails(NotConnected, false));
    await assert.rejects(client.notify('second', [], { timeout: 100 }), fails(NotConnected, false));
    wire.speak();
    await client.notify('third');
    assert.equal(JSON.parse((await seen.received()).content).method, 'third');
  });

  test('a broker that falls silent', async (t) => {
    const wire = await newWire(t);
    const client = newClient(t, {}, wire.url);
    await client.call('get_data');
    wire.silence();
    const took = await milliseconds(async () => {
      const options = { timeout: 200 };
      await assert.rejects(client.call('get_data', [], options), fails(CallTimeout, true));
      await assert.rejects(client.notify('update', [], options), fails(CallTimeout, true));
      await assert.rejects(client.call('any', [], { service: 'other', ...options }), fails(NotConnected, false));
      await client.close();
    });
    assert.ok(took < 8_000, `it took ${took} ms`);
  });

  test('a broker that goes away', async (t) => {
    const wire = await newWire(t);
    const client = newClient(t, {}, wire.url);
    await client.call('get_data');
    wire.stop();
    wire.cut();
    await pause(50);
    await assert.rejects(client.call('get_data'), fails(NotConnected, false));
  });

  test('a user whom the broker does not know', async (t) => {
    const stranger = new URL(url);
    stranger.username = 'stranger';
    await assert.rejects(newClient(t, {}, stranger.href).call('any'), (error) => {
      assert.match(error.message, /403/);
      return fails(NotConnected, false)(error);
    });
  });

  test('an exchange that is another or not there', async (t) => {
    const other = newClient(t, { exchange: 'amq.direct' });
    await assert.rejects(other.call('any'), fails(Refused, false));
    const absent = newClient(t, { exchange: `absent-${randomUUID()}`, declare: false });
    await assert.rejects(absent.call('any'), fails(Refused, false));
    assert.equal(await newClient(t, { declare: false }).call('echo', [1]), 1);
  });

  test('a close with calls in flight', async () => {
    const client = new Client(url, { service });
    await client.call('get_data');
    const calls = Array.from({ length: 3 }, () => assert.rejects(client.call('sleep', [2]), fails(ClientClosed, true)));
    await client.call('get_data');
    assert.ok((await milliseconds(() => Promise.all([client.close(), ...calls]))) < 1_800);
    await assert.rejects(client.call('get_data'), fails(ClientClosed, false));
    await client.close();
  });

  test('a close while it connects', async () => {
    const client = new Client(url, { service });
    const call = assert.rejects(client.call('get_data'), fails(ClientClosed, false));
    await client.close();
    await call;
  });

  test('what cannot be sent', async (t) => {
    const client = newClient(t);
    const circle = [];
    circle.push(circle);
    for (const params of [[NaN], { a: [Infinity] }, [1n], circle, 5, 'text', new Date(), () => {}]) {
      await assert.rejects(client.call('echo', params), fails(InvalidArgument));
    }
    for (const timeout of [0, -1, NaN, Infinity, 2 ** 31, '5']) {
      await assert.rejects(client.call('echo', [1], { timeout }), fails(InvalidArgument));
    }
    for (const id of [true, [], {}, NaN]) {
      await assert.rejects(client.call('echo', [1], { id }), fails(InvalidArgument));
    }
    for (const headers of [{ large: 'x'.repeat(100_000) }, { undefined: Symbol('none') }]) {
      await assert.rejects(client.call('echo', [1], { headers }), fails(InvalidArgument));
      await assert.rejects(client.notify('echo', [1], { headers }), fails(InvalidArgument));
    }
    await assert.rejects(client.call(5), fails(InvalidArgument));
    await assert.rejects(client.call('echo', [1], { service: 'a.request' }), fails(InvalidArgument));
    await assert.rejects(client.batch([]), fails(InvalidArgument));
    await assert.rejects(newClient(t, { service: undefined }).call('echo', [1]), fails(InvalidArgument));
    for (const bad of ['http://localhost', 'no url', `amqp://${'u'.repeat(65)}@localhost`, 'amqp://%zz@localhost']) {
      assert.throws(() => new Client(bad), fails(InvalidArgument));
    }
    assert.equal(await client.call('echo', [1]), 1);
  });
});

function frame(method) {
  const header = Buffer.alloc(7);
  header[0] = 1;
  header.writeUInt32BE(method.length, 3);
  return Buffer.concat([header, method, Buffer.from([0xce])]);
}
