// The default store: LMDB in the data directory. Keys are `<kind>/<id>`, values see record.ts.
import { chmodSync, closeSync, openSync, statfsSync } from 'node:fs'
import { join } from 'node:path'
import { open, type RootDatabase } from 'lmdb'
import { Type, type Static, type TSchema } from 'typebox'
import { inspect } from '../../lib/control/check.js'
import { RfaasError } from '../../lib/errors.js'
import { formatBytes } from '../../lib/units.js'
import { damagedStore, fileFlaw } from './lmdb-renewal.js'
import { ownDataDir } from './ownership.js'
import {
  decodeRecord,
  decodeVersion,
  emptySum,
  encodeRecord,
  formatVersion,
  keys,
  RecordSum,
  replaceInSum,
} from './record.js'
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

// Entries that are read between two turns of the event loop.
const ledgerPage = 500
// Of the event loop, that a commit waits for others at most; it waits for none when there are enough.
const mostTurns = 4
const enoughCommits = 64

export function lmdbStorePath(dataDir: string): string {
  return join(dataDir, 'state.mdb')
}

/** Changes are refused while the file system has less than `minFreeBytes` left. `disown` gives the
 * directory back when the store closes, or cannot be opened. A store that may be damaged is first given
 * to renewLmdbStore. */
export function openLmdbStore(
  dataDir: string,
  minFreeBytes: number,
  disown = ownDataDir(dataDir),
): Store {
  try {
    return new LmdbStore(dataDir, minFreeBytes, disown)
  } catch (error) {
    disown()
    throw error
  }
}

