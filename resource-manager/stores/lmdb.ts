// The default store: LMDB in the data directory. Values are JSON text, keys are `<kind>/<id>`.
import { closeSync, fstatSync, openSync, readSync, statfsSync } from 'node:fs'
import { join } from 'node:path'
import { open, type RootDatabase } from 'lmdb'
import { Type, type Static, type TSchema } from 'typebox'
import { inspect } from '../../lib/control/check.js'
import { isRunning, ProcessIdentity, thisProcess } from '../../lib/control/process-identity.js'
import { RfaasError } from '../../lib/errors.js'
import { formatBytes } from '../../lib/units.js'
import {
  LeaseRecord,
  LedgerEntry,
  NodeRecord,
  TenantUsage,
  type Changes,
  type LedgerPosition,
  type Snapshot,
  type Store,
} from './store.js'

const formatVersion = 2

const Version = Type.Integer({ minimum: 1 })
const Epoch = Type.Integer({ minimum: 0 })

const Anchor = Type.Object({ bootId: Type.String(), offsetMs: Type.Number() })

const keys = {
  version: 'meta/version',
  epoch: 'meta/epoch',
  clock: 'meta/clock',
  owner: 'meta/owner',
}
// Entries that are read between two turns of the event loop.
const ledgerPage = 500

/** Changes are refused while the file system has less than `minFreeBytes` left. */
export function openLmdbStore(dataDir: string, minFreeBytes: number): Store {
  return new LmdbStore(dataDir, minFreeBytes)
}

class LmdbStore implements Store {
  readonly #db: RootDatabase<string, string>
  readonly #path: string
  readonly #dataDir: string
  readonly #minFreeBytes: number
  readonly #queue: Changes[] = []
  /** The flush of what is queued. */
  #next: Promise<void> | undefined
  #failure: RfaasError | undefined
  #closed = false

  constructor(dataDir: string, minFreeBytes: number) {
    this.#dataDir = dataDir
    this.#minFreeBytes = minFreeBytes
    this.#path = join(dataDir, 'state.mdb')
    const flaw = fileFlaw(this.#path)
    if (flaw !== undefined) throw this.#damaged(flaw)
    try {
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
      this.#takeOwnership(dataDir)
      this.#checkVersion()
    } catch (error) {
      void this.#db.close()
      throw error
    }
  }

  load(): Snapshot {
    return {
      epoch: this.#read(keys.epoch, Epoch) ?? 0,
      clock: this.#read(keys.clock, Anchor),
      leases: [...this.#all('lease', LeaseRecord, (lease) => lease.id)],
      nodes: [...this.#all('node', NodeRecord, (node) => node.name)],
      usage: [...this.#all('usage', TenantUsage, ({ tenant }) => tenant)],
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
    // LMDB must not be touched once a write has failed: its memory is not sound then. The entry of
    // the owner stays, but it names a process that will be gone, and so stops nobody.
    if (this.#failure !== undefined) return
    this.#db.removeSync(keys.owner)
    await this.#db.close()
  }

  /** Commits of one turn of the event loop share a transaction and its flush. The flush blocks the
   * loop: LMDB's own asynchronous writes end the process when the disk is full. */
  #scheduleFlush(): Promise<void> {
    return new Promise((resolve, reject) => {
      setImmediate(() => {
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
        }
      })
    })
  }

  #write(batch: readonly Changes[]): void {
    const put = (key: string, value: unknown): void => this.#db.putSync(key, JSON.stringify(value))
    this.#db.transactionSync(() => {
      for (const { epoch, clock, leases, removedLeases, nodes, ledger, usage } of batch) {
        if (epoch !== undefined) put(keys.epoch, epoch)
        for (const lease of leases ?? []) put(`lease/${lease.id}`, lease)
        for (const node of nodes ?? []) put(`node/${node.name}`, node)
        if (clock !== undefined) put(keys.clock, clock)
        for (const entry of ledger ?? []) put(ledgerKey(entry), entry)
        for (const sums of usage ?? []) put(`usage/${sums.tenant}`, sums)
        for (const id of removedLeases ?? []) this.#db.removeSync(`lease/${id}`)
      }
    })
  }

  /** Two managers on one store would grant the same cores. LMDB's writer lock spans processes, so
   * reading the owner and becoming it is one step. */
  #takeOwnership(dataDir: string): void {
    const holder = this.#db.transactionSync((): ProcessIdentity | undefined => {
      const current = this.#read(keys.owner, ProcessIdentity)
      if (current !== undefined && isRunning(current)) return current
      this.#db.putSync(keys.owner, JSON.stringify(thisProcess()))
      return undefined
    })
    if (holder === undefined) return
    throw new RfaasError(
      'ERR_RFAAS_UNAVAILABLE',
      `the data directory ${dataDir} is in use by the resource manager with process id ${holder.pid}: stop it or choose another directory`,
      { field: 'dataDir', value: dataDir },
    )
  }

  #checkVersion(): void {
    const version = this.#read(keys.version, Version)
    if (version === formatVersion) return
    if (version !== undefined) {
      this.#db.transactionSync(() => this.#db.removeSync(keys.owner))
      throw new RfaasError(
        'ERR_RFAAS_INTERNAL',
        `the store ${this.#path} has format ${version}, this version of rfaas reads format ${formatVersion}: use the version that wrote it, or start with an empty data directory after all executors have ended`,
      )
    }
    this.#db.putSync(keys.version, JSON.stringify(formatVersion))
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
    let value: unknown
    try {
      value = JSON.parse(text)
    } catch (error) {
      throw this.#damaged(`record ${key} is not JSON`, error)
    }
    const finding = inspect(schema, value, 'it')
    if (finding !== undefined) throw this.#damaged(`record ${key}: ${finding.message}`)
    return value as Static<S>
  }

  #damaged(what: string, cause?: unknown): RfaasError {
    return new RfaasError(
      'ERR_RFAAS_INTERNAL',
      `the store ${this.#path} is damaged: ${what}. Restore it from a backup, or start with an empty data directory after all executors have ended`,
      cause === undefined ? {} : { cause },
    )
  }
}

/** Text that sorts like the time that it begins with. */
function ledgerKey({ closedMs, id }: LedgerPosition): string {
  return `ledger/${String(closedMs).padStart(16, '0')}/${id}`
}

/** LMDB maps the file and believes it: opening what is not a database, or one that was cut off, ends
 * the process with a signal. So the two meta pages (of which the newer one counts) are read first. */
function fileFlaw(path: string): string | undefined {
  const magicAt = 24
  const pageSizeAt = 48
  const lastPageAt = 144
  const magic = 0xbeefc0de
  let file: number
  try {
    file = openSync(path, 'r')
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code
    return code === 'ENOENT' ? undefined : `it cannot be read (${code})`
  }
  try {
    const { size } = fstatSync(file)
    // Made, but nothing was written before a crash: LMDB starts it anew.
    if (size === 0) return undefined
    const meta = Buffer.alloc(152)
    let pageSize = 0
    for (const page of [0, 1]) {
      const length = readSync(file, meta, 0, meta.length, page * pageSize)
      if (length < meta.length || meta.readUInt32LE(magicAt) !== magic) return 'it is no database'
      pageSize = meta.readUInt32LE(pageSizeAt)
      const needed = (meta.readBigUInt64LE(lastPageAt) + 1n) * BigInt(pageSize)
      if (BigInt(size) < needed) return `it was cut off: ${size} of ${needed} bytes are left`
    }
    return undefined
  } finally {
    closeSync(file)
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
