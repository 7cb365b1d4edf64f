// The leases of this node. A lease begins here when its token is first used for more than code, and
// ends when its time is up (enforced here, whether or not the resource manager can be reached), when
// its client gives it back, or when the resource manager says so. However it ends: executors are
// stopped, what they used is added up, and the resource manager is told.
import type {
  ExecutorInfo,
  ExecutorRequest,
  LeaseClaims,
  LeaseClosed,
} from '../../lib/control/schemas.js'
import type { Logger } from '../../lib/control/log.js'
import type { EventStream } from '../../lib/control/server.js'
import { verifyToken } from '../../lib/control/token.js'
import { RfaasError } from '../../lib/errors.js'
import { formatBytes } from '../../lib/units.js'
import { Executor, type ExecutorSpec } from './executor.js'
import type { PackageStore } from './packages.js'

export type EndReason = 'released' | 'expired' | 'revoked' | 'lost' | 'the node shuts down'

// Ids of leases that have ended here, so that a token which is still valid does not revive one.
const maxRemembered = 65_536
// setTimeout counts in 31 bits; longer leases look again.
const maxTimerMs = 2 ** 30

export interface LeaseTableOptions {
  node: string
  cores: readonly number[]
  packages: PackageStore
  /** For executors: all that the lease itself does not say. */
  execution: Pick<ExecutorSpec, 'socketDir' | 'verbsAddress' | 'device' | 'readyTimeoutMs'>
  maxExecutorsPerLease: number
  /** How long running calls may go on after the end. */
  graceMs: number
  logger: Logger
  /** What the resource manager has to hear. */
  active(lease: string): void
  closed(lease: string, used: LeaseClosed, cores: number): void
  workerLost(): void
}

interface NodeLease {
  claims: LeaseClaims
  since: number
  timer: NodeJS.Timeout | undefined
  executors: Map<string, Executor>
  /** Includes executors that are being started: `stop` aborts them. */
  starting: Map<Promise<unknown>, ExecutorRequest>
  stop: AbortController
  streams: Set<EventStream>
  requests: Map<string, ExecutorRequest>
  cpuMs: number
  ending: Promise<void> | undefined
}

export class LeaseTable {
  readonly #options: LeaseTableOptions
  readonly #leases = new Map<string, NodeLease>()
  readonly #over = new Map<string, EndReason>()
  #publicKey: string | undefined
  #shut = false

  constructor(options: LeaseTableOptions) {
    this.#options = options
  }

  set publicKey(pem: string) {
    this.#publicKey = pem
  }

  /** Leases that hold cores here. */
  get ids(): string[] {
    return [...this.#leases.keys()]
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
    const claims = verifyToken(token, this.#publicKey, {
      node: this.#options.node,
      nowMs: Date.now(),
    })
    const reason = this.#over.get(claims.lease)
    if (reason !== undefined) throw ended(claims.lease, reason)
    return claims
  }

  /** Begins the lease on this node, or lengthens it if the claims are newer. */
  admit(claims: LeaseClaims): void {
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
    for (const other of this.#leases.values()) {
      const shared = claims.cores.find((core) => other.claims.cores.includes(core))
      if (shared === undefined) continue
      throw new RfaasError(
        'ERR_RFAAS_NO_CAPACITY',
        `core ${shared} of lease ${claims.lease} is still held by lease ${other.claims.lease}: try again`,
      )
    }
    const lease: NodeLease = {
      claims,
      since: performance.now(),
      timer: undefined,
      executors: new Map(),
      starting: new Map(),
      stop: new AbortController(),
      streams: new Set(),
      requests: new Map(),
      cpuMs: 0,
      ending: undefined,
    }
    this.#leases.set(claims.lease, lease)
    this.#armExpiry(lease)
  }

  async startExecutor(id: string, request: ExecutorRequest): Promise<ExecutorInfo> {
    const lease = this.#require(id)
    this.#checkRoom(lease, request)
    const { packages, execution, logger } = this.#options
    const starting = (async () => {
      const packagePath = await packages.use(request.package, request.runtime)
      try {
        if (lease.stop.signal.aborted) throw ended(id, 'released')
        const executor = await Executor.start(
          {
            request,
            packagePath,
            cores: lease.claims.cores,
            ...execution,
            logger: logger.child({ lease: id }),
            events: {
              workerLost: (event) => {
                this.#options.workerLost()
                this.#send(lease, 'worker-lost', event)
              },
              workerReady: (event) => this.#send(lease, 'worker-ready', event),
              measured: (cpuMs) => (lease.cpuMs += cpuMs),
            },
          },
          lease.stop.signal,
        )
        lease.executors.set(executor.id, executor)
        lease.requests.set(executor.id, request)
        return executor
      } catch (error) {
        packages.release(request.package)
        throw error
      }
    })()
    lease.starting.set(starting, request)
    this.#options.active(id)
    try {
      const executor = await starting
      logger.info(
        { lease: id, executor: executor.id, package: request.package, runtime: request.runtime },
        'executor started',
      )
      return executor.info
    } finally {
      lease.starting.delete(starting)
    }
  }

