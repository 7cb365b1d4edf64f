// The resource manager's decisions. Each is made in memory within one turn of the event loop, so
// that two requests can never be granted the same core; it is answered once the store has it on disk.
import type { KeyObject } from 'node:crypto'
import type {
  HeartbeatReply,
  LeaseClosed,
  LeaseGrant,
  LeaseInfo,
  LeaseRequest,
  NodeHeartbeat,
  NodeInfo,
  NodeRegistration,
  NodeWelcome,
} from '../../lib/control/schemas.js'
import { isLive, isOver, nextState, type LeaseEvent } from '../../lib/control/lease-states.js'
import type { Logger } from '../../lib/control/log.js'
import type { Principal } from '../../lib/control/principal.js'
import type { EventStream } from '../../lib/control/server.js'
import { signToken } from '../../lib/control/token.js'
import { RfaasError, invalidArgument } from '../../lib/errors.js'
import type { Scheduler } from '../schedulers/first-fit.js'
import type { Changes, EndReason, LeaseRecord, Store } from '../stores/store.js'
import { requireClient, requireNode, requireOperator, sees } from './access.js'
import { adopt } from './adoption.js'
import { Ledger, ledgerEntry, type TenantUsage } from './ledger.js'
import { LeaseBook, newLeaseId } from './leases.js'
import { NodeTable } from './nodes.js'
import { leaseEnded, noCapacity, noLease, notFound } from './refusals.js'

const rememberedClosedLeases = 1000
// A node's clock and ours differ a little: a lease that it ends this shortly before its expiry by our
// clock has expired.
const clockSkewMs = 1000

export interface ManagerOptions {
  store: Store
  privateKey: KeyObject
  scheduler: Scheduler
  logger: Logger
  heartbeatMs: number
  nodeTimeoutMs: number
  maxLeaseMs: number
}

export class Manager {
  readonly #options: ManagerOptions
  readonly #logger: Logger
  readonly #leases = new LeaseBook(rememberedClosedLeases)
  readonly #nodes: NodeTable
  readonly #ledger = new Ledger()
  readonly #watch: NodeJS.Timeout
  #expiry: NodeJS.Timeout | undefined
  #epoch = 0
  #stopped = false

  constructor(options: ManagerOptions) {
    this.#options = options
    this.#logger = options.logger
    this.#nodes = new NodeTable(options.nodeTimeoutMs)
    const { epoch, leases, nodes, ledger } = options.store.load()
    this.#epoch = epoch
    for (const node of nodes) this.#nodes.restore(node)
    for (const lease of leases) {
      if (this.#nodes.get(lease.node) === undefined) {
        throw new RfaasError(
          'ERR_RFAAS_INTERNAL',
          `the store is damaged: lease ${lease.id} is on node ${lease.node}, which is not recorded`,
        )
      }
      this.#epoch = Math.max(this.#epoch, lease.epoch)
      this.#leases.put(lease)
    }
    for (const entry of ledger) this.#ledger.add(entry)
    this.#watch = setInterval(() => this.#findLostNodes(), options.heartbeatMs).unref()
    this.#expireDue()
  }

