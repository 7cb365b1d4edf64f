// The node's line to the resource manager. Nothing here may stop a running lease: while the resource
// manager is away we keep trying, and what it has to be told waits until it confirms it.
import { events, request, type CallOptions } from '../../lib/control/http.js'
import { check } from '../../lib/control/check.js'
import type { Logger } from '../../lib/control/log.js'
import {
  EndEvent,
  HeartbeatReply,
  NodeWelcome,
  PrepareEvent,
  RevokingEvent,
  type LeaseCalls,
  type LeaseClosed,
  type NodeRegistration,
} from '../../lib/control/schemas.js'
import { isAway, type ManagerUrls } from '../../lib/control/manager-urls.js'
import type { Transport } from '../../lib/control/transport.js'
import { RfaasError } from '../../lib/errors.js'
import type { ManagerClock } from './clock.js'
import type { EndReason } from './fence.js'

// A resource manager that comes back knows again within seconds what its nodes have.
const retryMs = { first: 100, most: 2000 }
const requestTimeoutMs = 5000

export interface RegistrationOptions {
  /** Of one cluster: they know the same. */
  managers: ManagerUrls
  /** With which this node proves itself. */
  key: string | undefined
  transport: Transport
  /** Anew each time: leases come and go. */
  describe(): NodeRegistration
  /** Of the leases on this node. */
  calls(): LeaseCalls[]
  clock: ManagerClock
  welcomed(welcome: NodeWelcome): void
  end(lease: string, reason: EndReason): void
  revoke(lease: string, noticeMs: number): void
  prepare(event: PrepareEvent): void
  /** The resource manager has the lease's end on disk. */
  confirmed(lease: string): void
  logger: Logger
}

type Report = { kind: 'active' } | { kind: 'closed'; used: LeaseClosed }

export class Registration {
  readonly #options: RegistrationOptions
  readonly #stop = new AbortController()
  readonly #reports = new Map<string, Report>()
  #heartbeatMs = 1000
  #registered = false
  /** By performance.now(): until then the leases of this node have notice. */
  #leavesBy: number | undefined
  #wake: (() => void) | undefined
  #delivering: Promise<void> | undefined
  #running: Promise<void> | undefined
  #following: Promise<void> | undefined

  constructor(options: RegistrationOptions) {
    this.#options = options
  }

  get connected(): boolean {
    return this.#registered
  }

  /** What the resource manager has not confirmed yet. */
  get unconfirmed(): number {
    return this.#reports.size
  }

  /** Resolves after the first attempt, whatever came of it; goes on in the background. */
  async start(): Promise<void> {
    await this.#register()
    this.#running = this.#beat()
    this.#following = this.#follow()
  }