  async stopExecutor(id: string, executorId: string): Promise<void> {
    const lease = this.#require(id)
    const executor = lease.executors.get(executorId)
    if (executor === undefined) {
      throw new RfaasError('ERR_RFAAS_NOT_FOUND', `lease ${id} has no executor ${executorId} here`)
    }
    await this.#stop(lease, executor, this.#options.graceMs)
  }

  /** The stream begins with the workers that are not the ones of the executor's start any more. */
  subscribe(id: string, stream: EventStream): void {
    const lease = this.#require(id)
    lease.streams.add(stream)
    stream.onClose(() => lease.streams.delete(stream))
    for (const executor of lease.executors.values()) {
      for (const endpoint of executor.replaced) {
        stream.send('worker-ready', { executor: executor.id, endpoint })
      }
    }
  }

  /** Resolves when nothing of the lease runs any more. A lease that never came here is confirmed
   * with nothing used. */
  end(id: string, reason: EndReason): Promise<void> {
    const lease = this.#leases.get(id)
    if (lease !== undefined) {
      lease.ending ??= this.#end(lease, reason)
      return lease.ending
    }
    if (!this.#over.has(id)) {
      this.#remember(id, reason)
      this.#options.closed(id, { heldMs: 0, cpuMs: 0 }, 0)
    }
    return Promise.resolve()
  }

  /** From now on no lease begins. */
  async endAll(reason: EndReason): Promise<void> {
    this.#shut = true
    await Promise.all(this.ids.map((id) => this.end(id, reason)))
  }

  async #end(lease: NodeLease, reason: EndReason): Promise<void> {
    const { lease: id } = lease.claims
    this.#remember(id, reason)
    clearTimeout(lease.timer)
    lease.stop.abort()
    for (const stream of lease.streams) stream.send('lease-ended', { reason })
    const graceMs = reason === 'lost' ? 0 : this.#options.graceMs
    await Promise.allSettled(lease.starting.keys())
    await Promise.all([...lease.executors.values()].map((x) => this.#stop(lease, x, graceMs)))
    for (const stream of lease.streams) stream.end()
    this.#leases.delete(id)
    const used = {
      heldMs: Math.round(performance.now() - lease.since),
      cpuMs: Math.round(lease.cpuMs),
    }
    this.#options.logger.info({ lease: id, reason, ...used }, 'lease ended')
    this.#options.closed(id, used, lease.claims.cores.length)
  }

  async #stop(lease: NodeLease, executor: Executor, graceMs: number): Promise<void> {
    await executor.stop(graceMs)
    // Both the client and the end of the lease may stop it at the same time.
    if (!lease.executors.delete(executor.id)) return
    lease.requests.delete(executor.id)
    this.#options.packages.release(executor.package)
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
    this.#armExpiry(lease)
  }

  #armExpiry(lease: NodeLease): void {
    clearTimeout(lease.timer)
    const restMs = lease.claims.expiresAtMs - Date.now()
    lease.timer = setTimeout(
      () => {
        // By the wall clock, which may have been set meanwhile.
        if (Date.now() < lease.claims.expiresAtMs) this.#armExpiry(lease)
        else void this.end(lease.claims.lease, 'expired')
      },
      Math.min(Math.max(0, restMs), maxTimerMs),
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
    const wanted = bufferBytes(request) * cores.length
    const taken = others.reduce((sum, other) => sum + bufferBytes(other) * cores.length, 0)
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

  #remember(id: string, reason: EndReason): void {
    this.#over.set(id, reason)
    for (const oldest of this.#over.keys()) {
      if (this.#over.size <= maxRemembered) break
      this.#over.delete(oldest)
    }
  }

  #require(id: string): NodeLease {
    const lease = this.#leases.get(id)
    if (lease?.ending === undefined && lease !== undefined) return lease
    const reason = this.#over.get(id)
    if (reason !== undefined) throw ended(id, reason)
    throw new RfaasError('ERR_RFAAS_NOT_FOUND', `lease ${id} is not on this node`)
  }
}

function bufferBytes(request: ExecutorRequest): number {
  return request.slots * (request.payloadBytes + request.outputBytes)
}

function ended(id: string, reason: EndReason): RfaasError {
  return new RfaasError('ERR_RFAAS_LEASE_ENDED', `lease ${id} has ended on this node: ${reason}`)
}
