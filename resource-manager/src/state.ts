// What the manager knows, in memory and on disk as one: whoever is answered finds it again after a
// restart.
import type { Clock } from '../../lib/control/clock.js'
import { isOver, nextState, type LeaseEvent } from '../../lib/control/lease-states.js'
import type { Logger } from '../../lib/control/log.js'
import type { LeaseClosed, RevokingEvent } from '../../lib/control/schemas.js'
import { RfaasError } from '../../lib/errors.js'
import type {
  Changes,
  EndReason,
  LeaseRecord,
  LedgerEntry,
  Snapshot,
  Store,
} from '../stores/store.js'
import { JobBook } from './jobs.js'
import { Ledger, ledgerEntry } from './ledger.js'
import { LeaseBook } from './leases.js'
import { NodeTable } from './nodes.js'
import { leaseEnded } from './refusals.js'

const rememberedClosedLeases = 1000
const rememberedEndedJobs = 10_000
// 250 parts of leases, or fewer with many cores: with their entries in the ledger less than a megabyte.
const mostAtOnce = 25_000
// A node learns our clock from our answers, a moment late: a lease that it ends this shortly before
// its expiry has expired.
const clockSkewMs = 1000

export interface StateOptions {
  store: Store
  /** What the store had loaded. */
  snapshot: Snapshot
  clock: Clock
  nodeTimeoutMs: number
  logger: Logger
}

export class State {
  readonly clock: Clock
  readonly leases = new LeaseBook(rememberedClosedLeases)
  readonly nodes: NodeTable
  readonly ledger: Ledger
  readonly jobs: JobBook
  readonly #store: Store
  readonly #logger: Logger
  readonly #onChange: () => void
  #epoch: number

  /** `onChange` is called after every change in memory. */
  constructor(options: StateOptions, onChange: () => void) {
    const { epoch, leases, nodes, usage, jobs } = options.snapshot
    this.clock = options.clock
    this.nodes = new NodeTable(options.nodeTimeoutMs)
    this.ledger = new Ledger(usage)
    this.jobs = new JobBook(rememberedEndedJobs, jobs)
    this.#store = options.store
    this.#logger = options.logger
    this.#onChange = onChange
    this.#epoch = epoch
    for (const node of nodes) this.nodes.restore(node)
    for (const lease of [...leases].sort((a, b) => a.grantedAtMs - b.grantedAtMs)) {
      if (this.nodes.get(lease.node) === undefined) {
        throw damaged(`lease ${lease.id} is on node ${lease.node}, which is not recorded`)
      }
      this.#epoch = Math.max(this.#epoch, lease.epoch)
      this.#put(lease)
    }
    for (const parts of this.leases.all()) {
      const missing = Array.from(parts).indexOf(undefined as never)
      if (missing >= 0) throw damaged(`part ${missing} of lease ${parts.at(-1)!.lease} is missing`)
    }
  }

  /** The highest one that was ever granted. */
  get epoch(): number {
    return this.#epoch
  }

  nextEpoch(): number {
    this.#epoch += 1
    return this.#epoch
  }

