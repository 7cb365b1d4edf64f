// A lease, from its grant to its end: packages are deployed on it, it renews itself, and it hears
// from its executor manager what becomes of its workers.
import { EventEmitter } from 'node:events'

import { check, checkArgument } from '../control/check.js'
import { events, request } from '../control/http.js'
import {
  ExecutorInfo,
  ExecutorRequest,
  LeaseEndedEvent,
  LeaseGrant,
  NodeList,
  WorkerLostEvent,
  WorkerReadyEvent,
  type LeaseInfo,
  type LeasePart,
  type NodeInfo,
} from '../control/schemas.js'
import { invalidArgument, RfaasError } from '../errors.js'
import { hostId } from '../host.js'
import { native, type NativeDevice } from '../native.js'
import { parseBytes, parseDuration } from '../units.js'
import { Functions } from './functions.js'
import { readPackage, uploadPackage } from './package.js'

export interface DeployOptions {
  /** Longest input: bytes, or text such as '4MiB'. Default 1 MiB. */
  payload?: number | string
  /** Longest result. Default 1 MiB. */
  output?: number | string
  /** Calls that a worker can hold at once. Default 8. */
  slots?: number
  /** How long a worker spins after a call before it sleeps: ms, or text. Default 5 ms. */
  hotTimeout?: number | string
  /** How long an awaited call keeps the event loop polling before it sleeps. Default 1 ms. */
  hotWait?: number | string
  /** Default: shm on the client's own host, else verbs. */
  provider?: 'shm' | 'verbs'
  /** The RDMA device of this side; default: the first usable one. */
  device?: string
}

/** Events of a lease. */
export interface LeaseEvents {
  /** The lease is over; what was running has ended with ERR_RFAAS_LEASE_ENDED. */
  ended: [reason: string]
  renewed: [expiresAt: Date]
  /** A renewal failed; it is tried again until the lease expires. */
  renewalFailed: [error: unknown]
  workerLost: [worker: number, cause: string]
  workerReady: [worker: number]
}

interface Settings {
  durationMs: number
  autoRenew: boolean
  onEnd: () => void
}

const startTimeoutMs = 60_000
const endTimeoutMs = 10_000
const renewalRetryMs = 1_000
const eventsRetryMs = 500

/** Made by `Client.lease`. */
export class Lease extends EventEmitter<LeaseEvents> {
  readonly #resourceManager: string
  readonly #settings: Settings
  readonly #functions = new Map<string, Functions>()
  readonly #devices: NativeDevice[] = []
  readonly #abort = new AbortController()
  #info: LeaseInfo
  #token: string
  #renewal: NodeJS.Timeout | undefined
  #following: Promise<void> | undefined
  #ended: RfaasError | undefined
  #releasing: Promise<void> | undefined

  /** @internal */
  constructor(resourceManager: string, grant: LeaseGrant, settings: Settings) {
    super()
    this.#resourceManager = resourceManager
    this.#settings = settings
    this.#info = grant.lease
    this.#token = tokenOf(grant)
    this.#scheduleRenewal()
  }

