// The resource manager's decisions. Each is made in memory within one turn of the event loop, so
// that two requests can never be granted the same core; it is answered once the store has it on disk.
import { after, type After, type Clock } from '../../lib/control/clock.js'
import { isLive, isOver, nextState } from '../../lib/control/lease-states.js'
import type { Logger } from '../../lib/control/log.js'
import type { Principal } from '../../lib/control/principal.js'
import type {
  HeartbeatReply,
  LeaseClosed,
  LeaseGrant,
  LeaseInfo,
  LeaseRequest,
  NodeHeartbeat,
  NodeInfo,
  NodeLeaving,
  NodeRegistration,
  NodeWelcome,
  RevokingEvent,
} from '../../lib/control/schemas.js'
import type { EventStream } from '../../lib/control/event-stream.js'
import { RfaasError, invalidArgument } from '../../lib/errors.js'
import type { LeaseRecord } from '../stores/store.js'
import { requireClient, requireNode, requireOperator, sees } from './access.js'
import { adopt } from './adoption.js'
import { CallBook } from './calls.js'
import { Granting, type GrantingOptions } from './granting.js'
import { JobAccounts } from './job-accounts.js'
import type { LeaseBook } from './leases.js'
import { Maintenance } from './maintenance.js'
import type { NodeTable } from './nodes.js'
import { leaseEnded, noLease, noNode, notFound } from './refusals.js'
import { State, stateAfter, type StateOptions } from './state.js'
import { UsageReader } from './usage.js'
import { leaseInfo } from './views.js'

const defaultNoticeMs = 30_000

export interface ManagerOptions extends StateOptions, GrantingOptions {
  heartbeatMs: number
  maxLeaseMs: number
  /** Timers that go with the clock. Default: those of this process. */
  after?: After
}

export class Manager {
  readonly usage: UsageReader
  readonly jobs: JobAccounts
  readonly maintenance: Maintenance
  readonly calls = new CallBook()
  readonly #options: ManagerOptions
  readonly #clock: Clock
  readonly #logger: Logger
  readonly #state: State
  readonly #leases: LeaseBook
  readonly #nodes: NodeTable
  readonly #granting: Granting
  readonly #after: After
  #stopWatch: () => void = () => undefined
  #stopTimer: () => void = () => undefined
  /** Which deadline the timer is for. */
  #armedForMs = Infinity
  #tickedAtMs: number
  #stopped = false

