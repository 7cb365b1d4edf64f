// The leases of this node. A lease begins here when its token is first used for more than code, and
// ends when its time is up (enforced here, whether or not the resource manager can be reached), when
// its client gives it back, or when the resource manager says so. However it ends: executors are
// stopped, what they used is added up, and the resource manager is told.
//
// When the resource manager takes a lease back, there is a notice: workers refuse new calls and finish
// those that run, nothing new is started, and at the end of the notice the lease ends.
import { createPublicKey, type KeyObject } from 'node:crypto'
import type {
  ExecutorInfo,
  ExecutorRequest,
  LeaseCalls,
  LeaseClaims,
  LeaseClosed,
  LeaseRevokingEvent,
} from '../../lib/control/schemas.js'
import type { Logger } from '../../lib/control/log.js'
import type { EventStream } from '../../lib/control/event-stream.js'
import type { Clock } from '../../lib/control/clock.js'
import { checkClaims, openToken } from '../../lib/control/token.js'
import { RfaasError } from '../../lib/errors.js'
import { formatBytes } from '../../lib/units.js'
import type { Enclosure } from './enclosure.js'
import { bufferBytes, Executor, type ExecutorEvents, type ExecutorSpec } from './executor.js'
import { Fence, type EndReason } from './fence.js'
import type { ServedCalls } from './worker-events.js'
import type { PackageStore } from './packages.js'
import type { Preparation } from './preparations.js'

const maxEnded = 65_536
const maxOpened = 1024
// Timers stand still while the machine sleeps, clocks do not: a lease looks again.
const lookAgainMs = 60_000
// Beyond the grace period, for the last processes of a lease whose cores the next one waits for.
const handOverMs = 2000
const maxStreamsPerLease = 16
const activeAfterMs = 5
const maxUnheard = 64
const revokedBy = 'the resource manager takes the lease back'

export interface LeaseTableOptions {
  node: string
  cores: readonly number[]
  /** The resource manager's. */
  clock: Clock
  packages: PackageStore
  /** For executors: all that the lease itself does not say. */
  execution: Pick<ExecutorSpec, 'verbsAddress' | 'device' | 'readyTimeoutMs'>
  /** A place for the lease's workers, of which these are the first; closed when the last of them has
   * ended. There may be an executor in it already. */
  enclose(claims: LeaseClaims, request: ExecutorRequest): Omit<Preparation, 'from'>
  maxExecutorsPerLease: number
  /** How long running calls may go on after the end. */
  graceMs: number
  logger: Logger
  began(lease: string): Promise<void>
  /** What the resource manager has to hear. */
  active(lease: string): void
  closed(lease: string, used: LeaseClosed, cores: number): Promise<void>
  workerLost(): void
  /** The node should register again: see Fence.crowded. */
  crowded(): void
}

interface Notice {
  reason: string
  /** By the clock. */
  untilMs: number
  timer: NodeJS.Timeout
}

interface NodeLease {
  claims: LeaseClaims
  /** Resolves when it is on disk that the lease has begun here. */
  recorded: Promise<void>
  since: number
  timer: NodeJS.Timeout | undefined
  executors: Map<string, Executor>
  /** Includes executors that are being started: `stop` aborts them. */
  starting: Map<Promise<unknown>, ExecutorRequest>
  stop: AbortController
  streams: Set<EventStream>
  /** What became of workers before the first stream was there; undefined from then on, or when it was
   * too much. */
  unheard: { event: string; data: unknown }[] | undefined
  requests: Map<string, ExecutorRequest>
  cpuMs: number
  /** As its workers count them; undefined until one has. */
  calls: Omit<LeaseCalls, 'lease'> | undefined
  /** From the first executor on. */
  enclosure: Enclosure | undefined
  ending: Promise<void> | undefined
}

export class LeaseTable {
  readonly #options: LeaseTableOptions
  readonly #leases = new Map<string, NodeLease>()
  readonly #fence = new Fence(maxEnded)
  /** Of leases that are being revoked, whether or not they have come here. */
  readonly #notices = new Map<string, Notice>()
  #publicKey: KeyObject | undefined
  /** What tokens say whose signature has been verified: each comes with several requests. */
  readonly #opened = new Map<string, LeaseClaims>()
  #shut = false

  constructor(options: LeaseTableOptions) {
    this.#options = options
  }

  /** What the resource manager says when the node registers. */
  welcomed(publicKey: string, epoch: number, live: readonly string[]): void {
    this.#publicKey = createPublicKey(publicKey)
    this.#opened.clear()
    this.#fence.welcomed(epoch, live)
  }