  /** Ends the timers; the store is closed by whoever opened it. */
  stop(): void {
    this.#stopped = true
    clearInterval(this.#watch)
    clearTimeout(this.#expiry)
  }

  // ── clients ─────────────────────────────────────────────────────────────────────────────────

  async grant(principal: Principal, request: LeaseRequest): Promise<LeaseGrant> {
    requireClient(principal)
    this.#checkDuration(request.durationMs)
    this.#expireDue()
    this.#findLostNodes()
    if (request.node !== undefined) this.#requireKnown(request.node)
    const holding = (node: string): Iterable<LeaseRecord> => this.#leases.holding(node)
    const candidates = this.#nodes.candidates(holding, request.node)
    const placement = this.#options.scheduler(request, candidates)
    if (placement === undefined) {
      throw noCapacity(request, candidates, this.#nodes.countByState().lost)
    }

    const nowMs = Date.now()
    const lease: LeaseRecord = {
      id: newLeaseId(),
      state: 'granted',
      tenant: principal.tenant,
      node: placement.node,
      cores: placement.cores,
      memoryBytes: request.memoryBytes,
      epoch: this.#nextEpoch(),
      grantedAtMs: nowMs,
      expiresAtMs: nowMs + request.durationMs,
    }
    await this.#change({ leases: [lease], epoch: lease.epoch })
    this.#logger.info({ lease: lease.id, node: lease.node, cores: lease.cores }, 'lease granted')
    return this.#grantOf(lease)
  }

  async renew(principal: Principal, id: string, durationMs: number): Promise<LeaseGrant> {
    requireClient(principal)
    this.#checkDuration(durationMs)
    this.#expireDue()
    const current = this.#requireOwn(principal, id)
    const lease: LeaseRecord = {
      ...current,
      state: this.#next(current, 'renew'),
      epoch: this.#nextEpoch(),
      expiresAtMs: Math.max(current.expiresAtMs, Date.now() + durationMs),
    }
    await this.#change({ leases: [lease], epoch: lease.epoch })
    return this.#grantOf(lease)
  }

  async release(principal: Principal, id: string): Promise<void> {
    requireClient(principal)
    this.#expireDue()
    await this.#end([this.#requireOwn(principal, id)], 'release')
  }

  async revoke(principal: Principal, id: string): Promise<void> {
    requireOperator(principal)
    this.#expireDue()
    await this.#end([this.#requireOwn(principal, id)], 'revoke')
    const lease = this.#requireOwn(principal, id)
    if (lease.state === 'revoking') await this.#end([lease], 'finish')
  }

  lease(principal: Principal, id: string): LeaseInfo {
    requireClient(principal)
    this.#expireDue()
    return this.#infoOf(this.#requireOwn(principal, id))
  }

  /** Those that the principal may see. */
  leases(principal: Principal): LeaseInfo[] {
    requireClient(principal)
    this.#expireDue()
    const seen = [...this.#leases.all()].filter((lease) => sees(principal, lease))
    return seen.map((lease) => this.#infoOf(lease))
  }

  nodes(): NodeInfo[] {
    this.#findLostNodes()
    return this.#nodes.list((node) => this.#leases.holding(node))
  }

  usage(principal: Principal): TenantUsage[] {
    requireClient(principal)
    return this.#ledger.usage().filter((usage) => sees(principal, usage))
  }

  countLeases(): Map<string, number> {
    this.#expireDue()
    return this.#leases.countByState()
  }

  countNodes(): { up: number; lost: number } {
    this.#findLostNodes()
    return this.#nodes.countByState()
  }

  // ── nodes ───────────────────────────────────────────────────────────────────────────────────

  /** Adopts the node's own account of what runs on it. */
  async register(
    principal: Principal,
    registration: NodeRegistration,
  ): Promise<Omit<NodeWelcome, 'publicKey' | 'heartbeatMs'>> {
    const { name } = registration
    requireNode(principal, name)
    this.#findLostNodes()
    this.#expireDue()
    this.#nodes.examine(registration)
    const nowMs = Date.now()
    const { gone, lost } = adopt(this.#leases.holding(name), registration)
    const node = this.#nodes.register(registration, nowMs)
    const closing = gone.map((lease) => this.#closing(lease, undefined, nowMs))
    const losing = lost.map((lease) => ({ ...lease, state: this.#next(lease, 'lose') }))
    await this.#change({
      nodes: [node],
      leases: [...closing.map(({ lease }) => lease), ...losing],
      ledger: closing.map(({ entry }) => entry),
    })
    this.#logger.info({ node: name, url: node.url, cores: node.cores.length }, 'node registered')
    const live = [...this.#leases.holding(name)].filter(({ state }) => isLive(state))
    return {
      epoch: this.#epoch,
      live: live.map(({ id }) => id),
      ...this.#ordersFor(name, registration.leases),
    }
  }

  /** Throws ERR_RFAAS_NOT_FOUND when the node has to register first. */
  heartbeat(principal: Principal, name: string, { leases, hostId }: NodeHeartbeat): HeartbeatReply {
    requireNode(principal, name)
    this.#findLostNodes()
    if (this.#nodes.get(name)?.hostId !== hostId || !this.#nodes.heard(name, Date.now())) {
      throw notFound('name', `node ${name} is not registered, or was lost: register it`)
    }
    this.#expireDue()
    return this.#ordersFor(name, leases)
  }

  attach(principal: Principal, name: string, open: () => EventStream): void {
    requireNode(principal, name)
    this.#requireKnown(name)
    const stream = open()
    this.#nodes.attach(name, stream)
    // What ended while nobody listened.
    for (const lease of this.#leases.holding(name)) this.#tell(lease)
  }

  async activate(principal: Principal, name: string, id: string): Promise<void> {
    requireNode(principal, name)
    this.#nodes.heard(name, Date.now())
    this.#expireDue()
    const lease = this.#requireLeaseOn(name, id)
    const state = this.#next(lease, 'activate')
    if (state === lease.state) await this.#options.store.settled()
    else await this.#change({ leases: [{ ...lease, state }] })
  }

  async closed(
    principal: Principal,
    name: string,
    id: string,
    measured: LeaseClosed,
  ): Promise<void> {
    requireNode(principal, name)
    this.#nodes.heard(name, Date.now())
    this.#expireDue()
    const current = this.#requireLeaseOn(name, id)
    if (current.state === 'closed') {
      // Said before, perhaps a moment ago: it is billed once, and answered when that is on disk.
      await this.#options.store.settled()
      return
    }
    const { lease, entry } = this.#closing(current, measured, Date.now())
    await this.#change({ leases: [lease], ledger: [entry] })
    this.#logger.info({ lease: id, node: name, reason: entry.reason }, 'lease closed')
  }

  // ── inside ──────────────────────────────────────────────────────────────────────────────────

  /** Memory now, disk before the promise resolves. The only place where either changes. */
  async #change(changes: Changes): Promise<void> {
    this.#options.store.assertWritable()
    const removedLeases = (changes.leases ?? []).flatMap((lease) => this.#leases.put(lease))
    for (const entry of changes.ledger ?? []) this.#ledger.add(entry)
    this.#armExpiry()
    await this.#options.store.commit({ ...changes, removedLeases })
  }

  async #end(leases: readonly LeaseRecord[], event: LeaseEvent): Promise<void> {
    const ended: LeaseRecord[] = []
    for (const lease of leases) {
      const state = this.#next(lease, event)
      if (state !== lease.state) ended.push({ ...lease, state })
    }
    if (ended.length === 0) {
      await this.#options.store.settled()
      return
    }
    await this.#change({ leases: ended })
    for (const lease of ended) {
      this.#logger.info({ lease: lease.id, node: lease.node, state: lease.state }, 'lease ended')
      // It may have been closed meanwhile.
      const current = this.#leases.get(lease.id)
      if (current !== undefined) this.#tell(current)
    }
  }

  #tell({ id, node, state }: LeaseRecord): void {
    if (isOver(state)) this.#nodes.tell(node, { lease: id, reason: state })
  }

  #expireDue(): void {
    if (this.#stopped) return
    const due = this.#leases.due(Date.now())
    if (due.length === 0) {
      this.#armExpiry()
      return
    }
    // Nobody waits for it: should the store fail, the time of expiry is on disk all the same.
    this.#end(due, 'expire').catch((error: unknown) => {
      this.#logger.error({ err: error }, 'the expiry of leases could not be stored')
    })
  }

  #armExpiry(): void {
    clearTimeout(this.#expiry)
    const next = this.#leases.nextExpiryMs()
    if (next === undefined || this.#stopped) return
    // Timers follow the monotonic clock: a look every minute notices when the wall clock was set.
    const delayMs = Math.min(Math.max(next - Date.now(), 0), 60_000)
    this.#expiry = setTimeout(() => this.#expireDue(), delayMs).unref()
  }

  #findLostNodes(): void {
    for (const node of this.#nodes.markLost()) {
      this.#logger.warn({ node }, 'node lost: no heartbeat; its leases go on until they expire')
    }
  }

  #closing(
    lease: LeaseRecord,
    measured: LeaseClosed | undefined,
    nowMs: number,
  ): { lease: LeaseRecord; entry: ReturnType<typeof ledgerEntry> } {
    let reason: EndReason = 'node'
    if (isOver(lease.state)) reason = lease.state
    else if (lease.expiresAtMs - nowMs <= clockSkewMs) reason = 'expired'
    else if (measured === undefined) reason = 'lost'
    // Without a measurement the cores were held until now, but not beyond the lease.
    const heldMs = Math.max(0, Math.min(nowMs, lease.expiresAtMs) - lease.grantedAtMs)
    return {
      lease: { ...lease, state: this.#next(lease, 'close') },
      entry: ledgerEntry(lease, measured ?? { heldMs, cpuMs: 0 }, nowMs, reason),
    }
  }

  /** What a node has to end: its leases that are over, and whatever it runs without a live lease. */
  #ordersFor(name: string, reported: readonly string[]): HeartbeatReply {
    const end = new Set<string>()
    for (const lease of this.#leases.holding(name)) if (isOver(lease.state)) end.add(lease.id)
    for (const id of reported) {
      const lease = this.#leases.get(id)
      if (lease === undefined || lease.node !== name || !isLive(lease.state)) end.add(id)
    }
    return { nowMs: Date.now(), end: [...end], revoking: [] }
  }

  #next(lease: LeaseRecord, event: LeaseEvent): LeaseRecord['state'] {
    const state = nextState(lease.state, event)
    if (state !== undefined) return state
    throw leaseEnded(lease)
  }

  #nextEpoch(): number {
    this.#epoch += 1
    return this.#epoch
  }

  #checkDuration(durationMs: number): void {
    const { maxLeaseMs } = this.#options
    if (durationMs <= maxLeaseMs) return
    throw invalidArgument('durationMs', durationMs, `an integer from 1000 to ${maxLeaseMs}`)
  }

  #requireLease(id: string): LeaseRecord {
    const lease = this.#leases.get(id)
    if (lease !== undefined) return lease
    throw noLease(id)
  }

  /** That a lease exists is nobody's business but its tenant's. */
  #requireOwn(principal: Principal, id: string): LeaseRecord {
    const lease = this.#requireLease(id)
    if (sees(principal, lease)) return lease
    throw noLease(id)
  }

  #requireLeaseOn(node: string, id: string): LeaseRecord {
    this.#requireKnown(node)
    const lease = this.#requireLease(id)
    if (lease.node === node) return lease
    throw notFound('id', `lease ${id} is not on node ${node}`)
  }

  #requireKnown(name: string): void {
    if (this.#nodes.get(name) !== undefined) return
    throw notFound('node', `there is no node ${name}: GET /v1/nodes lists the registered ones`)
  }

  #grantOf(lease: LeaseRecord): LeaseGrant {
    const { id, node, cores, memoryBytes, epoch, expiresAtMs } = lease
    const claims = { lease: id, tenant: lease.tenant, node, cores, memoryBytes, epoch, expiresAtMs }
    return { lease: this.#infoOf(lease), tokens: [signToken(claims, this.#options.privateKey)] }
  }

  #infoOf(lease: LeaseRecord): LeaseInfo {
    const node = this.#nodes.get(lease.node)
    if (node === undefined) {
      throw new RfaasError('ERR_RFAAS_INTERNAL', `lease ${lease.id} is on an unknown node`)
    }
    const { id, state, cores, memoryBytes, epoch, tenant } = lease
    return {
      id,
      state,
      tenant,
      memoryBytes,
      epoch,
      grantedAt: new Date(lease.grantedAtMs).toISOString(),
      expiresAt: new Date(lease.expiresAtMs).toISOString(),
      parts: [{ id, node: node.name, executorManager: node.url, cores, memoryBytes, state }],
    }
  }
}
