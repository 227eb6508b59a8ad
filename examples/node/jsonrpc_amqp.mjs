/**
 * A client of JSON-RPC 2.0 over RabbitMQ, after docs/protocol.md of this repository (../../docs/protocol.md).
 *
 * The first half are the rules of that page as plain functions, which tests/vectors can check. The second half is the
 * client: `Client` is what a program uses, `Link` is one connection with its token and its reply queue, and `Operation`
 * is one request on its way.
 *
 * All times are in milliseconds. An id is handled as its JSON text (`1`, `"1"`, `null`), since a JavaScript number
 * takes 18446744073709551616 and 18446744073709551617 for one.
 */

import { randomInt } from 'node:crypto';

import amqplib from 'amqplib';

const DEFAULT_TIMEOUT = 30_000;
// What setTimeout takes: with more it fires at once.
const LONGEST_TIMEOUT = 2 ** 31 - 1;
const CONNECT_TIMEOUT = 10_000;
const CLOSE_TIMEOUT = 2_000;
// A broker that is silent for two to three times this long is taken for lost. RabbitMQ itself suggests 60 seconds.
const HEARTBEAT_SECONDS = 20;
const LARGEST_EXPIRATION = 2 ** 32 - 1;
const MAX_DEPTH = 100;

// Errors

export class JsonRpcAmqpError extends Error {
  get name() {
    return this.constructor.name;
  }
}

/** The server answered with an error. */
export class RemoteError extends JsonRpcAmqpError {
  /** @param {{ code: number, message: string, data?: any }} error */
  constructor(error) {
    super(error.message);
    this.code = error.code;
    if (Object.hasOwn(error, 'data')) this.data = error.data;
  }
}

/** What was asked for cannot be sent: a service's name, params, an id, a timeout. */
export class InvalidArgument extends JsonRpcAmqpError {
  /** @param {string} what @param {ErrorOptions} [options] */
  constructor(what, options) {
    super(`${what}; nothing was sent`, options);
  }
}

/** There is no answer that can be used. `mayHaveRun` is for callers who want to try again. */
export class TransportError extends JsonRpcAmqpError {
  /** @param {string} what @param {boolean} mayHaveRun @param {ErrorOptions} [options] */
  constructor(what, mayHaveRun, options) {
    super(`${what}; the method ${mayHaveRun ? 'may have run' : 'has not run'}`, options);
    this.mayHaveRun = mayHaveRun;
  }
}

/** There was no connection to the broker, or it refused the user, or it took too long. */
export class NotConnected extends TransportError {}

/** The broker refused to declare the exchange or the reply queue, or to bind it. */
export class Refused extends TransportError {}

/** No queue is bound: no server of this service was ever set up here. */
export class Unroutable extends TransportError {}

/** The queue refused the message: it is full, or has no leader just now. */
export class Overloaded extends TransportError {}

/** The broker takes no messages just now: it is short of memory or of disk space. */
export class Blocked extends TransportError {}

/** Nothing came by the deadline. */
export class CallTimeout extends TransportError {}

/** The connection, or a channel of it, ended before the answer came. */
export class ConnectionLost extends TransportError {}

/** What came is no JSON-RPC 2.0 answer to what was sent. */
export class MalformedReply extends TransportError {
  /** @param {string} what @param {ErrorOptions} [options] */
  constructor(what, options) {
    super(`the answer is malformed: ${what}`, true, options);
  }
}

export class ClientClosed extends TransportError {}

/** @param {any} error */
function reasonOf(error) {
  // Where a host name has several addresses and none answers, Node's error has a code and an empty message.
  return error?.message || error?.code || String(error);
}

// Names and keys