class LmdbStore implements Store {
  readonly #db: RootDatabase<string, string>
  readonly #path: string
  readonly #dataDir: string
  readonly #minFreeBytes: number
  readonly #disown: () => void
  readonly #queue: Changes[] = []
  /** The flush of what is queued. */
  #next: Promise<void> | undefined
  #failure: RfaasError | undefined
  #fail: (failure: RfaasError) => void = () => undefined
  readonly failed = new Promise<RfaasError>((resolve) => (this.#fail = resolve))
  #closed = false

  constructor(dataDir: string, minFreeBytes: number, disown: () => void) {
    this.#dataDir = dataDir
    this.#disown = disown
    this.#minFreeBytes = minFreeBytes
    this.#path = lmdbStorePath(dataDir)
    const flaw = fileFlaw(this.#path)
    if (flaw !== undefined) throw this.#damaged(flaw)
    try {
      // LMDB would let others read it.
      closeSync(openSync(this.#path, 'a', 0o600))
      chmodSync(this.#path, 0o600)
      this.#db = open<string, string>({
        path: this.#path,
        noSubdir: true,
        encoding: 'string',
        // A commit that is reported is on disk.
        overlappingSync: false,
      })
    } catch (error) {
      throw this.#damaged(`cannot be opened as a database (${messageOf(error)})`, error)
    }
    try {
      this.#checkVersion()
    } catch (error) {
      void this.#db.close()
      if (error instanceof RfaasError) throw error
      // LMDB's own findings: the first write reads its list of free pages.
      throw this.#damaged(`it cannot be written (${messageOf(error)})`, error)
    }
  }

  load(): Promise<Snapshot> {
    return Promise.resolve().then(() => this.#load())
  }

  #load(): Snapshot {
    return {
      epoch: this.#read(keys.epoch, Epoch) ?? 0,
      clock: this.#read(keys.clock, ClockRecord),
      leases: [...this.#all('lease', LeaseRecord, (lease) => lease.id)],
      nodes: [...this.#all('node', NodeRecord, (node) => node.name)],
      usage: [...this.#all('usage', TenantUsage, ({ tenant }) => tenant)],
      jobs: [...this.#all('job', JobRecord, jobKey)],
    }
  }

  async *ledger(position: LedgerPosition, endMs: number): AsyncGenerator<LedgerEntry> {
    const end = ledgerKey({ closedMs: endMs, id: '' })
    let start = ledgerKey(position)
    for (;;) {
      // What was read last begins the next page.
      const page = [...this.#db.getRange({ start, end, limit: ledgerPage + 1 })]
      const found = page.filter(({ key }) => key !== start)
      for (const { key } of found) {
        const entry = this.#read(key, LedgerEntry)
        if (entry === undefined) continue
        if (ledgerKey(entry) !== key) throw this.#damaged(`record ${key} is that of ${entry.id}`)
        yield entry
      }
      const last = found.at(-1)
      if (last === undefined) return
      start = last.key
      await new Promise((resolve) => setImmediate(resolve))
    }
  }

  assertWritable(): void {
    if (this.#failure !== undefined) throw this.#failure
    const { bavail, bsize } = statfsSync(this.#dataDir)
    if (bavail * bsize >= this.#minFreeBytes) return
    throw new RfaasError(
      'ERR_RFAAS_UNAVAILABLE',
      `the file system of ${this.#dataDir} has ${formatBytes(bavail * bsize)} left, the store wants ${formatBytes(this.#minFreeBytes)} (minFreeBytes): free some space, then try again`,
    )
  }

  commit(changes: Changes): Promise<void> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure)
    if (this.#closed) return Promise.reject(new Error('the store is closed'))
    this.#queue.push(changes)
    this.#next ??= this.#scheduleFlush()
    return this.#next
  }

  settled(): Promise<void> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure)
    return this.#next ?? Promise.resolve()
  }

  async close(): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    // Whoever committed learns of a failure.
    await this.#next?.catch(() => undefined)
    // LMDB must not be touched once a write has failed: its memory is not sound then. The directory
    // stays ours until this process has ended.
    if (this.#failure !== undefined) return
    await this.#db.close()
    this.#disown()
  }

  /** Commits that come close together share a transaction and its flush, which costs as much for one as
   * for many: as long as each turn of the event loop brings more, there is another one. */
  #scheduleFlush(): Promise<void> {
    return new Promise((resolve, reject) => {
      let turns = 0
      let known = 0
      const turn = (): void => {
        const grows = this.#queue.length > known
        known = this.#queue.length
        turns += 1
        if (grows && turns < mostTurns && known < enoughCommits) setImmediate(turn)
        else this.#flush(resolve, reject)
      }
      setImmediate(turn)
    })
  }

  /** It blocks the loop: LMDB's own asynchronous writes end the process when the disk is full. */
  #flush(resolve: () => void, reject: (failure: RfaasError) => void): void {
    const batch = this.#queue.splice(0)
    this.#next = undefined
    try {
      this.#write(batch)
      resolve()
    } catch (error) {
      this.#failure = new RfaasError(
        'ERR_RFAAS_UNAVAILABLE',
        `the store ${this.#path} could not be written (${messageOf(error)}): free or repair its disk, then restart the resource manager`,
        { cause: error },
      )
      reject(this.#failure)
      this.#fail(this.#failure)
    }
  }

  #write(batch: readonly Changes[]): void {
    this.#change((put) => {
      for (const changes of batch) {
        const { clock, leases, removedLeases, nodes, ledger, usage, jobs, removedJobs } = changes
        for (const lease of leases ?? []) put(`lease/${lease.id}`, lease)
        for (const node of nodes ?? []) put(`node/${node.name}`, node)
        if (clock !== undefined) put(keys.clock, clock)
        for (const entry of ledger ?? []) put(ledgerKey(entry), entry)
        for (const sums of usage ?? []) put(`usage/${sums.tenant}`, sums)
        for (const job of jobs ?? []) put(`job/${jobKey(job)}`, job)
        for (const id of removedLeases ?? []) put(`lease/${id}`, undefined)
        for (const key of removedJobs ?? []) put(`job/${key}`, undefined)
      }
      // It only grows: the last one stands for all.
      const epoch = batch.findLast((changes) => changes.epoch !== undefined)?.epoch
      if (epoch !== undefined) put(keys.epoch, epoch)
    })
  }

  /** One transaction, with the sum over all records. `put` with undefined removes the record. */
  #change<T>(what: (put: (key: string, value: unknown) => void) => T): T {
    return this.#db.transactionSync(() => {
      const transaction = lastTransaction(this.#db) + 1
      const before: Pick<RecordSum, 'count' | 'checksums'> =
        this.#read(keys.sum, RecordSum) ?? emptySum
      let sum = before
      const result = what((key, value) => {
        const old = this.#db.get(key)
        const text = value === undefined ? undefined : encodeRecord(key, value)
        sum = replaceInSum(sum, old, text)
        if (text !== undefined) this.#db.putSync(key, text)
        else if (old !== undefined) this.#db.removeSync(key)
      })
      if (sum !== before) {
        this.#db.putSync(keys.sum, encodeRecord(keys.sum, { ...sum, transaction }))
      }
      return result
    })
  }

  /** Before anything else is read or written: only this record is the same in all formats. */
  #checkVersion(): void {
    const text = this.#db.get(keys.version)
    if (text === undefined) {
      this.#change((put) => put(keys.version, formatVersion))
      return
    }
    const version = decodeVersion(text)
    if (version === formatVersion) return
    if (version === undefined) throw this.#damaged(`record ${keys.version} is not as it was stored`)
    throw new RfaasError(
      'ERR_RFAAS_INTERNAL',
      `the store ${this.#path} has format ${version}, this version of rfaas reads format ${formatVersion}: use the version that wrote it, or start with an empty data directory after all executors have ended`,
    )
  }

  *#all<S extends TSchema>(
    kind: string,
    schema: S,
    idOf: (record: Static<S>) => string,
  ): Generator<Static<S>> {
    // '0' is the character after '/'.
    for (const { key } of this.#db.getRange({ start: `${kind}/`, end: `${kind}0` })) {
      const record = this.#read(key, schema)
      if (record === undefined) continue
      const id = idOf(record)
      if (`${kind}/${id}` !== key) throw this.#damaged(`record ${key} is that of ${id}`)
      yield record
    }
  }

  #read<S extends TSchema>(key: string, schema: S): Static<S> | undefined {
    const text = this.#db.get(key)
    if (text === undefined) return undefined
    const value = decodeRecord(key, text)
    if (value === undefined) throw this.#damaged(`record ${key} is not as it was stored`)
    const finding = inspect(schema, value, 'it')
    if (finding !== undefined) throw this.#damaged(`record ${key}: ${finding.message}`)
    return value as Static<S>
  }

  #damaged(what: string, cause?: unknown): RfaasError {
    return damagedStore(this.#path, what, cause)
  }
}

/** The number of the newest one that is committed; they are numbered one by one. */
export function lastTransaction(db: RootDatabase<string, string>): number {
  return (db.getStats() as { lastTxnId: number }).lastTxnId
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