  active(lease: string): void {
    if (!this.#reports.has(lease)) this.#report(lease, { kind: 'active' })
  }

  closed(lease: string, used: LeaseClosed): void {
    this.#report(lease, { kind: 'closed', used })
  }

  /** The resource manager has to say anew what is live: at the next chance. */
  renew(): void {
    this.#registered = false
    this.#wake?.()
  }

  /** The node ends within `noticeMs`: nothing is to be granted on it any more. */
  leave(noticeMs: number): void {
    this.#leavesBy = performance.now() + noticeMs
    if (this.#registered) void this.#sayLeaving()
  }

  /** Whether the resource manager knows that the lease is closed: when it does, or after `withinMs`. */
  async confirmed(lease: string, withinMs: number): Promise<boolean> {
    if (!this.#reports.has(lease)) return true
    let timer: NodeJS.Timeout | undefined
    const late = new Promise((resolve) => (timer = setTimeout(resolve, withinMs)))
    await Promise.race([this.#deliver(), late])
    clearTimeout(timer)
    return !this.#reports.has(lease)
  }

  /** Tries to deliver what is left, and that this node is gone, each for at most `withinMs`. */
  async close(withinMs: number): Promise<void> {
    if (this.#registered && this.#reports.size > 0) {
      const deadline = new Promise((resolve) => setTimeout(resolve, withinMs).unref())
      await Promise.race([this.#deliver(), deadline])
    }
    const registered = this.#registered
    this.#stop.abort()
    this.#wake?.()
    await Promise.all([this.#running, this.#following, this.#delivering])
    // After the last heartbeat, which would ask a node that is gone to register again.
    if (registered) await this.#tellLeaving(0, withinMs)
  }

  async #sayLeaving(): Promise<void> {
    const noticeMs = Math.round((this.#leavesBy ?? 0) - performance.now())
    if (noticeMs > 0) await this.#tellLeaving(noticeMs, requestTimeoutMs)
  }

  /** What does not arrive costs nothing but time: the node refuses what is granted meanwhile, and is
   * missed when its heartbeats are. */
  async #tellLeaving(noticeMs: number, timeoutMs: number): Promise<void> {
    const { describe, key, transport, logger } = this.#options
    const { name, hostId, sequence } = describe()
    try {
      const body = { hostId, sequence, noticeMs }
      const options = { method: 'POST', body, token: key, transport, timeoutMs } as const
      await this.#ask((url) => request(`${url}/v1/nodes/${name}/leave`, options))
    } catch (error) {
      logger.debug({ reason: messageOf(error) }, 'could not say that this node ends')
    }
  }

  async #register(): Promise<boolean> {
    const { managers, describe, welcomed, clock, logger } = this.#options
    const resourceManager = managers.current
    const registration = describe()
    const askedAtMs = clock.local()
    try {
      const welcome = await this.#ask((url) =>
        request(`${url}/v1/nodes`, {
          method: 'POST',
          body: registration,
          schema: NodeWelcome,
          ...this.#access,
          timeoutMs: requestTimeoutMs,
        }),
      )
      if (this.#stop.signal.aborted) return false
      clock.heard(welcome.nowMs, askedAtMs)
      welcomed(welcome)
      this.#heartbeatMs = welcome.heartbeatMs
      if (!this.#registered) logger.info({ resourceManager }, 'registered')
      this.#registered = true
      this.#obey(welcome)
      if (this.#leavesBy !== undefined) void this.#sayLeaving()
      return true
    } catch (error) {
      if (!this.#stop.signal.aborted) {
        logger.warn({ resourceManager, reason: messageOf(error) }, 'cannot register: trying again')
      }
      this.#registered = false
      return false
    }
  }

  /** Heartbeats while registered, attempts to register while not. */
  async #beat(): Promise<void> {
    let failures = 0
    while (!this.#stop.signal.aborted) {
      await this.#pause(failures === 0 ? this.#heartbeatMs : backoff(failures))
      if (this.#stop.signal.aborted) return
      const fine = this.#registered ? await this.#heartbeat() : await this.#register()
      failures = fine ? 0 : failures + 1
    }
  }

  async #heartbeat(): Promise<boolean> {
    const { describe, clock, logger } = this.#options
    const { name, hostId, leases } = describe()
    const askedAtMs = clock.local()
    try {
      const reply = await this.#ask((url) =>
        request(`${url}/v1/nodes/${name}/heartbeat`, {
          method: 'POST',
          body: { hostId, leases, calls: this.#options.calls() },
          schema: HeartbeatReply,
          ...this.#access,
          timeoutMs: requestTimeoutMs,
        }),
      )
      clock.heard(reply.nowMs, askedAtMs)
      this.#obey(reply)
      return true
    } catch (error) {
      if (this.#stop.signal.aborted) return false
      // It does not know us (any more), or may not after it comes back: we introduce ourselves.
      this.#registered = false
      if (isNotFound(error)) return this.#register()
      logger.warn({ reason: messageOf(error) }, 'the resource manager is away; leases go on')
      return false
    }
  }

  /** Once more changes nothing: it is repeated until we confirm. */
  #obey({ end, revoking }: HeartbeatReply): void {
    for (const lease of end) this.#options.end(lease, 'the resource manager says that it is over')
    for (const { lease, noticeMs } of revoking) this.#options.revoke(lease, noticeMs)
    void this.#deliver()
  }

  /** The event stream makes notices and ends prompt; what it misses, heartbeats bring. */
  async #follow(): Promise<void> {
    const { describe, logger } = this.#options
    const { signal } = this.#stop
    let failures = 0
    while (!signal.aborted) {
      if (this.#registered) {
        try {
          await this.#ask(async (url) => {
            const stream = events(`${url}/v1/nodes/${describe().name}/events`, this.#access)
            for await (const { event, data } of stream) {
              failures = 0
              this.#take(event, data)
            }
          })
        } catch (error) {
          logger.debug({ reason: messageOf(error) }, 'event stream of the resource manager ended')
        }
      }
      failures += 1
      await pause(backoff(failures), signal)
    }
  }

  #take(event: string, data: unknown): void {
    const what = `event ${event} of the resource manager`
    if (event === 'end') {
      const { lease, reason } = check(EndEvent, data, what)
      this.#options.end(lease, reason)
    } else if (event === 'revoking') {
      const { lease, noticeMs } = check(RevokingEvent, data, what)
      this.#options.revoke(lease, noticeMs)
    } else if (event === 'prepare') {
      this.#options.prepare(check(PrepareEvent, data, what))
    }
  }

  #report(lease: string, report: Report): void {
    // To the end, where a delivery that is under way comes by: in the place of an older report, which
    // may be on its way now, it would wait for the next heartbeat.
    this.#reports.delete(lease)
    this.#reports.set(lease, report)
    void this.#deliver()
  }

  /** One at a time and in order. Stops at the first that cannot be delivered: a heartbeat retries. */
  #deliver(): Promise<void> {
    this.#delivering ??= this.#deliverAll().finally(() => (this.#delivering = undefined))
    return this.#delivering
  }

  async #deliverAll(): Promise<void> {
    // `for of` over a map also visits what is added meanwhile.
    for (const [lease, report] of this.#reports) {
      if (!this.#registered || this.#stop.signal.aborted) return
      try {
        await this.#send(lease, report)
      } catch (error) {
        const { logger, end } = this.#options
        if (error instanceof RfaasError && refused(error)) {
          logger.warn({ lease, report: report.kind, reason: error.message }, 'report refused')
          // It has no such lease, or it is over: then it must not run here either.
          if (report.kind === 'active') end(lease, 'lost')
        } else {
          logger.debug({ lease, reason: messageOf(error) }, 'report not delivered yet')
          // It may not know us when it comes back: we introduce ourselves before we report.
          this.#registered = false
          return
        }
      }
      if (this.#reports.get(lease) === report) this.#reports.delete(lease)
      if (report.kind === 'closed') this.#options.confirmed(lease)
    }
  }

  #send(lease: string, report: Report): Promise<void> {
    const { name } = this.#options.describe()
    return this.#ask((url) =>
      request(`${url}/v1/nodes/${name}/leases/${lease}/${report.kind}`, {
        method: 'POST',
        ...(report.kind === 'closed' && { body: report.used }),
        ...this.#access,
        timeoutMs: requestTimeoutMs,
      }),
    )
  }

  /** Asks the manager that answered last. If it is away, the next attempt goes to another one. */
  async #ask<T>(work: (url: string) => Promise<T>): Promise<T> {
    const { managers } = this.#options
    const url = managers.current
    try {
      return await work(url)
    } catch (error) {
      if (isAway(error)) managers.passOver(url)
      throw error
    }
  }

  /** What every request goes with. */
  get #access(): CallOptions {
    const { key, transport } = this.#options
    return { token: key, transport, inSession: true, signal: this.#stop.signal }
  }

  async #pause(ms: number): Promise<void> {
    const woken = new AbortController()
    this.#wake = () => woken.abort()
    await pause(ms, woken.signal)
    this.#wake = undefined
  }
}

/** The answer would be the same next time: it has no such lease, or it is over. That it does not know
 * the node, or who we are, can be put right. */
function refused({ status, field }: RfaasError): boolean {
  return status === 400 || status === 409 || (status === 404 && field !== 'node')
}

function isNotFound(error: unknown): boolean {
  return error instanceof RfaasError && error.code === 'ERR_RFAAS_NOT_FOUND'
}

function backoff(failures: number): number {
  // Spread, or all nodes would call a resource manager that comes back at the same moment.
  return Math.min(retryMs.most, retryMs.first * 2 ** (failures - 1)) * (0.75 + Math.random() / 2)
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      clearTimeout(timer)
      signal.removeEventListener('abort', done)
      resolve()
    }
    const timer = setTimeout(done, ms)
    if (signal.aborted) done()
    else signal.addEventListener('abort', done)
  })
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
