// Every route of both managers, as their own descriptions list them: whatever is sent, the answer is
// a result or one of our errors, never a failure inside, and the manager goes on.
import { Agent, request as httpRequest } from 'node:http'
import fc from 'fast-check'
import { afterAll, describe, expect, it } from 'vitest'
import { inspect } from '../../lib/control/check.js'
import { ErrorBody } from '../../lib/control/schemas.js'
import { cleanUp, scriptManager, startNode } from '../executor-manager/support.js'
import {
  cleanUp as cleanUpManager,
  grant,
  registeredNode,
  startManager,
} from '../resource-manager/support.js'
import { fromSchema, type Schema } from './from-schema.js'
import { fuzz, mutated, patienceMs } from './fuzz.js'

interface Parameter {
  in: string
  name: string
  schema: Schema
}
interface Operation {
  parameters?: Parameter[]
  requestBody?: { content: Record<string, { schema: Schema }> }
}
interface Description {
  paths: Record<string, Record<string, Operation>>
}
interface Sent {
  method: string
  path: string
  headers: Record<string, string>
  body: Buffer | undefined
}

// A request that may wait is given this long to wait.
const brief = fc.integer({ min: 0, max: 20 })
const answerWithinMs = 20_000
const agent = new Agent({ keepAlive: true, maxSockets: 8 })

afterAll(async () => {
  agent.destroy()
  await cleanUp()
  await cleanUpManager()
})

/** Requests to a route of `description`, chosen anew for each. */
function requests(
  description: Description,
  ids: readonly string[],
  authorization: fc.Arbitrary<string | undefined>,
): fc.Arbitrary<Sent> {
  const routes = Object.entries(description.paths).flatMap(([path, operations]) =>
    Object.entries(operations).map(([method, operation]) => ({ path, method, operation })),
  )
  return fc.constantFrom(...routes).chain(({ path, method, operation }) =>
    fc.record({
      method: fc.constant(method.toUpperCase()),
      path: paths(path, operation, ids),
      headers: fc
        .record({ type: contentTypes(operation), authorization })
        .map(({ type, authorization: value }) => ({
          ...(type === undefined ? {} : { 'content-type': type }),
          ...(value === undefined ? {} : { authorization: value }),
        })),
      body: method === 'get' || method === 'head' ? fc.constant(undefined) : bodies(operation, ids),
    }),
  )
}

function paths(path: string, { parameters = [] }: Operation, ids: readonly string[]) {
  const values = parameters.map(({ schema }) =>
    fc.oneof(
      { arbitrary: fc.constantFrom(...ids), weight: 4 },
      fromSchema(schema).map((value) => encodeURIComponent(printable(value))),
      fc.constantFrom('%', '%00', '%ff', '..', '%2e%2e%2f', '*', '__proto__', 'x'.repeat(300)),
    ),
  )
  const query = fc.constantFrom('', '', '', '?', '?a=1&a=2', '?__proto__[a]=1', '?%ff=%')
  return fc.tuple(fc.tuple(...values), query).map(([chosen, tail]) => {
    let next = 0
    return path.replace(/\{[^}]+\}/g, () => chosen[next++] ?? '') + tail
  })
}

function printable(value: unknown): string {
  const text = typeof value === 'string' ? value : JSON.stringify(value)
  return text.replace(/[\ud800-\udfff]/g, '?')
}

function contentTypes({ requestBody }: Operation): fc.Arbitrary<string | undefined> {
  const right = Object.keys(requestBody?.content ?? {})[0] ?? 'application/octet-stream'
  return fc.oneof(
    { arbitrary: fc.constant(right), weight: 8 },
    fc.constantFrom(undefined, '', 'text/plain', 'application/json; charset=utf-16', 'a/b;;;', '/'),
  )
}

function bodies({ requestBody }: Operation, ids: readonly string[]) {
  const schema = Object.values(requestBody?.content ?? {})[0]?.schema
  const known = { waitMs: brief, id: fc.constantFrom(...ids), name: fc.constantFrom(...ids) }
  const fitting = (schema === undefined ? fc.jsonValue() : fromSchema(schema, known)).map((value) =>
    Buffer.from(JSON.stringify(value)),
  )
  return fc.oneof(
    { arbitrary: fitting, weight: 12 },
    { arbitrary: fitting.chain(mutated), weight: 4 },
    fc.uint8Array({ maxLength: 200 }).map((bytes) => Buffer.from(bytes)),
    // Nested deeper than a stack is, in a field and alone.
    fc.nat(60_000).map((depth) => Buffer.from(`${'['.repeat(depth)}${']'.repeat(depth)}`)),
    fc
      .nat(30_000)
      .map((depth) => Buffer.from(`{"cores":${'{"a":'.repeat(depth)}1${'}'.repeat(depth)}}`)),
    fc.constant(Buffer.alloc(2 ** 20 + 1, ' ')),
    fc.constant(undefined),
  )
}