  /** Memory now, disk before the promise resolves. The only place where either changes. */
  async change(changes: Changes): Promise<void> {
    this.#store.assertWritable()
    for (const node of changes.nodes ?? []) this.nodes.update(node)
    const removedLeases = (changes.leases ?? []).flatMap((lease) => this.#put(lease))
    const usage = (changes.ledger ?? []).map((entry) => this.ledger.add(entry))
    const removedJobs = (changes.jobs ?? []).flatMap((job) => this.jobs.put(job))
    this.#onChange()
    await this.#store.commit({ ...changes, removedLeases, usage, removedJobs })
  }

  /** The same for what need not change together: a store need not take thousands of records at once. A
   * part and its entry in the ledger stay together, nodes come first. */
  async changeEach({ nodes = [], leases = [], ledger = [] }: Changes): Promise<void> {
    const entries = new Map(ledger.map((entry) => [entry.id, entry]))
    const pieces: LeaseRecord[][] = [[]]
    let weight = 0
    for (const lease of leases) {
      if (weight > mostAtOnce) {
        pieces.push([])
        weight = 0
      }
      pieces.at(-1)!.push(lease)
      weight += 100 + lease.cores.length
    }
    const changes = pieces.map((piece, index) =>
      this.change({
        nodes: index === 0 ? nodes : [],
        leases: piece,
        ledger: piece.flatMap(({ id }) => entries.get(id) ?? []),
      }),
    )
    await Promise.all(changes)
  }

  /** Resolves when everything that was decided so far is on disk. */
  settled(): Promise<void> {
    return this.#store.settled()
  }

  /** What `event` does to these parts of leases; those that it does not change stay as they are. */
  async end(parts: Iterable<LeaseRecord>, event: LeaseEvent): Promise<void> {
    const nowMs = this.clock.now()
    const ended: LeaseRecord[] = []
    for (const part of parts) {
      const state = stateAfter(part, event)
      if (state === part.state) continue
      const { expiresAtMs, revokeAtMs = nowMs } = part
      // It may be noticed late.
      const endedAtMs = Math.min(nowMs, event === 'finish' ? revokeAtMs : expiresAtMs)
      ended.push({ ...part, state, endedAtMs })
    }
    if (ended.length === 0) return this.settled()
    await this.changeEach({ leases: ended })
    for (const { id, node, state } of ended) {
      this.#logger.info({ lease: id, node, state }, 'lease ended')
      this.tell(id)
    }
  }

  /** Gives notice: running calls may go on for `noticeMs`. A notice that was given before may become
   * shorter, never longer. */
  async revoke(parts: Iterable<LeaseRecord>, noticeMs: number): Promise<void> {
    const untilMs = this.clock.now() + noticeMs
    const told: LeaseRecord[] = []
    for (const part of parts) {
      const state = stateAfter(part, 'revoke')
      const revokeAtMs = Math.min(part.revokeAtMs ?? Infinity, untilMs)
      if (state === 'revoking' && revokeAtMs !== part.revokeAtMs) {
        told.push({ ...part, state, revokeAtMs })
      }
    }
    if (told.length === 0) return this.settled()
    await this.changeEach({ leases: told })
    for (const { id, node } of told) {
      this.#logger.info({ lease: id, node, noticeMs }, 'lease is taken back')
      // Of one whose notice is over already, its end is told.
      if (this.leases.part(id)?.state === 'revoking') this.tell(id)
    }
  }

  /** What closing a part changes. Without what its node measured, it is lost. */
  closing(part: LeaseRecord, measured?: LeaseClosed): { lease: LeaseRecord; entry: LedgerEntry } {
    const nowMs = this.clock.now()
    let reason: EndReason = 'node'
    if (isOver(part.state)) reason = part.state
    else if (part.expiresAtMs - nowMs <= clockSkewMs) reason = 'expired'
    else if (part.state === 'revoking') reason = 'revoked'
    else if (measured === undefined) reason = 'lost'
    return {
      lease: { ...part, state: stateAfter(part, 'close') },
      entry: ledgerEntry(part, measured, nowMs, reason),
    }
  }

  /** The node hears what it has to do about a part, as it is now. */
  tell(id: string): void {
    const part = this.leases.part(id)
    if (part === undefined) return
    const { node, state } = part
    if (isOver(state)) this.nodes.tell(node, 'end', { lease: id, reason: state })
    if (state === 'revoking') this.nodes.tell(node, 'revoking', this.noticeOf(part))
  }

  /** How much of it is left. */
  noticeOf({ id, revokeAtMs = 0 }: LeaseRecord): RevokingEvent {
    return { lease: id, noticeMs: Math.max(0, revokeAtMs - this.clock.now()) }
  }

  #put(lease: LeaseRecord): string[] {
    this.nodes.put(lease)
    return this.leases.put(lease)
  }
}

/** Throws when the state of the part does not allow the event. */
export function stateAfter(part: LeaseRecord, event: LeaseEvent): LeaseRecord['state'] {
  const state = nextState(part.state, event)
  if (state !== undefined) return state
  throw leaseEnded([part])
}

function damaged(what: string): RfaasError {
  return new RfaasError('ERR_RFAAS_INTERNAL', `the store is damaged: ${what}`)
}
