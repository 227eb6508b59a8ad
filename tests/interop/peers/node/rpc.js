/*
 * The RPCClient of rabbitmq-client: node rpc.js URL QUEUE MODE [--concurrent].
 *
 * Request bodies on standard input, one a line; answer bodies on standard output, in the order of the requests.
 * The modes are "direct", which sends each line as it is, and "json", which sends what JSON.parse makes of it.
 * There is none with a reply queue: this library has direct reply-to only. Its option confirm is left out, since a
 * request is noted only when it was confirmed: an answer that is faster is dropped.
 */
import { readFileSync } from 'node:fs'
import { Connection } from 'rabbitmq-client'

const [url, queue, mode, flag] = process.argv.slice(2)
const encoders = { direct: Buffer.from, json: JSON.parse }
const encode = encoders[mode]
if (!encode) throw new Error(`direct or json, not ${mode}`)

const lines = readFileSync(0, 'utf8').replace(/\n$/, '').split('\n')
const connection = new Connection(url)
connection.on('error', error => console.error(error))
const client = connection.createRPCClient({ timeout: 60_000 })

async function call(line) {
  try {
    const answer = await client.send(queue, encode(line))
    // The library has parsed it already, since its content_type is application/json.
    return JSON.stringify(answer.body)
  } catch (error) {
    return `! ${error.constructor.name}: ${error.code ?? ''} ${error.message}`
  }
}

const answers = []
for (const line of lines) {
  const answer = call(line)
  answers.push(flag === '--concurrent' ? answer : await answer)
}
for (const answer of answers) console.log(await answer)
await client.close()
await connection.close()
