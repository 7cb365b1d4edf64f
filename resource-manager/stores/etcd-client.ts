// What the resource manager needs of etcd v3, over the JSON gateway that every etcd has: no library, and
// each call has a deadline of its own, after which the next member is asked. Whoever calls has to be
// prepared for a request that is carried out twice, or late.
import { setTimeout as sleep } from 'node:timers/promises'
import { Type, type Static, type TSchema } from 'typebox'
import { check } from '../../lib/control/check.js'
import { ManagerUrls } from '../../lib/control/manager-urls.js'
import type { Transport } from '../../lib/control/transport.js'
import { RfaasError } from '../../lib/errors.js'

const maxAnswerBytes = 256 * 1024 * 1024
// A member that lost its leader keeps a request for seven seconds: we do not wait for that.
const attemptMs = 1000
const pauseMs = 50
// Of gRPC: cancelled, deadline exceeded, unavailable.
const passing = new Set([1, 4, 14])

// 64-bit integers are text in JSON; what is zero, false or empty is left out.
const Integer = Type.String({ pattern: '^-?\\d{1,20}$' })
const KeyValue = Type.Object({
  key: Type.String(),
  value: Type.Optional(Type.String()),
  create_revision: Type.Optional(Integer),
  mod_revision: Type.Optional(Integer),
  lease: Type.Optional(Integer),
})
const Range = Type.Object({ kvs: Type.Optional(Type.Array(KeyValue)) })
const Txn = Type.Object({
  header: Type.Object({ revision: Type.Optional(Integer) }),
  succeeded: Type.Optional(Type.Boolean()),
  responses: Type.Optional(Type.Array(Type.Object({ response_range: Type.Optional(Range) }))),
})
const Granted = Type.Object({ ID: Integer, TTL: Integer })
const KeptAlive = Type.Object({ result: Type.Object({ TTL: Type.Optional(Integer) }) })
const Status = Type.Object({
  dbSize: Type.Optional(Integer),
  leader: Type.Optional(Integer),
  errors: Type.Optional(Type.Array(Type.String())),
})
const Refusal = Type.Object({ message: Type.String(), code: Type.Integer() })

export interface Entry {
  key: string
  value: string
  createRevision: string
  modRevision: string
  lease: string
}

export type Compare = { key: string; createRevision: string } | { key: string; value: string }

/** Puts a value, or, without one, removes the key. */
export interface Write {
  key: string
  value?: string
  lease?: string
}

export interface TxnOutcome {
  succeeded: boolean
  /** Of the whole store, with this transaction. */
  revision: string
  /** What `otherwise` found, key by key; undefined where nothing is. */
  found: (Entry | undefined)[]
}

export interface MemberStatus {
  url: string
  /** Undefined: it answers and has a leader. */
  problem?: string
  dbBytes?: number
}

/** etcd understood, and will not do it: the same request would be refused again. */
export class EtcdRefusal extends Error {
  readonly code: number

  constructor(message: string, code: number) {
    super(message)
    this.code = code
  }

  /** What it was about does not exist (any more). */
  get notFound(): boolean {
    return this.code === 5
  }
}

export class Etcd {
  readonly #members: ManagerUrls
  readonly #transport: Transport

  constructor(members: readonly string[], transport: Transport) {
    this.#members = new ManagerUrls(members)
    this.#transport = transport
  }

  async get(key: string, withinMs: number): Promise<Entry | undefined> {
    const { kvs = [] } = await this.#call('kv/range', { key: encode(key) }, Range, withinMs)
    return kvs[0] && entryOf(kvs[0])
  }

  /** Keys from `start` on that are less than `end`, in order. */
  async range(start: string, end: string, limit: number, withinMs: number): Promise<Entry[]> {
    const body = { key: encode(start), range_end: encode(end), limit: String(limit) }
    const { kvs = [] } = await this.#call('kv/range', body, Range, withinMs)
    return kvs.map(entryOf)
  }

  /** If all of `given` is so, then all of `writes` happens (no key twice); otherwise `otherwise` is read. */
  async txn(
    given: readonly Compare[],
    writes: readonly Write[],
    otherwise: readonly string[],
    withinMs: number,
  ): Promise<TxnOutcome> {
    const body = {
      compare: given.map(comparison),
      success: inGroups(writes.map(operation)),
      failure: otherwise.map((key) => ({ request_range: { key: encode(key) } })),
    }
    const {
      header,
      succeeded = false,
      responses = [],
    } = await this.#call('kv/txn', body, Txn, withinMs)
    const found = succeeded
      ? []
      : responses.map(({ response_range: { kvs = [] } = {} }) => kvs[0] && entryOf(kvs[0]))
    return { succeeded, revision: header.revision ?? '0', found }
  }

  /** Its id, and for how long etcd keeps it: at least a second and a half of its election timeout. */
  async grantLease(seconds: number, withinMs: number): Promise<{ id: string; ttlMs: number }> {
    const { ID, TTL } = await this.#call('lease/grant', { TTL: String(seconds) }, Granted, withinMs)
    return { id: ID, ttlMs: Number(TTL) * 1000 }
  }

  /** False: it is over. */
  async keepLease(id: string, withinMs: number): Promise<boolean> {
    const { result } = await this.#call('lease/keepalive', { ID: id }, KeptAlive, withinMs)
    return Number(result.TTL ?? 0) > 0
  }

