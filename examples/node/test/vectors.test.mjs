/** The rules of tests/vectors that concern a client, checked case by case. */

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';

import {
  CallTimeout,
  InvalidArgument,
  MalformedReply,
  RemoteError,
  callKey,
  checkService,
  encodeId,
  encodeRequest,
  encodeUser,
  kindOf,
  notificationKey,
  publishCall,
  publishNotification,
  qidOf,
  readAnswer,
  readBatchAnswer,
  replyBinding,
  wholeMilliseconds,
} from '../jsonrpc_amqp.mjs';

const check = {
  keys: {
    service({ service }, expected) {
      if (expected.error) assert.throws(() => checkService(service), InvalidArgument);
      else assert.equal(checkService(service), service);
    },
    client({ user, token }, expected) {
      if (expected.error) assert.throws(() => encodeUser(user), InvalidArgument);
      else assert.equal(`${encodeUser(user)}-${token}`, expected.client);
    },
    qid({ id_json }, expected) {
      assert.equal(qidOf(id_json), expected.qid);
    },
    keys({ service, client, qid }, expected) {
      assert.equal(callKey(service, client, qid), expected.request_key);
      assert.equal(notificationKey(service, client), expected.notification_key);
      assert.equal(replyBinding(service, client), expected.reply_binding);
    },
    milliseconds({ seconds }, expected) {
      assert.equal(wholeMilliseconds(seconds * 1000), expected.milliseconds);
    },
  },
  requests: {
    publish(inputs, expected) {
      const { method, params, kind } = inputs;
      if (kind === 'notification') {
        assertPublished(publishNotification(...publishArguments(inputs)), expected);
        assert.deepEqual(JSON.parse(encodeRequest(method, params)), expected.body);
        return;
      }
      const id = encodeId(inputs.id);
      const publish = () => publishCall(...publishArguments({ ...inputs, qid: qidOf(id) }));
      if (expected.error) {
        assert.throws(publish, (error) => error instanceof CallTimeout && !error.mayHaveRun);
        return;
      }
      assertPublished(publish(), expected);
      assert.deepEqual(JSON.parse(encodeRequest(method, params, id)), expected.body);
    },
    kind({ body, body_hex }, expected) {
      const { kind, qid = null } = kindOf(bytes(body, body_hex));
      assert.deepEqual({ kind, qid }, expected);
    },
  },
  answers: {
    response({ id_json, body, body_hex }, expected) {
      assertOutcome(() => readAnswer(bytes(body, body_hex), id_json), expected);
    },
  },
  batches: {
    answer({ ids, body }, expected) {
      const read = () => readBatchAnswer(Buffer.from(body), ids.map(encodeId));
      if (expected.malformed) {
        assert.throws(read, MalformedReply);
        return;
      }
      const outcomes = read();
      assert.equal(outcomes.length, expected.answers.length);
      outcomes.forEach((outcome, index) => {
        const settled = () => {
          if (outcome.status === 'rejected') throw outcome.reason;
          return outcome.value;
        };
        assertOutcome(settled, expected.answers[index]);
      });
    },
    publish(inputs, expected) {
      const { kind, qid } = kindOf(Buffer.from(JSON.stringify(inputs.members)));
      const publish = kind === 'call' ? publishCall : publishNotification;
      assertPublished(publish(...publishArguments({ ...inputs, qid })), expected);
    },
  },
};

// What this client does not do: answer, and await answers in another way than at a queue of its own.
const isOfServers = (file, { rule }) => rule === 'reply' || (file === 'answers' && rule === 'publish');
const isDirectReplyTo = ({ inputs }) => inputs.reply === 'direct' && inputs.kind === 'call';

for (const [file, rules] of Object.entries(check)) {
  const { cases } = JSON.parse(readFileSync(new URL(`../../../tests/vectors/${file}.json`, import.meta.url), 'utf8'));
  for (const each of cases) {
    if (isOfServers(file, each) || isDirectReplyTo(each)) continue;
    test(`${file}: ${each.name}`, () => {
      assert.ok(rules[each.rule], `a rule that is not known here: ${each.rule}`);
      rules[each.rule](each.inputs, each.expected);
    });
  }
}

function bytes(body, hex) {
  return hex === undefined ? Buffer.from(body) : Buffer.from(hex, 'hex');
}

function publishArguments({ exchange, user, token, seconds, message_id, ...others }) {
  const sender = { exchange, user, client: `${encodeUser(user)}-${token}` };
  return [sender, { ...others, messageId: message_id, timeLeft: seconds === null ? null : seconds * 1000 }];
}

function assertPublished({ exchange, routingKey, options: { mandatory, ...options } }, expected) {
  const names = {
    contentType: 'content_type',
    deliveryMode: 'delivery_mode',
    correlationId: 'correlation_id',
    expiration: 'expiration',
    headers: 'headers',
    messageId: 'message_id',
    userId: 'user_id',
  };
  const properties = {};
  for (const [name, value] of Object.entries(options)) {
    if (value !== undefined) properties[names[name] ?? name] = value;
  }
  assert.equal(exchange, expected.exchange);
  assert.equal(routingKey, expected.routing_key);
  assert.equal(mandatory, expected.mandatory);
  assert.deepEqual(properties, expected.properties);
}

function assertOutcome(read, expected) {
  if ('result' in expected) {
    assert.deepEqual(read(), expected.result);
  } else if (expected.error) {
    assert.throws(read, (error) => {
      assert.ok(error instanceof RemoteError);
      const { code, message } = error;
      assert.deepEqual('data' in error ? { code, message, data: error.data } : { code, message }, expected.error);
      return true;
    });
  } else {
    assert.throws(read, MalformedReply);
  }
}