  /** Leases that hold cores here. */
  get ids(): string[] {
    return [...this.#leases.keys()]
  }

  /** Nothing of it has come here yet, not even its end. */
  isUnknown(id: string): boolean {
    return !this.#shut && !this.#leases.has(id) && !this.#fence.hasEnded(id)
  }

  get counts(): { leases: number; executors: number; workers: number } {
    const executors = [...this.#leases.values()].flatMap((lease) => [...lease.executors.values()])
    const workers = executors.reduce((sum, executor) => sum + executor.runningWorkers, 0)
    return { leases: this.#leases.size, executors: executors.length, workers }
  }

  /** Whose token it is. Nothing is written down: see `admit`. */
  verify(token: string): LeaseClaims {
    if (this.#publicKey === undefined) {
      throw new RfaasError(
        'ERR_RFAAS_UNAVAILABLE',
        'this node has not reached its resource manager yet and cannot check tokens: try again',
      )
    }
    let claims = this.#opened.get(token)
    if (claims === undefined) {
      claims = openToken(token, this.#publicKey)
      const [oldest] = this.#opened.keys()
      if (this.#opened.size >= maxOpened && oldest !== undefined) this.#opened.delete(oldest)
      this.#opened.set(token, claims)
    }
    checkClaims(claims, { node: this.#options.node, nowMs: this.#options.clock.now() })
    this.#fence.check(claims)
    return claims
  }

  /** Nothing new for a lease that is being taken back. */
  refuseIfRevoking(id: string): void {
    const notice = this.#notices.get(id)
    if (notice === undefined) return
    throw new RfaasError(
      'ERR_RFAAS_LEASE_REVOKED',
      `lease ${id} is being revoked: ${notice.reason}`,
    )
  }

  /** Begins the lease on this node, or lengthens it if the claims are newer. */
  async admit(claims: LeaseClaims): Promise<void> {
    await this.#takeOver(claims)
    const known = this.#leases.get(claims.lease)
    if (known !== undefined) {
      this.#renew(known, claims)
      return
    }
    if (this.#shut) throw new RfaasError('ERR_RFAAS_CLOSED', 'this node is shutting down')
    const foreign = claims.cores.find((core) => !this.#options.cores.includes(core))
    if (foreign !== undefined) {
      throw new RfaasError(
        'ERR_RFAAS_UNAUTHORIZED',
        `lease ${claims.lease} names core ${foreign}, which this node does not lend`,
        { status: 403 },
      )
    }
    this.refuseIfRevoking(claims.lease)
    this.#fence.admitted(claims)
    const lease: NodeLease = {
      claims,
      recorded: this.#options.began(claims.lease),
      since: performance.now(),
      timer: undefined,
      executors: new Map(),
      starting: new Map(),
      stop: new AbortController(),
      streams: new Set(),
      unheard: [],
      requests: new Map(),
      cpuMs: 0,
      calls: undefined,
      enclosure: undefined,
      ending: undefined,
    }
    this.#leases.set(claims.lease, lease)
    this.#armExpiry(lease)
  }

  /** Of every lease on the node: what it has used so far. */
  get used(): (readonly [lease: string, used: LeaseClosed])[] {
    return [...this.#leases].map(([id, lease]) => [id, usedBy(lease)] as const)
  }

  /** Of every lease whose workers have said something about their calls. */
  get calls(): LeaseCalls[] {
    return [...this.#leases].flatMap(([id, { calls }]) =>
      calls === undefined ? [] : [{ lease: id, ...calls }],
    )
  }

  /** `caller` aborts when nobody waits for the executor any more: it is stopped, or not started. */
  async startExecutor(
    id: string,
    request: ExecutorRequest,
    caller: AbortSignal,
  ): Promise<ExecutorInfo> {
    const lease = this.#require(id)
    this.refuseIfRevoking(id)
    this.#checkRoom(lease, request)
    const { packages, logger } = this.#options
    const starting = (async () => {
      const packagePath = await packages.use(request.package, request.runtime)
      try {
        if (lease.stop.signal.aborted) throw this.#fence.endOf(id)
        if (caller.aborted) throw hungUp(id)
        const signal = AbortSignal.any([lease.stop.signal, caller])
        const executor = await this.#execute(lease, request, packagePath, signal)
        if (this.#notices.has(id)) await executor.stop(0)
        this.refuseIfRevoking(id)
        lease.executors.set(executor.id, executor)
        lease.requests.set(executor.id, request)
        return executor
      } catch (error) {
        packages.release(request.package)
        throw error
      }
    })()
    lease.starting.set(starting, request)
    try {
      const executor = await starting
      // If this manager is killed now, the next one must know that the lease has ended with it.
      await lease.recorded
      if (caller.aborted) {
        await this.#stop(lease, executor, 0)
        throw hungUp(id)
      }
      logger.info(
        { lease: id, executor: executor.id, package: request.package, runtime: request.runtime },
        'executor started',
      )
      return executor.info
    } finally {
      lease.starting.delete(starting)
      // Whoever waits for the workers connects now, and shares the processor with this. Of a lease that ends so
      // soon only the end is told.
      setTimeout(() => {
        if (lease.ending === undefined) this.#options.active(id)
      }, activeAfterMs).unref()
    }
  }

  /** The executor that was started ahead, or a new one. */
  async #execute(
    lease: NodeLease,
    request: ExecutorRequest,
    packagePath: string,
    signal: AbortSignal,
  ): Promise<Executor> {
    const { execution, logger, enclose } = this.#options
    const events: ExecutorEvents = {
      workerLost: (event) => {
        this.#options.workerLost()
        this.#report(lease, 'worker-lost', event)
      },
      workerStopped: (event) => this.#report(lease, 'worker-lost', event),
      workerReady: (event) => this.#report(lease, 'worker-ready', event),
      served: (served) => count(lease, served),
      measured: (cpuMs) => (lease.cpuMs += cpuMs),
    }
    let enclosure = lease.enclosure
    if (enclosure === undefined) {
      const place = enclose(lease.claims, request)
      lease.enclosure = enclosure = place.enclosure
      if (place.executor !== undefined) return place.executor(events, signal)
    }
    const { lease: id, cores } = lease.claims
    return Executor.start(
      {
        request,
        packagePath: enclosure.place(packagePath),
        enclosure,
        cores,
        ...execution,
        logger: logger.child({ lease: id }),
        events,
      },
      signal,
    )
  }

  async stopExecutor(id: string, executorId: string): Promise<void> {
    const lease = this.#require(id)
    const executor = lease.executors.get(executorId)
    if (executor === undefined) {
      throw new RfaasError('ERR_RFAAS_NOT_FOUND', `lease ${id} has no executor ${executorId} here`)
    }
    await this.#stop(lease, executor, this.#options.graceMs)
  }

  /** The stream begins with the notice, if there is one. Then the first one has all that became of
   * workers: whoever connects to them need not listen before. Later ones have those that are not the
   * ones of the executor's start any more. */
  subscribe(id: string, stream: EventStream): void {
    const lease = this.#require(id)
    if (lease.streams.size >= maxStreamsPerLease) {
      // The oldest: its reader may be gone without a word.
      const [oldest] = lease.streams
      oldest?.end()
      lease.streams.delete(oldest as EventStream)
    }
    lease.streams.add(stream)
    stream.onClose(() => lease.streams.delete(stream))
    const notice = this.#notices.get(id)
    if (notice !== undefined) stream.send('lease-revoking', this.#noticeOf(notice))
    const { unheard } = lease
    lease.unheard = undefined
    if (unheard !== undefined) {
      for (const { event, data } of unheard) stream.send(event, data)
      return
    }
    for (const executor of lease.executors.values()) {
      for (const endpoint of executor.replaced) {
        stream.send('worker-ready', { executor: executor.id, endpoint })
      }
    }
  }

  /** The lease is taken back, by the resource manager unless `reason` says otherwise: running calls may finish for `noticeMs`. A repeated
   * notice never lengthens the first. */
  revoke(id: string, noticeMs: number, reason = revokedBy): void {
    if (this.#fence.hasEnded(id)) return
    const untilMs = this.#options.clock.now() + noticeMs
    const known = this.#notices.get(id)
    if (known !== undefined && known.untilMs <= untilMs) return
    clearTimeout(known?.timer)
    const timer = setTimeout(() => void this.end(id, 'revoked'), noticeMs)
    const notice = { untilMs, timer, reason: known?.reason ?? reason }
    this.#notices.set(id, notice)
    const lease = this.#leases.get(id)
    if (known !== undefined || lease === undefined) return
    this.#options.logger.info({ lease: id, noticeMs }, 'lease is being revoked')
    this.#send(lease, 'lease-revoking', this.#noticeOf(notice))
    for (const executor of lease.executors.values()) executor.drain()
  }

  /** An earlier run of this manager had the lease; its processes have ended with it. */
  endedBefore(id: string): void {
    this.#fence.ended(id, 'its executor manager was restarted')
  }

  /** Resolves when nothing of the lease runs any more. A lease that never came here is confirmed
   * with nothing used. */
  end(id: string, reason: EndReason): Promise<void> {
    const lease = this.#leases.get(id)
    if (lease !== undefined) {
      lease.ending ??= this.#end(lease, reason)
      return lease.ending
    }
    if (this.#fence.hasEnded(id)) return Promise.resolve()
    this.#remember(id, reason)
    return this.#options.closed(id, { heldMs: 0, cpuMs: 0 }, 0)
  }

  /** The node is wanted back: every lease is revoked with this notice, and ends as soon as none of its
   * calls runs any more. From now on no lease begins. */
  async withdraw(noticeMs: number): Promise<void> {
    this.#shut = true
    await Promise.all(
      this.ids.map(async (id) => {
        this.revoke(id, noticeMs, 'its node is wanted back')
        const executors = [...(this.#leases.get(id)?.executors.values() ?? [])]
        // Its client is told of the end when the last call is answered, or that answer would be lost.
        await Promise.all(executors.map((executor) => executor.stop(noticeMs)))
        await this.end(id, 'revoked')
      }),
    )
  }

  /** From now on no lease begins. */
  async endAll(reason: EndReason): Promise<void> {
    this.#shut = true
    await Promise.all(this.ids.map((id) => this.end(id, reason)))
  }

  async #end(lease: NodeLease, reason: EndReason): Promise<void> {
    const { lease: id } = lease.claims
    // After a notice there is no more grace.
    const noGrace = reason === 'lost' || (reason === 'revoked' && this.#notices.has(id))
    const graceMs = noGrace ? 0 : this.#options.graceMs
    this.#remember(id, reason)
    clearTimeout(lease.timer)
    lease.stop.abort()
    for (const stream of lease.streams) stream.send('lease-ended', { reason })
    await Promise.allSettled(lease.starting.keys())
    await Promise.all([...lease.executors.values()].map((x) => this.#stop(lease, x, graceMs)))
    for (const stream of lease.streams) stream.end()
    // Before the groups that count it are removed.
    const used = usedBy(lease)
    const peakBytes = lease.enclosure?.peakBytes
    await lease.enclosure?.close()
    this.#leases.delete(id)
    this.#options.logger.info({ lease: id, reason, ...used, peakBytes }, 'lease ended')
    await this.#options.closed(id, used, lease.claims.cores.length)
  }

  async #stop(lease: NodeLease, executor: Executor, graceMs: number): Promise<void> {
    await executor.stop(graceMs)
    // Both the client and the end of the lease may stop it at the same time.
    if (!lease.executors.delete(executor.id)) return
    lease.requests.delete(executor.id)
    this.#options.packages.release(executor.package)
  }

  /** Cores come from the lease before, which may still be ending: that is waited for, not for long.
   * It is an earlier one (the fence has seen to that): should it run, a later grant of its core proves
   * that it is over. */
  async #takeOver(claims: LeaseClaims): Promise<void> {
    const holders = [...this.#leases.values()].filter(
      ({ claims: other }) =>
        other.lease !== claims.lease && other.cores.some((core) => claims.cores.includes(core)),
    )
    if (holders.length === 0) return
    const ended = Promise.all(holders.map(({ claims: { lease } }) => this.end(lease, 'lost')))
    if (!(await isDone(ended, this.#options.graceMs + handOverMs))) {
      const { lease } = holders[0]!.claims
      throw new RfaasError(
        'ERR_RFAAS_NO_CAPACITY',
        `cores of lease ${claims.lease} are still held by lease ${lease}, which is ending: try again`,
      )
    }
    // Meanwhile this lease may have ended, and another one may have taken a core.
    this.#fence.check(claims)
    await this.#takeOver(claims)
  }

  #renew(lease: NodeLease, claims: LeaseClaims): void {
    const { claims: current } = lease
    if (claims.epoch < current.epoch || claims.expiresAtMs <= current.expiresAtMs) return
    if (claims.cores.join() !== current.cores.join() || claims.tenant !== current.tenant) {
      throw new RfaasError(
        'ERR_RFAAS_UNAUTHORIZED',
        `the token of lease ${claims.lease} names another tenant or other cores than the lease began with`,
        { status: 403 },
      )
    }
    lease.claims = claims
    this.#fence.admitted(claims)
    this.#armExpiry(lease)
  }

  #armExpiry(lease: NodeLease): void {
    clearTimeout(lease.timer)
    const { clock } = this.#options
    const { lease: id, expiresAtMs } = lease.claims
    lease.timer = setTimeout(
      () => {
        if (clock.now() < expiresAtMs) this.#armExpiry(lease)
        else void this.end(id, 'expired')
      },
      Math.min(Math.max(0, expiresAtMs - clock.now()), lookAgainMs),
    )
  }

  #checkRoom(lease: NodeLease, request: ExecutorRequest): void {
    const { cores, memoryBytes, lease: id } = lease.claims
    const others = [...lease.requests.values(), ...lease.starting.values()]
    if (others.length >= this.#options.maxExecutorsPerLease) {
      throw new RfaasError(
        'ERR_RFAAS_NO_CAPACITY',
        `lease ${id} has ${others.length} executors already: stop one first`,
      )
    }
    const wanted = bufferBytes(request, cores)
    const taken = others.reduce((sum, other) => sum + bufferBytes(other, cores), 0)
    if (wanted + taken <= memoryBytes) return
    throw new RfaasError(
      'ERR_RFAAS_NO_CAPACITY',
      `${cores.length} workers with ${request.slots} slots of ${formatBytes(request.payloadBytes)} payload and ` +
        `${formatBytes(request.outputBytes)} output need ${formatBytes(wanted)} for their buffers, ` +
        `lease ${id} has ${formatBytes(Math.max(0, memoryBytes - taken))} left: ` +
        'ask for fewer slots, smaller ones, or a lease with more memory',
      { field: 'slots', value: request.slots },
    )
  }

  #send(lease: NodeLease, event: string, data: unknown): void {
    for (const stream of lease.streams) stream.send(event, data)
  }

  /** Of a worker. */
  #report(lease: NodeLease, event: string, data: unknown): void {
    this.#send(lease, event, data)
    lease.unheard?.push({ event, data })
    if ((lease.unheard?.length ?? 0) > maxUnheard) lease.unheard = undefined
  }

  #noticeOf({ untilMs, reason }: Notice): LeaseRevokingEvent {
    const noticeMs = Math.max(0, Math.round(untilMs - this.#options.clock.now()))
    return { noticeMs, reason }
  }

  #remember(id: string, reason: EndReason): void {
    clearTimeout(this.#notices.get(id)?.timer)
    this.#notices.delete(id)
    this.#fence.ended(id, reason)
    if (this.#fence.crowded) this.#options.crowded()
  }

  #require(id: string): NodeLease {
    const lease = this.#leases.get(id)
    if (lease?.ending === undefined && lease !== undefined) return lease
    if (this.#fence.hasEnded(id)) throw this.#fence.endOf(id)
    throw new RfaasError('ERR_RFAAS_NOT_FOUND', `lease ${id} is not on this node`)
  }
}

/** Percentiles are those of the worker that spoke last: all of a lease do the same work. */
function count(lease: NodeLease, { calls, p50Ns, p99Ns }: ServedCalls): void {
  const before = lease.calls ?? { total: 0, p50Us: 0, p99Us: 0 }
  const p50Us = p50Ns === undefined ? before.p50Us : p50Ns / 1000
  const p99Us = p99Ns === undefined ? before.p99Us : p99Ns / 1000
  const total = Math.min(before.total + calls, Number.MAX_SAFE_INTEGER)
  lease.calls = { total, p50Us, p99Us }
}

/** So far: workers that have ended and those that run. */
function usedBy(lease: NodeLease): LeaseClosed {
  // The lease's control group knows it exactly. Where there is none, what its processes tell.
  const running = (): number =>
    [...lease.executors.values()].reduce((sum, { cpuMs }) => sum + cpuMs, 0)
  return {
    heldMs: Math.round(performance.now() - lease.since),
    cpuMs: Math.round(lease.enclosure?.cpuMs ?? lease.cpuMs + running()),
  }
}

async function isDone(work: Promise<unknown>, withinMs: number): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<false>((resolve) => (timer = setTimeout(resolve, withinMs, false)))
  try {
    return await Promise.race([work.then(() => true), late])
  } finally {
    clearTimeout(timer)
  }
}

function hungUp(id: string): RfaasError {
  const message = `whoever wanted an executor of lease ${id} has hung up`
  return new RfaasError('ERR_RFAAS_ABORTED', message, { status: 499 })
}
