// Which of several resource managers leads: the one whose key is in etcd. The key hangs on a lease of
// etcd's, so it goes when its owner is silent for the lease's time, and the owner knows by its own clock
// that it does not lead any more before that can have happened.
import { Type, type Static } from 'typebox'
import { inspect } from '../../lib/control/check.js'
import type { Clock } from '../../lib/control/clock.js'
import { damaged, etcdNames, type Term } from './etcd.js'
import type { Entry, Etcd } from './etcd-client.js'
import { decodeRecord, encodeRecord } from './record.js'

/** What the leader says of itself, anew with every sign of life. */
const LeaderRecord = Type.Object({
  /** Where the other managers reach it. */
  url: Type.String({ format: 'uri' }),
  /** Of the clock that leases are measured by. */
  nowMs: Type.Optional(Type.Integer({ minimum: 0 })),
})
type LeaderRecord = Static<typeof LeaderRecord>

export interface Leader extends LeaderRecord {
  /** Of its term. */
  createRevision: string
  /** Of its last sign of life. */
  modRevision: string
}

export interface ElectionOptions {
  etcd: Etcd
  prefix: string
  /** Silence after which a leader is deposed. */
  ttlMs: number
  /** Does not stand still in suspend, and cannot be set. */
  clock: Clock
}

const lookWithinMs = 3000

export class Election {
  readonly #options: ElectionOptions
  readonly #leader: string
  readonly #last: string

  constructor(options: ElectionOptions) {
    this.#options = options
    this.#leader = `${options.prefix}${etcdNames.leader}`
    this.#last = `${options.prefix}${etcdNames.last}`
  }

  async leader(): Promise<Leader | undefined> {
    const entry = await this.#options.etcd.get(this.#leader, lookWithinMs)
    if (entry === undefined) return undefined
    const { value, createRevision, modRevision } = entry
    const record = decodeRecord(etcdNames.leader, value)
    if (inspect(LeaderRecord, record, 'it') !== undefined) {
      throw damaged(`record ${this.#leader} is not as it was stored`)
    }
    return { ...(record as LeaderRecord), createRevision, modRevision }
  }

  /** The term, if nobody else leads. */
  async stand(url: string): Promise<OwnTerm | undefined> {
    const { etcd, ttlMs, clock } = this.#options
    const askedAtMs = clock.now()
    const lease = await etcd.grantLease(Math.ceil(ttlMs / 1000), lookWithinMs)
    const untilMs = askedAtMs + lease.ttlMs
    let term: OwnTerm | undefined
    try {
      const { succeeded, revision, found } = await etcd.txn(
        [{ key: this.#leader, createRevision: '0' }],
        [
          { key: this.#leader, value: encodeRecord(etcdNames.leader, { url }), lease: lease.id },
          { key: this.#last, value: `${lease.id}/0` },
        ],
        [this.#leader],
        Math.max(1, untilMs - clock.now()),
      )
      // An attempt whose answer was lost may have won.
      const createRevision = succeeded ? revision : ownRevision(found[0], lease.id)
      if (createRevision !== undefined) {
        term = new OwnTerm({ ...this.#options, lease, createRevision, untilMs, url })
      }
    } finally {
      // Left alone it would be over by itself, too.
      if (term === undefined) await etcd.endLease(lease.id, lookWithinMs).catch(() => undefined)
    }
    return term
  }
}

interface OwnTermOptions extends ElectionOptions {
  lease: { id: string; ttlMs: number }
  createRevision: string
  untilMs: number
  url: string
}

export class OwnTerm implements Term {
  readonly #options: OwnTermOptions
  #untilMs: number
  #nowMs: (() => number) | undefined
  #timer: NodeJS.Timeout | undefined
  #isOver = false
  #end: (reason: string) => void = () => undefined
  /** Resolves with the reason when it is over. */
  readonly over = new Promise<string>((resolve) => (this.#end = resolve))
  #beating: Promise<void> | undefined

  constructor(options: OwnTermOptions) {
    this.#options = options
    this.#untilMs = options.untilMs
    this.#arm(0)
  }

  get name(): string {
    return this.#options.lease.id
  }

  get createRevision(): string {
    return this.#options.createRevision
  }

  get holds(): boolean {
    return !this.#isOver && this.leftMs > 0
  }

  get leftMs(): number {
    return this.#untilMs - this.#options.clock.now()
  }

  /** From now on the others hear what time it is for leases. */
  tells(nowMs: () => number): void {
    this.#nowMs = nowMs
  }

  /** Gives it up: another manager may lead at once. */
  async resign(): Promise<void> {
    const { etcd, lease } = this.#options
    this.#isOver = true
    clearTimeout(this.#timer)
    this.#end('it was given up')
    await this.#beating
    // Should etcd not hear of it, the lease ends by itself.
    await etcd.endLease(lease.id, lookWithinMs).catch(() => undefined)
  }

  #arm(delayMs: number): void {
    if (this.#isOver) return
    this.#timer = setTimeout(() => {
      this.#beating = this.#beat()
    }, delayMs)
  }

  async #beat(): Promise<void> {
    const { clock, lease } = this.#options
    try {
      if (!this.holds) return this.#depose('etcd was not heard from in time')
      const askedAtMs = clock.now()
      if (!(await this.#signOfLife())) return this.#depose('another manager was elected')
      this.#untilMs = askedAtMs + lease.ttlMs
      this.#arm(lease.ttlMs / 3)
    } catch (error) {
      // Until its time is over somebody may answer.
      if (!this.holds) return this.#depose((error as Error).message)
      this.#arm(lease.ttlMs / 20)
    }
  }

  async #signOfLife(): Promise<boolean> {
    const { etcd, lease, prefix, url, createRevision } = this.#options
    if (!(await etcd.keepLease(lease.id, this.leftMs))) return false
    const nowMs = this.#nowMs?.()
    const value = encodeRecord(etcdNames.leader, { url, ...(nowMs !== undefined && { nowMs }) })
    const key = `${prefix}${etcdNames.leader}`
    const { succeeded } = await etcd.txn(
      [{ key, createRevision }],
      [{ key, value, lease: lease.id }],
      [],
      Math.max(1, this.leftMs),
    )
    return succeeded
  }

  #depose(reason: string): void {
    this.#isOver = true
    this.#end(reason)
  }
}

function ownRevision(entry: Entry | undefined, lease: string): string | undefined {
  return entry?.lease === lease ? entry.createRevision : undefined
}