  constructor(options: ManagerOptions) {
    this.#options = options
    this.#clock = options.clock
    this.#logger = options.logger
    this.#state = new State(options, () => this.#armTimer())
    this.#leases = this.#state.leases
    this.#nodes = this.#state.nodes
    this.#granting = new Granting(this.#state, options)
    this.usage = new UsageReader(this.#state.ledger, options.store)
    this.jobs = new JobAccounts(this.#state, options.store, options.clock)
    this.maintenance = new Maintenance(this.#state, this.#granting, options.logger, () =>
      this.#tick(),
    )
    this.#after = options.after ?? after
    this.#tickedAtMs = options.clock.now()
    this.#watch()
  }

  /** Ends the timers; the store is closed by whoever opened it. */
  stop(why?: RfaasError): void {
    this.#stopped = true
    this.#stopWatch()
    this.#stopTimer()
    this.refuseWaiting(why)
  }

  /** Whoever waits for a lease is answered now: their requests would hold up the end of the server. */
  refuseWaiting(why = stopping()): void {
    this.#granting.refuseAll(why)
  }

  // ── clients ─────────────────────────────────────────────────────────────────────────────────

  /** Waits for up to `request.waitMs`; leaves the queue when `caller` aborts: it has hung up. */
  async grant(
    principal: Principal,
    request: LeaseRequest,
    caller: AbortSignal = new AbortController().signal,
  ): Promise<LeaseGrant> {
    requireClient(principal)
    this.#checkDuration(request.durationMs)
    this.#tick()
    if (request.node !== undefined) this.#requireKnown(request.node)
    const granted = this.#granting.request(principal, request, caller)
    // For the end of its wait.
    this.#armTimer()
    return granted
  }

  async renew(principal: Principal, id: string, durationMs: number): Promise<LeaseGrant> {
    requireClient(principal)
    this.#checkDuration(durationMs)
    this.#tick()
    const parts = this.#requireOwn(principal, id)
    const renewable = parts.filter(({ state }) => nextState(state, 'renew') !== undefined)
    if (renewable.length === 0) throw leaseEnded(parts)
    const epoch = this.#state.nextEpoch()
    const untilMs = this.#clock.now() + durationMs
    const renewed = renewable.map((part) => ({
      ...part,
      state: stateAfter(part, 'renew'),
      epoch,
      expiresAtMs: Math.max(part.expiresAtMs, untilMs),
    }))
    await this.#state.change({ leases: renewed, epoch })
    return this.#granting.grantOf(id)
  }

  async release(principal: Principal, id: string): Promise<void> {
    requireClient(principal)
    this.#tick()
    await this.#state.end(this.#requireOwn(principal, id), 'release')
  }

  /** Running calls may go on for `noticeMs`. A second call may shorten the notice, never lengthen it. */
  async revoke(principal: Principal, id: string, noticeMs = defaultNoticeMs): Promise<void> {
    requireOperator(principal)
    this.#tick()
    await this.#state.revoke(this.#requireOwn(principal, id), noticeMs)
    // Without notice it ends here and now.
    this.#tick()
    await this.#state.settled()
  }

  lease(principal: Principal, id: string): LeaseInfo {
    requireClient(principal)
    this.#tick()
    return this.#infoOf(this.#requireOwn(principal, id))
  }

  /** Those that the principal may see. */
  leases(principal: Principal): LeaseInfo[] {
    requireClient(principal)
    this.#tick()
    const seen = [...this.#leases.all()].filter((parts) => sees(principal, parts[0]!))
    return seen.map((parts) => this.#infoOf(parts))
  }

  nodes(): NodeInfo[] {
    this.#tick()
    return this.#nodes.list()
  }

  countLeases(): Map<string, number> {
    this.#tick()
    return this.#leases.countByState()
  }

  countNodes(): { up: number; draining: number; lost: number } {
    this.#tick()
    return this.#nodes.countByState()
  }

  countWaiting(): number {
    return this.#granting.waiting
  }

  // ── nodes ───────────────────────────────────────────────────────────────────────────────────

  /** Adopts the node's own account of what runs on it. */
  async register(
    principal: Principal,
    registration: NodeRegistration,
  ): Promise<Omit<NodeWelcome, 'publicKey' | 'heartbeatMs'>> {
    const { leases: reported, ...description } = registration
    const { name, url } = description
    requireNode(principal, name)
    this.#tick()
    this.#nodes.examine(registration)
    const nowMs = this.#clock.now()
    const cores = [...description.cores].sort((a, b) => a - b)
    const known = this.#nodes.get(name)
    // The operator's word about a node outlives its registrations; one that was removed begins anew.
    const draining =
      this.#nodes.registered(name)?.draining === true ? { draining: true as const } : {}
    const { gone, lost } = adopt(this.#nodes.holding(name), registration, known)
    const closing = gone.map((part) => this.#state.closing(part))
    const losing = lost.map((part) => ({
      ...part,
      state: stateAfter(part, 'lose'),
      endedAtMs: nowMs,
    }))
    const change = this.#state.changeEach({
      nodes: [{ ...description, cores, lastSeenMs: nowMs, ...draining }],
      leases: [...closing.map(({ lease }) => lease), ...losing],
      ledger: closing.map(({ entry }) => entry),
    })
    this.#granting.serve()
    await change
    this.#logger.info({ node: name, url, cores: cores.length }, 'node registered')
    const live = [...this.#nodes.holding(name)].filter(({ state }) => isLive(state))
    return {
      epoch: this.#state.epoch,
      live: live.map(({ id }) => id),
      ...this.#ordersFor(name, reported),
    }
  }

  /** Throws ERR_RFAAS_NOT_FOUND when the node has to register first. */
  heartbeat(
    principal: Principal,
    name: string,
    { leases, hostId, calls }: NodeHeartbeat,
  ): HeartbeatReply {
    requireNode(principal, name)
    this.#tick()
    if (this.#nodes.get(name)?.hostId !== hostId || !this.#nodes.heard(name, this.#clock.now())) {
      throw notFound('name', `node ${name} is not registered, or was lost: register it`)
    }
    if (calls !== undefined) this.calls.heard(name, calls, this.#clock.now())
    return this.#ordersFor(name, leases)
  }

  /** The node ends: nothing new is granted on it, and its leases are taken back with this notice.
   * Without notice it has ended; what it could not confirm it will when it is back. */
  async leave(principal: Principal, name: string, leaving: NodeLeaving): Promise<void> {
    requireNode(principal, name)
    this.#tick()
    this.#requireKnown(name)
    const { hostId, sequence, noticeMs } = leaving
    const known = this.#nodes.get(name)
    // Another host has taken over the name meanwhile, or this one has begun anew.
    if (known === undefined || known.hostId !== hostId || known.sequence > sequence) return
    this.#nodes.leave(name, noticeMs > 0)
    this.#logger.info({ node: name, noticeMs }, noticeMs > 0 ? 'node leaves' : 'node has left')
    // Who waited for this node may have another one now.
    this.#granting.serve()
    if (noticeMs === 0) return
    await this.#state.revoke(this.#nodes.holding(name), noticeMs)
  }

  /** When somebody else is expected to want the node, Unix time; undefined: nobody is. Placement may
   * take it into account. */
  expect(name: string, idleUntilMs: number | undefined): void {
    this.#nodes.expect(name, idleUntilMs)
  }

  attach(principal: Principal, name: string, open: () => EventStream): void {
    requireNode(principal, name)
    this.#requireKnown(name)
    const stream = open()
    this.#nodes.attach(name, stream)
    // What happened while nobody listened.
    for (const { id } of this.#nodes.holding(name)) this.#state.tell(id)
  }

  async activate(principal: Principal, name: string, id: string): Promise<void> {
    requireNode(principal, name)
    this.#tick()
    const part = this.#requirePartOn(name, id)
    const state = nextState(part.state, 'activate')
    if (state === undefined) throw leaseEnded([part])
    if (state === part.state) await this.#state.settled()
    else await this.#state.change({ leases: [{ ...part, state }] })
  }

  async closed(
    principal: Principal,
    name: string,
    id: string,
    measured: LeaseClosed,
  ): Promise<void> {
    requireNode(principal, name)
    this.#tick()
    const current = this.#requirePartOn(name, id)
    if (current.state === 'closed') {
      // Said before, perhaps a moment ago: it is billed once, and answered when that is on disk.
      await this.#state.settled()
      return
    }
    const { lease, entry } = this.#state.closing(current, measured)
    const change = this.#state.change({ leases: [lease], ledger: [entry] })
    this.#granting.serve()
    await change
    this.#logger.info({ lease: id, node: name, reason: entry.reason }, 'lease closed')
  }

  // ── inside ──────────────────────────────────────────────────────────────────────────────────

  /** Everything that time brings: leases expire, notices and waits end, silent nodes are lost. */
  #tick(): void {
    if (this.#stopped) return
    const nowMs = this.#clock.now()
    const { heartbeatMs } = this.#options
    // At least with every heartbeat this looks at the clock. Where it did not, it was held up (stopped, or
    // its machine suspended), and what nodes said meanwhile is yet to be read.
    if (nowMs - this.#tickedAtMs > 2 * heartbeatMs) this.#nodes.excuse(nowMs)
    this.#tickedAtMs = nowMs
    const lost = this.#nodes.markLost(nowMs)
    for (const node of lost) {
      this.calls.forget(node)
      this.#logger.warn({ node }, 'node lost: no heartbeat; its leases go on until they expire')
    }
    const due = this.#leases.due(nowMs)
    const expired = due.filter(({ expiresAtMs }) => expiresAtMs <= nowMs)
    const finished = due.filter(({ expiresAtMs }) => expiresAtMs > nowMs)
    this.#endInTime(expired, 'expire')
    this.#endInTime(finished, 'finish')
    if (this.#granting.refuseLate(nowMs) || lost.length > 0) this.#granting.serve()
    // What was due has armed it, or could not be stored: then the next heartbeat tries again.
    if (due.length === 0) this.#armTimer()
  }

  /** Nobody waits for it: should the store fail, the time of the end is on disk all the same. */
  #endInTime(parts: readonly LeaseRecord[], event: 'expire' | 'finish'): void {
    if (parts.length === 0) return
    this.#state.end(parts, event).catch((error: unknown) => {
      this.#logger.error({ err: error, event }, 'the end of leases could not be stored')
    })
  }

  /** A look every heartbeat, whatever the timer is for. */
  #watch(): void {
    this.#tick()
    if (!this.#stopped)
      this.#stopWatch = this.#after(this.#options.heartbeatMs, () => this.#watch())
  }

  #armTimer(): void {
    if (this.#stopped) return
    const next = Math.min(
      this.#leases.nextDeadlineMs ?? Infinity,
      this.#granting.nextDeadlineMs ?? Infinity,
    )
    if (next === this.#armedForMs) return
    this.#stopTimer()
    this.#armedForMs = next
    if (next === Infinity) return
    // Timers stand still while the machine is suspended: a look every minute notices.
    const delayMs = Math.min(Math.max(next - this.#clock.now(), 0), 60_000)
    this.#stopTimer = this.#after(delayMs, () => {
      this.#armedForMs = Infinity
      this.#tick()
    })
  }

  /** What a node has to end (its leases that are over, and whatever it runs without a live one), and
   * what is being taken back. */
  #ordersFor(name: string, reported: readonly string[]): HeartbeatReply {
    const end = new Set<string>()
    const revoking: RevokingEvent[] = []
    for (const part of this.#nodes.holding(name)) {
      if (isOver(part.state)) end.add(part.id)
      else if (part.state === 'revoking') revoking.push(this.#state.noticeOf(part))
    }
    for (const id of reported) {
      const part = this.#leases.part(id)
      if (part === undefined || part.node !== name || !isLive(part.state)) end.add(id)
    }
    return { nowMs: this.#clock.now(), end: [...end], revoking }
  }

  #checkDuration(durationMs: number): void {
    const { maxLeaseMs } = this.#options
    if (durationMs <= maxLeaseMs) return
    throw invalidArgument('durationMs', durationMs, `an integer from 1000 to ${maxLeaseMs}`)
  }

  /** That a lease exists is nobody's business but its tenant's. */
  #requireOwn(principal: Principal, id: string): readonly LeaseRecord[] {
    const parts = this.#leases.get(id)
    if (parts !== undefined && sees(principal, parts[0]!)) return parts
    throw noLease(id)
  }

  #requirePartOn(node: string, id: string): LeaseRecord {
    this.#nodes.heard(node, this.#clock.now())
    this.#requireKnown(node)
    const part = this.#leases.part(id)
    if (part === undefined) throw noLease(id)
    if (part.node === node) return part
    throw notFound('id', `lease ${id} is not on node ${node}`)
  }

  #requireKnown(name: string): void {
    if (this.#nodes.registered(name) === undefined) throw noNode(name)
  }

  #infoOf(parts: readonly LeaseRecord[]): LeaseInfo {
    return leaseInfo(parts, (name) => this.#nodes.get(name))
  }
}

function stopping(): RfaasError {
  return new RfaasError('ERR_RFAAS_CLOSED', 'the resource manager is stopping: try again later')
}