  /** Its keys are gone when this resolves. */
  async endLease(id: string, withinMs: number): Promise<void> {
    try {
      await this.#call('lease/revoke', { ID: id }, Type.Unknown(), withinMs)
    } catch (error) {
      if (!(error instanceof EtcdRefusal && error.notFound)) throw error
    }
  }

  status(): Promise<MemberStatus[]> {
    return Promise.all(
      this.#members.all.map(async (url) => {
        try {
          const answer = await this.#ask(url, 'maintenance/status', {}, attemptMs)
          const status = check(Status, answer, `the status of etcd at ${url}`)
          const { dbSize = '0', leader = '0', errors = [] } = status
          const problem = leader === '0' ? 'it has no leader' : errors.join(', ')
          return { url, dbBytes: Number(dbSize), ...(problem !== '' && { problem }) }
        } catch (error) {
          return { url, problem: messageOf(error) }
        }
      }),
    )
  }

  /** Asks one member after the other until one answers, for at most `withinMs`. */
  async #call<S extends TSchema>(
    path: string,
    body: object,
    schema: S,
    withinMs: number,
  ): Promise<Static<S>> {
    const deadline = performance.now() + withinMs
    for (let attempt = 1; ; attempt += 1) {
      const url = this.#members.current
      try {
        const leftMs = Math.max(1, Math.min(attemptMs, deadline - performance.now()))
        return check(schema, await this.#ask(url, path, body, leftMs), `etcd's answer to ${path}`)
      } catch (error) {
        if (error instanceof EtcdRefusal) {
          if (!passing.has(error.code)) throw error
        } else if (error instanceof RfaasError) throw error
        this.#members.passOver(url)
        if (performance.now() + pauseMs >= deadline) throw unavailable(url, error)
        // All have been asked.
        if (attempt % this.#members.all.length === 0) await sleep(pauseMs)
      }
    }
  }

  #ask(url: string, path: string, body: object, withinMs: number): Promise<unknown> {
    const payload = Buffer.from(JSON.stringify(body))
    const headers = { 'content-type': 'application/json', 'content-length': payload.byteLength }
    return new Promise((resolve, reject) => {
      const sent = this.#transport.send(new URL(`/v3/${path}`, url), 'POST', headers)
      const timer = setTimeout(() => {
        sent.destroy(new Error(`no answer within ${Math.round(withinMs)} ms`))
      }, withinMs)
      const fail = (error: Error): void => {
        clearTimeout(timer)
        reject(error)
      }
      sent.on('error', fail)
      sent.once('response', (response) => {
        const chunks: Buffer[] = []
        let length = 0
        response.on('error', fail)
        response.on('aborted', () => fail(new Error('the connection was lost')))
        response.on('data', (chunk: Buffer) => {
          chunks.push(chunk)
          length += chunk.byteLength
          if (length > maxAnswerBytes) sent.destroy(new Error('the answer is too long'))
        })
        response.once('end', () => {
          clearTimeout(timer)
          try {
            resolve(readAnswer(response.statusCode ?? 0, Buffer.concat(chunks).toString()))
          } catch (error) {
            reject(error as Error)
          }
        })
      })
      sent.end(payload)
    })
  }
}

function readAnswer(status: number, text: string): unknown {
  let answer: unknown
  try {
    answer = JSON.parse(text)
  } catch {
    throw new Error(`status ${status} with a body that is not JSON`)
  }
  if (status === 200) return answer
  const { message, code } = check(Refusal, answer, `etcd's answer with status ${status}`)
  // It goes on refusing until somebody does that.
  const full = message.includes('database space exceeded')
  const remedy = ': compact it, defragment every member (etcdctl defrag), then etcdctl alarm disarm'
  throw new EtcdRefusal(full ? message + remedy : message, code)
}

function comparison(compare: Compare): object {
  const of = { key: encode(compare.key), result: 'EQUAL' }
  return 'value' in compare
    ? { ...of, target: 'VALUE', value: encode(compare.value) }
    : { ...of, target: 'CREATE', create_revision: compare.createRevision }
}

function operation({ key, value, lease }: Write): object {
  if (value === undefined) return { request_delete_range: { key: encode(key) } }
  return { request_put: { key: encode(key), value: encode(value), ...(lease && { lease }) } }
}

/** etcd takes 128 operations in a transaction, less one for each that is beside a nested one: groups
 * of 60 let 3,600 happen at once. */
const perGroup = 60
export const mostWrites = perGroup * perGroup

function inGroups(operations: readonly object[]): readonly object[] {
  if (operations.length <= 2 * perGroup) return operations
  const groups: object[] = []
  for (let at = 0; at < operations.length; at += perGroup) {
    groups.push({ request_txn: { success: operations.slice(at, at + perGroup) } })
  }
  return groups
}

function entryOf({ key, value = '', ...more }: Static<typeof KeyValue>): Entry {
  const { create_revision = '0', mod_revision = '0', lease = '0' } = more
  return {
    key: decode(key),
    value: decode(value),
    createRevision: create_revision,
    modRevision: mod_revision,
    lease,
  }
}

function encode(text: string): string {
  return Buffer.from(text).toString('base64')
}

function decode(text: string): string {
  return Buffer.from(text, 'base64').toString()
}

function unavailable(url: string, cause: unknown): RfaasError {
  return new RfaasError(
    'ERR_RFAAS_UNAVAILABLE',
    `etcd does not answer (${url}: ${messageOf(cause)}): check that most of its members run and can reach each other`,
    { cause },
  )
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