/** @param {unknown} service @returns {string} */
export function checkService(service) {
  if (typeof service !== 'string' || service === '') throw new InvalidArgument('no service was named');
  const refuse = (/** @type {string} */ why) => new InvalidArgument(`service ${JSON.stringify(service)}: ${why}`);
  // Behind the test of its words it is ASCII, so that characters are bytes.
  const words = service.split('.');
  if (!words.every((word) => /^[A-Za-z0-9_-]+$/.test(word))) throw refuse('each word is of A-Z a-z 0-9 _ -');
  if (service.length > 80) throw refuse('over 80 bytes');
  if (words[0] === 'amq') throw refuse('amq is reserved');
  const reserved = words.find((word) => ['request', 'response', 'control'].includes(word));
  if (reserved) throw refuse(`no word is ${reserved}`);
  return service;
}

/** The user's name as it stands in keys. @param {string | null | undefined} user */
export function encodeUser(user) {
  if (!user) return '_';
  // These five are left alone by encodeURIComponent; a dot would begin another word, a star is a wildcard in bindings.
  const encoded = encodeURIComponent(user).replace(
    /[.!*'()]/g,
    (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`,
  );
  if (encoded.length > 64) throw new InvalidArgument(`user ${JSON.stringify(user)}: over 64 bytes when encoded`);
  return encoded;
}

export function newToken() {
  return Array.from({ length: 12 }, () => randomInt(36).toString(36)).join('');
}

/** The word of a key that stands for an id. @param {string} id JSON text */
export function qidOf(id) {
  const word = id.startsWith('"') ? JSON.parse(id) : /^-?\d+$/.test(id) ? id : '_';
  return /^[A-Za-z0-9_-]{1,64}$/.test(word) ? word : '_';
}

/** @param {string} service @param {string} client @param {string} qid */
export function callKey(service, client, qid) {
  return `${service}.request.${client}.${qid}`;
}

/** @param {string} service @param {string} client */
export function notificationKey(service, client) {
  return `${service}.request.${client}`;
}

/** @param {string} service @param {string} client */
export function replyBinding(service, client) {
  return `${service}.response.${client}.#`;
}

// What is published

/** An expiration of 0 would mean "drop at once". @param {number} timeLeft */
export function wholeMilliseconds(timeLeft) {
  return Math.min(Math.max(Math.ceil(timeLeft), 1), LARGEST_EXPIRATION);
}

/**
 * @typedef {object} Sender what is the same for all messages of a connection
 * @property {string} exchange
 * @property {string} client the user's word and the token
 * @property {string | null} user
 *
 * @typedef {object} Publication
 * @property {string} exchange
 * @property {string} routingKey
 * @property {import('amqplib').Options.Publish} options in amqplib's names
 *
 * @typedef {{ service: string, persistent?: boolean, headers?: Record<string, any> }} Addressed
 */

/**
 * @param {Sender} sender
 * @param {Addressed & { qid: string, number: string, timeLeft: number | null }} call
 * @returns {Publication}
 */
export function publishCall(sender, { service, qid, number, timeLeft, persistent = false, headers }) {
  if (timeLeft !== null && timeLeft <= 0) throw new CallTimeout('its time was over before it could be sent', false);
  const milliseconds = timeLeft === null ? null : wholeMilliseconds(timeLeft);
  return {
    exchange: sender.exchange,
    routingKey: callKey(service, sender.client, qid),
    options: {
      mandatory: true,
      contentType: 'application/json',
      deliveryMode: persistent ? 2 : 1,
      correlationId: number,
      expiration: milliseconds === null ? undefined : String(milliseconds),
      headers: milliseconds === null ? headers : { ...headers, 'timeout-ms': milliseconds },
      userId: sender.user ?? undefined,
    },
  };
}

/**
 * @param {Sender} sender
 * @param {Addressed & { messageId: string }} notification
 * @returns {Publication}
 */
export function publishNotification(sender, { service, messageId, persistent = true, headers }) {
  return {
    exchange: sender.exchange,
    routingKey: notificationKey(service, sender.client),
    options: {
      mandatory: true,
      contentType: 'application/json',
      deliveryMode: persistent ? 2 : 1,
      messageId,
      headers,
      userId: sender.user ?? undefined,
    },
  };
}

// JSON that is written

/** @param {unknown} value */
function toJson(value) {
  try {
    // JSON.stringify would write NaN and Infinity as null.
    return JSON.stringify(value, (_, each) => {
      if (typeof each === 'number' && !Number.isFinite(each)) throw new TypeError(`JSON has no ${each}`);
      return each;
    });
  } catch (error) {
    throw new InvalidArgument(`no JSON can be made of it: ${reasonOf(error)}`, { cause: error });
  }
}

/** The JSON text of an id. @param {unknown} id */
export function encodeId(id) {
  if (typeof id === 'bigint') return String(id);
  if (id === null || typeof id === 'string' || typeof id === 'number') return toJson(id);
  throw new InvalidArgument('an id is a string, a number or null');
}

/**
 * One request's JSON text; without an id it is a notification.
 *
 * @param {unknown} method
 * @param {unknown} [params]
 * @param {string} [id] JSON text
 */
export function encodeRequest(method, params, id) {
  if (typeof method !== 'string') throw new InvalidArgument('the method is a string');
  const members = ['"jsonrpc":"2.0"', `"method":${toJson(method)}`];
  if (params !== undefined && params !== null) {
    const text = toJson(params);
    if (!/^[[{]/.test(text)) throw new InvalidArgument('params are an array or an object');
    members.push(`"params":${text}`);
  }
  if (id !== undefined) members.push(`"id":${id}`);
  return `{${members.join(',')}}`;
}

// JSON that is read

// With ignoreBOM the mark stays in the text, where JSON.parse refuses it.
const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** @param {any} value */
function isObject(value) {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/**
 * A body's value, and the ids of a batch's members (or of the one object) as JSON text, undefined where there is none.
 *
 * @param {Uint8Array} body
 * @returns {{ value: any, ids: (string | undefined)[] }}
 */
function parse(body) {
  const text = utf8.decode(body);
  const value = JSON.parse(text);
  const isBatch = Array.isArray(value);
  const numbers = numericIds(text, isBatch ? 2 : 1);
  const ids = (isBatch ? value : [value]).map((/** @type {any} */ member, /** @type {number} */ index) => {
    if (!isObject(member) || !Object.hasOwn(member, 'id')) return undefined;
    return typeof member.id === 'number' ? numbers[index] : JSON.stringify(member.id);
  });
  return { value, ids };
}

/**
 * What JSON.parse does not tell: the digits of ids that are numbers, and how deep a text is nested.
 *
 * @param {string} text valid JSON
 * @param {number} level the depth of the objects whose ids are wanted
 */
function numericIds(text, level) {
  /** @type {(string | undefined)[]} */
  const found = [];
  const number = /\s*(-?[\d.eE+-]+)/y;
  let depth = 0;
  let member = 0;
  let name = '';
  for (let at = 0; at < text.length; at++) {
    switch (text[at]) {
      case '"': {
        const from = at;
        while (text[++at] !== '"') if (text[at] === '\\') at++;
        if (depth === level) name = text.slice(from, at + 1);
        break;
      }
      case '[':
      case '{':
        if (++depth > MAX_DEPTH) throw new SyntaxError(`nested deeper than ${MAX_DEPTH} levels`);
        break;
      case ']':
      case '}':
        depth--;
        break;
      case ',':
        if (depth === level - 1) member++;
        break;
      case ':':
        // A name may be written with escapes, and of two members of one name the last counts, as in JSON.parse.
        if (depth === level && JSON.parse(name) === 'id') {
          number.lastIndex = at + 1;
          found[member] = number.exec(text)?.[1];
        }
    }
  }
  return found;
}

/** One text for all ways to write an id: `1` and `1.0` are the same number. @param {string} id JSON text */
function canonical(id) {
  if (!/^-?\d/.test(id)) return id;
  const integer = /^(-?\d+)(\.0+)?$/.exec(id)?.[1] ?? String(Number(id));
  return integer === '-0' ? '0' : integer;
}

/**
 * @param {any} response
 * @param {string | undefined} id the one it has
 * @param {string} sent the one it should have
 * @returns {any} the result
 */
function resultOf(response, id, sent) {
  if (!isObject(response)) throw new MalformedReply('it is not an object');
  if (response.jsonrpc !== '2.0') throw new MalformedReply('its jsonrpc is not "2.0"');
  const isError = Object.hasOwn(response, 'error');
  if (isError === Object.hasOwn(response, 'result')) {
    throw new MalformedReply('it has not exactly one of result and error');
  }
  if (id === undefined) throw new MalformedReply('it has no id');
  // A server that could not read the request does not know its id.
  if (canonical(id) !== canonical(sent) && !(isError && id === 'null')) {
    throw new MalformedReply(`its id is not ${sent}`);
  }
  if (!isError) return response.result;
  const { error } = response;
  if (!isObject(error)) throw new MalformedReply('its error is not an object');
  if (!Number.isInteger(error.code)) throw new MalformedReply("its error's code is not an integer");
  if (typeof error.message !== 'string') throw new MalformedReply("its error's message is not a string");
  throw new RemoteError(error);
}

/** @param {Uint8Array} body */
function parseAnswer(body) {
  try {
    return parse(body);
  } catch (error) {
    // The error's own text would quote the answer.
    throw new MalformedReply(`it is no JSON, or nested deeper than ${MAX_DEPTH} levels`, { cause: error });
  }
}

/**
 * The result of a single call. Throws a RemoteError or a MalformedReply.
 *
 * @param {Uint8Array} body
 * @param {string} id JSON text
 */
export function readAnswer(body, id) {
  const { value, ids } = parseAnswer(body);
  return resultOf(value, ids[0], id);
}

/**
 * The outcomes of a batch's calls, in the order of their ids.
 *
 * @param {Uint8Array} body
 * @param {string[]} ids JSON texts
 * @returns {PromiseSettledResult<any>[]}
 */
export function readBatchAnswer(body, ids) {
  const { value, ids: received } = parseAnswer(body);
  if (!Array.isArray(value)) {
    const forAll = settle(() => resultOf(value, received[0], received[0] ?? 'null'));
    if (forAll.status === 'fulfilled') throw new MalformedReply('it is a single result, not an array');
    if (!(forAll.reason instanceof RemoteError)) throw forAll.reason;
    return ids.map(() => forAll);
  }
  /** @type {Map<string, number[]>} */
  const members = new Map();
  received.forEach((id, index) => {
    if (id === undefined) return;
    const same = members.get(canonical(id));
    if (same) same.push(index);
    else members.set(canonical(id), [index]);
  });
  return ids.map((id) =>
    settle(() => {
      const index = members.get(canonical(id))?.shift();
      if (index === undefined) throw new MalformedReply(`it has no member for id ${id}`);
      return resultOf(value[index], received[index], id);
    }),
  );
}

/** @param {() => any} read @returns {PromiseSettledResult<any>} */
function settle(read) {
  try {
    return { status: 'fulfilled', value: read() };
  } catch (reason) {
    return { status: 'rejected', reason };
  }
}

/**
 * Whether a body awaits an answer. What is no JSON-RPC does: it gets an error.
 *
 * @typedef {{ kind: 'call', qid: string } | { kind: 'notification' }} Kind
 *
 * @param {Uint8Array} body
 * @returns {Kind}
 */
export function kindOf(body) {
  /** @type {ReturnType<typeof parse>} */
  let parsed;
  try {
    parsed = parse(body);
  } catch {
    return { kind: 'call', qid: '_' };
  }
  const { value, ids } = parsed;
  if (!Array.isArray(value)) {
    if (isNotification(value)) return { kind: 'notification' };
    return { kind: 'call', qid: ids[0] === undefined ? '_' : qidOf(ids[0]) };
  }
  return value.length > 0 && value.every(isNotification) ? { kind: 'notification' } : { kind: 'call', qid: '_' };
}

/** @param {any} value */
function isNotification(value) {
  return (
    isObject(value) &&
    value.jsonrpc === '2.0' &&
    typeof value.method === 'string' &&
    !Object.hasOwn(value, 'id') &&
    (!Object.hasOwn(value, 'params') || (typeof value.params === 'object' && value.params !== null))
  );
}

// The client

/**
 * @typedef {object} ClientOptions
 * @property {string} [service] for the calls that name none
 * @property {number} [timeout] in milliseconds, for the calls that have none of their own
 * @property {string} [exchange]
 * @property {boolean} [declare] false for a user who may not declare the exchange: then it must be there
 * @property {import('amqplib').SocketOptions} [socketOptions] what amqplib.connect takes: TLS certificates, credentials
 *
 * @typedef {object} SendOptions
 * @property {string} [service]
 * @property {number} [timeout] in milliseconds
 * @property {Record<string, any>} [headers] AMQP headers
 * @property {boolean} [persistent] whether the broker keeps it on disk; notifications are kept unless this is false
 *
 * @typedef {Addressed & Kind & { body: Buffer }} Request
 */

/**
 * A client for any number of calls at once, over one connection. It connects with the first call, and anew with the
 * next call after a connection was lost. Close it, or the program does not end.
 */
export class Client {
  /** @type {ConstructorParameters<typeof Link>[0]} */
  #settings;
  #service;
  #timeout;
  /** @type {Link | undefined} */
  #link;
  /** @type {Set<Operation>} */
  #operations = new Set();
  #closed = false;
  #lastId = 0;

  /** @param {string} [url] @param {ClientOptions} [options] */
  constructor(url = 'amqp://localhost', options = {}) {
    const { service, timeout = DEFAULT_TIMEOUT, exchange = 'jsonrpc', declare = true, socketOptions = {} } = options;
    if (service !== undefined) checkService(service);
    this.#service = service;
    this.#timeout = checkTimeout(timeout);

    const { broker, credentials } = readUrl(url, socketOptions);
    const user = /** @type {{ username?: string }} */ (credentials).username || null;
    encodeUser(user);
    this.#settings = {
      url: broker.href,
      // Calls are small: Nagle's algorithm would hold them back. Node 18 tries one address of a name only, unless told.
      socketOptions: {
        noDelay: true,
        autoSelectFamily: true,
        timeout: CONNECT_TIMEOUT,
        ...socketOptions,
        credentials,
      },
      exchange,
      declare,
      user,
    };
  }

  /**
   * @param {string} method
   * @param {any[] | object | null} [params]
   * @param {SendOptions & { id?: string | number | bigint | null }} [options]
   * @returns {Promise<any>} the result
   */
  async call(method, params, options = {}) {
    const id = encodeId(options.id === undefined ? ++this.#lastId : options.id);
    const body = Buffer.from(encodeRequest(method, params, id));
    const answer = await this.#send(body, { kind: 'call', qid: qidOf(id) }, options);
    return readAnswer(answer, id);
  }

  /**
   * One way. It resolves when the broker has the message on disk; whether the method runs and succeeds is not known.
   *
   * @param {string} method
   * @param {any[] | object | null} [params]
   * @param {SendOptions} [options]
   */
  async notify(method, params, options) {
    await this.#send(Buffer.from(encodeRequest(method, params)), { kind: 'notification' }, options);
  }

  /**
   * Several requests in one message. It resolves with one outcome for each call, in their order, as Promise.allSettled
   * does; notifications have none.
   *
   * @param {{ method: string, params?: any[] | object | null, notification?: boolean }[]} requests
   * @param {SendOptions} [options]
   */
  async batch(requests, options) {
    if (requests.length === 0) throw new InvalidArgument('a batch has at least one request');
    /** @type {string[]} */
    const ids = [];
    const members = requests.map(({ method, params, notification }) => {
      if (notification) return encodeRequest(method, params);
      const id = String(ids.length + 1);
      ids.push(id);
      return encodeRequest(method, params, id);
    });
    const body = Buffer.from(`[${members.join(',')}]`);
    if (ids.length === 0) {
      await this.#send(body, { kind: 'notification' }, options);
      return [];
    }
    return readBatchAnswer(await this.#send(body, { kind: 'call', qid: '_' }, options), ids);
  }

  /**
   * A body as it is, for bridges: it resolves with the answer's body as it is, or undefined for a notification.
   *
   * @param {string | Uint8Array} body
   * @param {SendOptions} [options]
   * @returns {Promise<Buffer | undefined>}
   */
  async sendRaw(body, options) {
    // A copy, since it is written while the caller goes on.
    const copy = Buffer.from(body);
    return this.#send(copy, kindOf(copy), options);
  }

  /** Fail what is under way, and disconnect. */
  async close() {
    this.#closed = true;
    for (const operation of this.#operations) {
      operation.fail(new ClientClosed('the client was closed', operation.sent));
    }
    await this.#link?.close();
  }

  /**
   * @param {Buffer} body
   * @param {Kind} kind
   * @param {SendOptions} [options]
   */
  async #send(body, kind, options = {}) {
    const { service = this.#service, timeout = this.#timeout, headers, persistent } = options;
    const request = { ...kind, body, service: checkService(service), headers, persistent };
    const operation = new Operation(checkTimeout(timeout));
    this.#operations.add(operation);
    this.#deliver(operation, request).catch((error) => operation.fail(error));
    try {
      return await operation.outcome;
    } finally {
      this.#operations.delete(operation);
    }
  }

  /** @param {Operation} operation @param {Request} request */
  async #deliver(operation, request) {
    if (this.#closed) throw new ClientClosed('the client was closed before', false);
    if (!this.#link || this.#link.lost) this.#link = new Link(this.#settings);
    const link = this.#link;
    await link.ready;
    if (request.kind === 'call') await link.bind(request.service);
    // Its time may be over by now. Its caller was told that the method has not run, so it must not be sent any more.
    if (!operation.settled) link.publish(operation, request);
  }
}

/** @param {unknown} timeout */
function checkTimeout(timeout) {
  if (typeof timeout === 'number' && timeout > 0 && timeout <= LONGEST_TIMEOUT) return timeout;
  throw new InvalidArgument(`a timeout is a number of milliseconds, over 0 and up to ${LONGEST_TIMEOUT}`);
}

/** @param {string} url @param {import('amqplib').SocketOptions} socketOptions */
function readUrl(url, socketOptions) {
  let broker;
  let username;
  let password;
  try {
    broker = new URL(url);
    username = decodeURIComponent(broker.username);
    password = decodeURIComponent(broker.password);
  } catch {
    // The error's own text would show the password.
    throw new InvalidArgument('the URL cannot be read');
  }
  if (!['amqp:', 'amqps:'].includes(broker.protocol)) throw new InvalidArgument('the URL begins with amqp: or amqps:');
  if (!broker.searchParams.has('heartbeat')) broker.searchParams.set('heartbeat', String(HEARTBEAT_SECONDS));
  if (!username && !password) username = password = 'guest';
  // amqplib would take the bytes of a user's name for Latin-1.
  return { broker, credentials: socketOptions.credentials ?? amqplib.credentials.plain(username, password) };
}

/** One request on its way, until it is answered, fails or has no time left. */
class Operation {
  sent = false;
  settled = false;
  #deadline;
  #timer;
  /** @type {(value: any) => void} */
  #resolve = () => {};
  /** @type {(error: unknown) => void} */
  #reject = () => {};

  /** @param {number} timeout */
  constructor(timeout) {
    this.#deadline = performance.now() + timeout;
    this.outcome = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    this.#timer = setTimeout(() => {
      if (this.sent) this.fail(new CallTimeout(`nothing came back within ${timeout} ms`, true));
      else this.fail(new NotConnected(`the broker was not ready within ${timeout} ms`, false));
    }, timeout);
  }

  get timeLeft() {
    return this.#deadline - performance.now();
  }

  /** @param {Buffer} [answer] */
  succeed(answer) {
    this.#settle();
    this.#resolve(answer);
  }

  /** @param {unknown} error */
  fail(error) {
    this.#settle();
    this.#reject(error);
  }

  #settle() {
    this.settled = true;
    clearTimeout(this.#timer);
    this.onSettled();
  }

  onSettled() {}
}

/**
 * One connection from its beginning to its end, with a token and a reply queue of its own. It is never repaired: a new
 * connection is a new Link. That is why amqplib's recovery is not used, which would declare the old names again.
 */
class Link {
  /** @type {Error | undefined} why it can be used no longer */
  lost;
  #url;
  #sender;
  /** @type {import('amqplib').ChannelModel | undefined} */
  #connection;
  /** @type {import('amqplib').Channel} */
  #calling = /** @type {any} */ (undefined);
  /** @type {import('amqplib').ConfirmChannel} */
  #notifying = /** @type {any} */ (undefined);
  #replyQueue = '';
  /** @type {Map<string, Promise<any>>} */
  #bindings = new Map();
  /** @type {Map<string, Operation>} by correlation_id */
  #calls = new Map();
  /** @type {Map<string, Operation>} by message_id */
  #notifications = new Map();
  #count = 0;
  /** @type {string | undefined} */
  #blocked;

  /**
   * @param {object} settings
   * @param {string} settings.url
   * @param {object} settings.socketOptions
   * @param {string} settings.exchange
   * @param {boolean} settings.declare
   * @param {string | null} settings.user
   */
  constructor({ url, socketOptions, exchange, declare, user }) {
    this.#url = new URL(url);
    this.#sender = { exchange, user, client: `${encodeUser(user)}-${newToken()}` };
    /** Rejects with what the first calls are to be told. */
    this.ready = this.#open(socketOptions, declare);
    this.ready.catch((error) => this.#lose(error));
  }

  /** @param {object} socketOptions @param {boolean} declare */
  async #open(socketOptions, declare) {
    let timer;
    try {
      const connection = await amqplib.connect(this.#url.href, socketOptions);
      this.#connection = connection;
      connection.on('error', (error) => this.#lose(error));
      connection.on('close', (error) => {
        this.#lose(error ?? new Error('it was closed'));
        hangUp(connection);
      });
      connection.on('blocked', (reason) => (this.#blocked = reason));
      connection.on('unblocked', () => (this.#blocked = undefined));
      if (this.lost) throw this.lost; // The client was closed meanwhile.
      timer = setTimeout(() => this.#abandon(new Error('the broker took too long')), CONNECT_TIMEOUT);
      this.#calling = this.#watch(await connection.createChannel());
      this.#notifying = this.#watch(await connection.createConfirmChannel());
      await this.#awaitAnswers(declare);
    } catch (error) {
      this.#disconnect();
      throw this.#notSent(this.lost ?? error);
    } finally {
      clearTimeout(timer);
    }
  }

  /**
   * @template {import('amqplib').Channel} T
   * @param {T} channel
   */
  #watch(channel) {
    // A channel ends when the broker refuses something on it. With the channel of the calls the reply queue is gone.
    channel.on('error', (error) => this.#abandon(error));
    channel.on('return', ({ fields, properties }) => {
      const operation = this.#calls.get(properties.correlationId) ?? this.#notifications.get(properties.messageId);
      const { replyCode, replyText, routingKey } = /** @type {any} */ (fields);
      operation?.fail(new Unroutable(`no queue takes ${routingKey} (${replyCode} ${replyText})`, false));
    });
    return channel;
  }

  /** @param {boolean} declare */
  async #awaitAnswers(declare) {
    const { exchange } = this.#sender;
    if (declare) await this.#calling.assertExchange(exchange, 'topic', { durable: true, autoDelete: false });
    else await this.#calling.checkExchange(exchange);
    const { queue } = await this.#calling.assertQueue('', { exclusive: true, autoDelete: true, durable: false });
    this.#replyQueue = queue;
    const receive = (/** @type {import('amqplib').ConsumeMessage | null} */ message) => {
      if (message === null) this.#abandon(new Error('the reply queue was deleted'));
      else this.#calls.get(message.properties.correlationId)?.succeed(message.content);
    };
    await this.#calling.consume(queue, receive, { noAck: true });
  }

  /** Be sure that answers of this service come here. @param {string} service */
  async bind(service) {
    let binding = this.#bindings.get(service);
    if (!binding) {
      const { exchange, client } = this.#sender;
      // After a loss amqplib throws; here that is a rejection like all others.
      binding = (async () => this.#calling.bindQueue(this.#replyQueue, exchange, replyBinding(service, client)))();
      this.#bindings.set(service, binding);
    }
    try {
      await binding;
    } catch (error) {
      throw this.#notSent(this.lost ?? error);
    }
  }

  /** @param {Operation} operation @param {Request} request */
  publish(operation, request) {
    if (this.lost) throw new NotConnected(`the connection was lost before: ${reasonOf(this.lost)}`, false);
    if (this.#blocked !== undefined) throw new Blocked(`the broker takes no messages: ${this.#blocked}`, false);
    const number = String(++this.#count);
    try {
      if (request.kind === 'call') this.#publishCall(operation, request, number);
      else this.#publishNotification(operation, request, `${this.#sender.client}-${number}`);
    } catch (error) {
      if (error instanceof JsonRpcAmqpError) throw error;
      throw new InvalidArgument(`the message cannot be encoded: ${reasonOf(error)}`, { cause: error });
    }
    operation.sent = true;
  }

  /** @param {Operation} operation @param {Request & { kind: 'call' }} request @param {string} number */
  #publishCall(operation, request, number) {
    const { timeLeft } = operation;
    const { exchange, routingKey, options } = publishCall(this.#sender, { ...request, number, timeLeft });
    // Answers to numbers that are not here, late ones among them, are dropped.
    this.#calls.set(number, operation);
    operation.onSettled = () => this.#calls.delete(number);
    this.#calling.publish(exchange, routingKey, request.body, options);
  }

  /** @param {Operation} operation @param {Request} request @param {string} messageId */
  #publishNotification(operation, request, messageId) {
    const { exchange, routingKey, options } = publishNotification(this.#sender, { ...request, messageId });
    this.#notifications.set(messageId, operation);
    operation.onSettled = () => this.#notifications.delete(messageId);
    this.#notifying.publish(exchange, routingKey, request.body, options, (refused) => {
      if (!refused) operation.succeed();
      // This comes when the channel ends, too. By the next turn of the loop the operation has failed for that reason.
      else setImmediate(() => operation.fail(new Overloaded('the queue refused the message', false)));
    });
  }

  async close() {
    this.lost ??= new ClientClosed('the client was closed', false);
    await this.#disconnect();
  }

  /** @param {Error} reason */
  #lose(reason) {
    if (this.lost) return;
    this.lost = reason;
    for (const operation of [...this.#calls.values(), ...this.#notifications.values()]) {
      operation.fail(new ConnectionLost(`the connection was lost: ${reasonOf(reason)}`, true, { cause: reason }));
    }
  }

  /** Lose a connection that is still there. @param {Error} reason */
  #abandon(reason) {
    this.#lose(reason);
    this.#disconnect();
  }

  async #disconnect() {
    const connection = this.#connection;
    if (!connection) return;
    let timer;
    await Promise.race([
      connection.close().catch(() => {}), // It is closed already.
      // What close() returns is never settled where the connection breaks meanwhile.
      new Promise((resolve) => connection.once('close', resolve)),
      new Promise((resolve) => (timer = setTimeout(resolve, CLOSE_TIMEOUT))),
    ]);
    clearTimeout(timer);
    hangUp(connection);
  }

  /** @param {any} error */
  #notSent(error) {
    if (error instanceof JsonRpcAmqpError) return error;
    if ([403, 404, 405, 406].includes(error.code)) {
      return new Refused(`the broker refused: ${reasonOf(error)}`, false, { cause: error });
    }
    const broker = this.#url.host || 'localhost';
    return new NotConnected(`no connection to ${broker}: ${reasonOf(error)}`, false, { cause: error });
  }
}

/**
 * amqplib waits for the other end to hang up, which a dead one never does, and it keeps the program alive meanwhile. It
 * has no other way to make an end, and learns of this one by the error.
 *
 * @param {import('amqplib').ChannelModel} connection
 */
function hangUp(connection) {
  /** @type {any} */ (connection.connection).stream.destroy(new Error('hung up'));
}