  get id(): string {
    return this.#info.id
  }
  get node(): string {
    return this.#part.node
  }
  /** Numbers of the leased cores on the node. */
  get cores(): readonly number[] {
    return this.#part.cores
  }
  get memoryBytes(): number {
    return this.#info.memoryBytes
  }
  get expiresAt(): Date {
    return new Date(this.#info.expiresAt)
  }

  /**
   * Ships the function package at `path` (a shared library `.so` or an ES module `.mjs`) to the
   * node, starts a worker on each leased core and connects to them.
   */
  async deploy(path: string, options: DeployOptions = {}): Promise<Functions> {
    this.#check()
    const settings = {
      slots: options.slots ?? 8,
      payloadBytes: parseBytes(options.payload ?? '1MiB', 'payload'),
      outputBytes: parseBytes(options.output ?? '1MiB', 'output'),
      hotWaitMs: parseDuration(options.hotWait ?? 1, 'hotWait'),
    }
    const hotTimeoutMs = parseDuration(options.hotTimeout ?? 5, 'hotTimeout')
    const provider = options.provider ?? (await this.#provider())
    if (provider !== 'shm' && provider !== 'verbs') {
      throw invalidArgument('provider', provider, "'shm' or 'verbs'")
    }
    const code = await readPackage(path)
    const { slots, payloadBytes, outputBytes } = settings
    const body = checkArgument(
      ExecutorRequest,
      {
        package: code.sha256,
        runtime: code.runtime,
        provider,
        slots,
        payloadBytes,
        outputBytes,
        hotTimeoutMs,
      },
      'deploy',
    )
    const device = native.openDevice(provider, options.device ?? '')
    try {
      await uploadPackage(this.#part.executorManager, this.#token, code)
      this.#following ??= this.#follow()
      const executor = await request(this.#at('/v1/executors'), {
        method: 'POST',
        token: this.#token,
        body,
        schema: ExecutorInfo,
        timeoutMs: startTimeoutMs,
      })
      this.#check()
      const functions = await Functions.connect(device, executor, settings, async (closed) => {
        this.#functions.delete(closed.id)
        device.close()
        await this.#stopExecutor(closed.id)
      }).catch(async (error: unknown) => {
        await this.#stopExecutor(executor.id)
        throw error
      })
      this.#functions.set(executor.id, functions)
      this.#devices.push(device)
      return functions
    } catch (error) {
      device.close()
      throw this.#ended ?? error
    }
  }

  /** Makes the lease last for `duration` from now. It is never shortened. */
  async renew(duration: number | string = this.#settings.durationMs): Promise<Date> {
    this.#check()
    const url = new URL(`/v1/leases/${this.id}/renew`, this.#resourceManager).href
    const grant = await request(url, {
      method: 'POST',
      body: { durationMs: parseDuration(duration, 'duration') },
      schema: LeaseGrant,
    })
    this.#info = grant.lease
    this.#token = tokenOf(grant)
    // The node enforces the expiry by itself: it has to see the new token.
    await request(this.#at(`/v1/leases/${this.id}/token`), {
      method: 'PUT',
      body: { token: this.#token },
      token: this.#token,
    })
    this.#scheduleRenewal()
    this.emit('renewed', this.expiresAt)
    return this.expiresAt
  }

  /** Ends the lease: calls in flight are waited for, workers end, the cores are free. Idempotent. */
  release(): Promise<void> {
    this.#releasing ??= this.#release()
    return this.#releasing
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.release()
  }

  async #release(): Promise<void> {
    if (this.#ended) return
    clearTimeout(this.#renewal)
    await Promise.allSettled([...this.#functions.values()].map((functions) => functions.close()))
    this.#end(new RfaasError('ERR_RFAAS_LEASE_ENDED', `lease ${this.id} was released`))
    // The node first: it measures what was used and confirms to the resource manager. Should it not
    // answer, the resource manager's word reaches it later.
    await request(this.#at(`/v1/leases/${this.id}`), {
      method: 'DELETE',
      token: this.#token,
      timeoutMs: endTimeoutMs,
    }).catch(() => undefined)
    await request(new URL(`/v1/leases/${this.id}`, this.#resourceManager).href, {
      method: 'DELETE',
    })
  }

  #end(error: RfaasError): void {
    if (this.#ended) return
    this.#ended = error
    clearTimeout(this.#renewal)
    this.#abort.abort(error)
    for (const functions of this.#functions.values()) functions.destroy(error)
    this.#functions.clear()
    for (const device of this.#devices) device.close()
    this.#settings.onEnd()
  }

  async #stopExecutor(id: string): Promise<void> {
    if (this.#ended) return
    await request(this.#at(`/v1/executors/${id}`), {
      method: 'DELETE',
      token: this.#token,
      timeoutMs: endTimeoutMs,
    })
  }

  /** shm on our own host, verbs to any other. */
  async #provider(): Promise<'shm' | 'verbs'> {
    const url = new URL('/v1/nodes', this.#resourceManager).href
    const { nodes } = await request(url, { schema: NodeList })
    const node: NodeInfo | undefined = nodes.find(({ name }) => name === this.node)
    return node?.hostId === hostId() ? 'shm' : 'verbs'
  }

  // ── renewal ─────────────────────────────────────────────────────────────────────────────────

  #scheduleRenewal(delayMs = (this.expiresAt.getTime() - Date.now()) / 2): void {
    clearTimeout(this.#renewal)
    if (!this.#settings.autoRenew || this.#ended) return
    // Timers hold 31 bits; a longer lease is simply renewed earlier.
    this.#renewal = setTimeout(() => void this.#autoRenew(), Math.min(delayMs, 2 ** 31 - 1))
    this.#renewal.unref()
  }

  async #autoRenew(): Promise<void> {
    try {
      await this.renew()
    } catch (error) {
      if (this.#ended) return
      this.emit('renewalFailed', error)
      const left = this.expiresAt.getTime() - Date.now()
      if (left > 0) this.#scheduleRenewal(Math.min(renewalRetryMs, left / 2))
    }
  }

  // ── events of the executor manager ──────────────────────────────────────────────────────────

  /** Follows the lease's events until it ends. Whenever the stream opens, it begins with the workers
   * that are ready, so nothing is missed for good while the manager restarts or the network is cut. */
  async #follow(): Promise<void> {
    const { signal } = this.#abort
    while (!this.#ended) {
      try {
        const url = this.#at(`/v1/leases/${this.id}/events`)
        for await (const { event, data } of events(url, { token: this.#token, signal })) {
          this.#onEvent(event, data)
        }
      } catch (error) {
        // Calls go on without events; who makes them learns of a lost worker from the fabric.
        if (!(error instanceof RfaasError)) throw error
      }
      if (!this.#ended) await new Promise((resolve) => setTimeout(resolve, eventsRetryMs).unref())
    }
  }

  #onEvent(event: string, data: unknown): void {
    const what = `event ${event} of lease ${this.id}`
    switch (event) {
      case 'worker-lost': {
        const { executor, worker, cause } = check(WorkerLostEvent, data, what)
        this.#functions.get(executor)?.workerLost(worker, cause)
        this.emit('workerLost', worker, cause)
        break
      }
      case 'worker-ready': {
        const { executor, endpoint } = check(WorkerReadyEvent, data, what)
        const functions = this.#functions.get(executor)
        if (functions === undefined) break
        functions.workerReady(endpoint).then(
          () => this.emit('workerReady', endpoint.worker),
          () => undefined, // it was lost again; the next event tells
        )
        break
      }
      case 'lease-ended': {
        const { reason } = check(LeaseEndedEvent, data, what)
        this.#end(new RfaasError('ERR_RFAAS_LEASE_ENDED', `lease ${this.id} has ended: ${reason}`))
        this.emit('ended', reason)
        break
      }
    }
  }

  #at(path: string): string {
    return new URL(path, this.#part.executorManager).href
  }

  get #part(): LeasePart {
    return this.#info.parts[0]!
  }

  #check(): void {
    if (this.#ended) throw this.#ended
  }
}

function tokenOf({ lease, tokens: [token] }: LeaseGrant): string {
  if (token != null) return token
  throw new RfaasError('ERR_RFAAS_LEASE_ENDED', `lease ${lease.id} is ${lease.state}`)
}
