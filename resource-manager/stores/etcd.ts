// The store of several resource managers: etcd v3. One of them leads and has all of it in memory; every
// transaction of its store depends on its still leading, so that one that was deposed without knowing,
// stopped or cut off, changes nothing any more.
import { Type, type Static, type TSchema } from 'typebox'
import { inspect } from '../../lib/control/check.js'
import { RfaasError } from '../../lib/errors.js'
import { mostWrites, type Entry, type Etcd, type Write } from './etcd-client.js'
import { decodeRecord, encodeRecord, formatVersion, keys } from './record.js'
import {
  ClockRecord,
  jobKey,
  JobRecord,
  LeaseRecord,
  LedgerEntry,
  ledgerKey,
  NodeRecord,
  TenantUsage,
  type Changes,
  type LedgerPosition,
  type Snapshot,
  type Store,
} from './store.js'

const Epoch = Type.Integer({ minimum: 0 })
const readWithinMs = 10_000
const pageSize = 500
// etcd takes 1.5 MiB; what is around each value has to fit, too.
const mostBytes = 1024 * 1024

/** The right to write, as long as it lasts. */
export interface Term {
  /** No other has it. `${name}/0` was stored as the last transaction when the term began. */
  readonly name: string
  /** Of the leader's key: it has another one in each term. */
  readonly createRevision: string
  /** False as soon as another manager may lead. */
  readonly holds: boolean
  /** How long it will hold at least if nothing is heard from etcd. */
  readonly leftMs: number
}

/** Names below the prefix. */
export const etcdNames = {
  leader: 'leader',
  signingKey: 'meta/signing-key',
  /** Names the last transaction: see EtcdStore.#write. */
  last: 'meta/last',
}

interface Commit {
  changes: Changes
  resolve: () => void
  reject: (error: RfaasError) => void
}

/** For the leader, as long as its term lasts. */
export function openEtcdStore(etcd: Etcd, prefix: string, term: Term): Store {
  return new EtcdStore(etcd, prefix, term)
}

/** What all managers share under `name`: the first one decides. */
export async function sharedRecord<S extends TSchema>(
  etcd: Etcd,
  prefix: string,
  name: string,
  schema: S,
  propose: () => Static<S>,
): Promise<Static<S>> {
  const key = `${prefix}${name}`
  let entry = await etcd.get(key, readWithinMs)
  if (entry === undefined) {
    const proposed = propose()
    const write = { key, value: encodeRecord(name, proposed) }
    const absent = { key, createRevision: '0' }
    const { succeeded, found } = await etcd.txn([absent], [write], [key], readWithinMs)
    if (succeeded) return proposed
    entry = found[0]
  }
  if (entry === undefined) throw damaged(`record ${key} is gone`)
  return readRecord(entry, prefix, schema)
}

/** Before anything else is read: throws when managers of another version wrote it. */
export async function checkEtcdFormat(etcd: Etcd, prefix: string): Promise<void> {
  const Version = Type.Integer()
  const version = await sharedRecord(etcd, prefix, keys.version, Version, () => formatVersion)
  if (version === formatVersion) return
  throw new RfaasError(
    'ERR_RFAAS_INTERNAL',
    `the store in etcd has format ${version}, this version of rfaas reads format ${formatVersion}: use the version that wrote it, or another prefix after all executors have ended`,
  )
}