/** The status and, for an answer that ends, its body. */
function send(url: string, { method, path, headers, body }: Sent): Promise<[number, string]> {
  return new Promise((resolve, reject) => {
    const call = httpRequest(url + path, {
      method,
      headers,
      agent,
      timeout: answerWithinMs,
    })
    call.once('timeout', () => call.destroy(new Error('no answer in time')))
    call.once('error', reject)
    call.once('response', (answer) => {
      const status = answer.statusCode ?? 0
      if (answer.headers['content-type'] === 'text/event-stream') {
        call.destroy()
        resolve([status, ''])
        return
      }
      const chunks: Buffer[] = []
      answer.on('data', (chunk: Buffer) => chunks.push(chunk))
      answer.once('error', reject)
      answer.once('end', () => resolve([status, Buffer.concat(chunks).toString('utf8')]))
    })
    call.end(body)
  })
}

/** Of a body that is too long the rest is not read: the connection may end before the answer is in. */
async function answerTo(url: string, sent: Sent): Promise<[number, string] | undefined> {
  try {
    return await send(url, sent)
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? ''
    if ((sent.body?.length ?? 0) > 2 ** 20 && ['EPIPE', 'ECONNRESET'].includes(code)) {
      return undefined
    }
    throw error
  }
}

function expectAnswer(sent: Sent, [status, text]: [number, string]): void {
  expect(status, text).toBeGreaterThanOrEqual(200)
  expect(status, text).toBeLessThan(500)
  if (status < 400 || sent.method === 'HEAD') return
  const body: unknown = JSON.parse(text)
  expect(inspect(ErrorBody, body)).toBeUndefined()
  expect(text.length).toBeLessThan(4096)
}

async function describedRoutes(url: string): Promise<Description> {
  const answer = await fetch(`${url}/openapi.json`)
  expect(answer.status).toBe(200)
  return (await answer.json()) as Description
}

async function probe(url: string, inputs: fc.Arbitrary<Sent>): Promise<void> {
  const before = process.memoryUsage().heapUsed
  await fuzz({
    runs: 300,
    inputs: [inputs],
    holds: async (sent) => {
      const answer = await answerTo(url, sent)
      if (answer !== undefined) expectAnswer(sent, answer)
    },
  })
  expect((await fetch(`${url}/healthz`)).status).toBe(200)
  // What was refused is not kept.
  expect(process.memoryUsage().heapUsed - before).toBeLessThan(512 * 2 ** 20)
}

describe('whatever is sent to it', () => {
  it(
    'the resource manager answers with a result or an error of ours',
    async () => {
      const { url } = await startManager()
      await registeredNode(url)
      const { lease } = await grant(url)
      const ids = [lease.id, `${lease.id}.0`, 'node-a', 'nobody']
      const nothing = fc.constantFrom(undefined, 'Bearer', 'Bearer x', 'Basic YTpi')
      await probe(url, requests(await describedRoutes(url), ids, nothing))
    },
    patienceMs,
  )

  it(
    'the executor manager answers with a result or an error of ours',
    async () => {
      const script = await scriptManager()
      const { url } = await startNode(script.url)
      // A lease of its own for each request: what one ended is none of the next one's concern.
      let epoch = 0
      const fresh = (): string => {
        epoch += 1
        const expiresAtMs = Date.now() + 5000
        return script.token({ lease: `l-${epoch % 8}`, epoch, expiresAtMs })
      }
      const authorization = fc.oneof(
        { arbitrary: fc.constant(0).map(() => `Bearer ${fresh()}`), weight: 8 },
        mutated(Buffer.from(fresh())).map((token) => `Bearer ${header(token)}`),
        fc.constantFrom(undefined, 'Bearer', 'Bearer a b', 'Basic YTpi'),
      )
      const ids = [...Array(8).keys()].map((index) => `l-${index}`)
      ids.push('0'.repeat(64))
      await probe(url, requests(await describedRoutes(url), ids, authorization))
    },
    patienceMs,
  )
})

/** What a header may hold: Node does not send the rest. */
function header(bytes: Buffer): string {
  return bytes.toString('latin1').replace(/[^\x21-\x7e]/g, '?')
}