class EtcdStore implements Store {
  readonly #etcd: Etcd
  readonly #prefix: string
  readonly #term: Term
  #number = 0
  readonly #queue: Commit[] = []
  /** Of the newest commit. */
  #newest: Promise<void> = Promise.resolve()
  #writing: Promise<void> | undefined
  #failure: RfaasError | undefined
  #fail: (failure: RfaasError) => void = () => undefined
  readonly failed = new Promise<RfaasError>((resolve) => (this.#fail = resolve))
  #closed = false

  constructor(etcd: Etcd, prefix: string, term: Term) {
    this.#etcd = etcd
    this.#prefix = prefix
    this.#term = term
  }

  async load(): Promise<Snapshot> {
    const [leases, nodes, usage, jobs] = await Promise.all([
      this.#all('lease', LeaseRecord, ({ id }) => id),
      this.#all('node', NodeRecord, ({ name }) => name),
      this.#all('usage', TenantUsage, ({ tenant }) => tenant),
      this.#all('job', JobRecord, jobKey),
    ])
    return {
      epoch: (await this.#one(keys.epoch, Epoch)) ?? 0,
      clock: await this.#one(keys.clock, ClockRecord),
      leases,
      nodes,
      usage,
      jobs,
    }
  }

  assertWritable(): void {
    if (this.#failure !== undefined) throw this.#failure
    if (!this.#term.holds) throw deposed()
  }

  commit(changes: Changes): Promise<void> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure)
    if (this.#closed) return Promise.reject(new Error('the store is closed'))
    this.#newest = new Promise((resolve, reject) => this.#queue.push({ changes, resolve, reject }))
    this.#writing ??= this.#writeAll()
    return this.#newest
  }

  settled(): Promise<void> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure)
    return this.#newest
  }

  async *ledger(position: LedgerPosition, endMs: number): AsyncGenerator<LedgerEntry> {
    // A key that follows directly.
    const start = `${this.#keyOf(ledgerKey(position))}\0`
    const end = this.#keyOf(ledgerKey({ closedMs: endMs, id: '' }))
    for await (const entry of this.#range(start, end)) {
      yield readRecord(entry, this.#prefix, LedgerEntry, ledgerKey)
    }
  }

  async close(): Promise<void> {
    this.#closed = true
    await this.#writing
  }

  /** One transaction at a time: what is committed meanwhile shares the next one. */
  async #writeAll(): Promise<void> {
    // The commits of one turn of the event loop, too.
    await new Promise((resolve) => setImmediate(resolve))
    while (this.#queue.length > 0) {
      const { commits, writes } = this.#nextBatch()
      try {
        await this.#write(writes)
        for (const { resolve } of commits) resolve()
      } catch (error) {
        this.#failure = failureOf(error)
        for (const { reject } of [...commits, ...this.#queue.splice(0)]) reject(this.#failure)
        this.#fail(this.#failure)
      }
    }
    this.#writing = undefined
  }

  /** As many of the oldest commits as a transaction takes. etcd wants every key once: the last one counts. */
  #nextBatch(): { commits: Commit[]; writes: Map<string, string | undefined> } {
    const commits: Commit[] = []
    const writes = new Map<string, string | undefined>()
    let bytes = 0
    for (const commit of this.#queue) {
      const more = this.#recordsOf(commit.changes)
      for (const [key, value = ''] of more) bytes += key.length + Buffer.byteLength(value)
      const tooMany = writes.size + more.length >= mostWrites || bytes > mostBytes
      if (tooMany && commits.length > 0) break
      commits.push(commit)
      for (const [key, value] of more) writes.set(key, value)
    }
    this.#queue.splice(0, commits.length)
    return { commits, writes }
  }

  #recordsOf(changes: Changes): [key: string, value: string | undefined][] {
    const { epoch, clock, leases = [], removedLeases = [], nodes = [] } = changes
    const records: [string, string | undefined][] = []
    const put = (name: string, value: unknown): void => {
      records.push([this.#keyOf(name), encodeRecord(name, value)])
    }
    if (epoch !== undefined) put(keys.epoch, epoch)
    if (clock !== undefined) put(keys.clock, clock)
    for (const lease of leases) put(`lease/${lease.id}`, lease)
    for (const node of nodes) put(`node/${node.name}`, node)
    for (const entry of changes.ledger ?? []) put(ledgerKey(entry), entry)
    for (const sums of changes.usage ?? []) put(`usage/${sums.tenant}`, sums)
    for (const job of changes.jobs ?? []) put(`job/${jobKey(job)}`, job)
    for (const id of removedLeases) records.push([this.#keyOf(`lease/${id}`), undefined])
    for (const key of changes.removedJobs ?? [])
      records.push([this.#keyOf(`job/${key}`), undefined])
    return records
  }

  /** Tried again until it has happened, as long as the term would last now. An attempt without an answer may have been
   * carried out, or be carried out later, when others have followed: so each transaction demands the
   * number of the one before, and a repeated one, late or not, changes nothing. */
  async #write(records: ReadonlyMap<string, string | undefined>): Promise<void> {
    const { name: term, createRevision } = this.#term
    const leader = this.#keyOf(etcdNames.leader)
    const last = this.#keyOf(etcdNames.last)
    const before = `${term}/${this.#number}`
    const after = `${term}/${this.#number + 1}`
    const writes: Write[] = [{ key: last, value: after }]
    for (const [name, value] of records) {
      writes.push(value === undefined ? { key: name } : { key: name, value })
    }
    const { succeeded, found } = await this.#etcd.txn(
      [
        { key: leader, createRevision },
        { key: last, value: before },
      ],
      writes,
      [last],
      this.#term.leftMs,
    )
    if (!succeeded && found[0]?.value !== after) throw deposed()
    this.#number += 1
  }

  #keyOf(name: string): string {
    return `${this.#prefix}${name}`
  }

  async #all<S extends TSchema>(
    kind: string,
    schema: S,
    idOf: (record: Static<S>) => string,
  ): Promise<Static<S>[]> {
    const records: Static<S>[] = []
    // '0' is the character after '/'.
    for await (const entry of this.#range(this.#keyOf(`${kind}/`), this.#keyOf(`${kind}0`))) {
      records.push(readRecord(entry, this.#prefix, schema, (record) => `${kind}/${idOf(record)}`))
    }
    return records
  }

  async *#range(start: string, end: string): AsyncGenerator<Entry> {
    for (;;) {
      const page = await this.#etcd.range(start, end, pageSize, readWithinMs)
      yield* page
      const last = page.at(-1)
      if (last === undefined || page.length < pageSize) return
      start = `${last.key}\0`
    }
  }

  async #one<S extends TSchema>(name: string, schema: S): Promise<Static<S> | undefined> {
    const entry = await this.#etcd.get(this.#keyOf(name), readWithinMs)
    return entry && readRecord(entry, this.#prefix, schema)
  }
}

function readRecord<S extends TSchema>(
  { key, value: text }: Entry,
  prefix: string,
  schema: S,
  nameOf?: (record: Static<S>) => string,
): Static<S> {
  const name = key.slice(prefix.length)
  const value = decodeRecord(name, text)
  if (value === undefined) throw damaged(`record ${key} is not as it was stored`)
  const finding = inspect(schema, value, 'it')
  if (finding !== undefined) throw damaged(`record ${key}: ${finding.message}`)
  const record = value as Static<S>
  if (nameOf !== undefined && nameOf(record) !== name) throw damaged(`record ${key} is another's`)
  return record
}

export function damaged(what: string): RfaasError {
  return new RfaasError(
    'ERR_RFAAS_INTERNAL',
    `the store in etcd is damaged: ${what}. Restore etcd from a snapshot, or use an empty prefix after all executors have ended`,
  )
}

function failureOf(error: unknown): RfaasError {
  if (error instanceof RfaasError) return error
  return new RfaasError(
    'ERR_RFAAS_UNAVAILABLE',
    `etcd refused to store a change (${(error as Error).message}): see its log`,
    { cause: error },
  )
}

function deposed(): RfaasError {
  return new RfaasError(
    'ERR_RFAAS_UNAVAILABLE',
    'this resource manager does not lead any more: try again, another one does',
  )
}
