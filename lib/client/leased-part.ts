// What a lease has on one node: the token for it, the way to the node's executor manager, and what that
// tells. The node decides when its part is over; only if nobody there answers does the client.
import { setTimeout as sleep } from 'node:timers/promises'

import { check } from '../control/check.js'
import { events, request, type CallOptions, type RequestOptions } from '../control/http.js'
import {
  ExecutorInfo,
  LeaseEndedEvent,
  LeaseReleased,
  LeaseRevokingEvent,
  WorkerLostEvent,
  WorkerReadyEvent,
  type ExecutorRequest,
  type ExecutorStart,
  type LeasePart,
} from '../control/schemas.js'
import { RfaasError } from '../errors.js'
import type { ManagerLink } from './manager-link.js'
import { inlineCode, rememberThere, uploadPackage, type FunctionPackage } from './package.js'

const startTimeoutMs = 60_000
const eventsRetryMs = 500
// Until the node is asked for events of a lease on which nothing is started.
const followMs = 100
// How long its executor manager is silent before a node counts as unreachable.
const unreachableMs = 5_000
// A node that can be reached ends its lease by itself, and says so first.
const lapseMs = 2_000
const maxTimerMs = 2 ** 31 - 1

export interface PartListener {
  workerLost(part: LeasedPart, event: WorkerLostEvent): void
  workerReady(part: LeasedPart, event: WorkerReadyEvent): void
  /** Once. */
  revoking(part: LeasedPart, event: LeaseRevokingEvent): void
  /** Once. */
  over(part: LeasedPart, reason: string): void
  unreachable(part: LeasedPart, reason: string): void
  reachable(part: LeasedPart): void
}

export class LeasedPart {
  readonly info: LeasePart
  readonly #listener: PartListener
  /** How managers are reached, and how long they may take. */
  readonly #link: ManagerLink
  readonly #abort = new AbortController()
  #token: string
  /** By performance.now(): the node has ended it by then at the latest. */
  #endsBy = 0
  #lapse: NodeJS.Timeout | undefined
  #silence: NodeJS.Timeout | undefined
  #unreachable = false
  #revoking = false
  #heard = true
  #over = false
  #beginning: NodeJS.Timeout | undefined

  constructor(
    info: LeasePart,
    token: string,
    endsBy: number,
    listener: PartListener,
    link: ManagerLink,
  ) {
    this.#link = link
    this.info = info
    this.#token = token
    this.#listener = listener
    this.#setEnd(endsBy)
    this.#beginning = setTimeout(() => this.follow(), followMs).unref()
  }

  get over(): boolean {
    return this.#over
  }

  /** It is being taken back: its node takes nothing new. */
  get revoking(): boolean {
    return this.#revoking
  }

  /** Its executor manager has been silent for a while. */
  get unreachable(): boolean {
    return this.#unreachable
  }

  /** Its executor manager tells what happens, as far as is known. */
  get heard(): boolean {
    return this.#heard
  }

  /** Starts a worker on each core. A short package goes along, another is shipped if the node says that
   * it lacks it. */
  async start(code: FunctionPackage, executorRequest: ExecutorRequest): Promise<ExecutorInfo> {
    const body: ExecutorStart = {
      ...executorRequest,
      ...inlineCode(this.info.executorManager, code),
    }
    const start = (): Promise<ExecutorInfo> =>
      this.#whileItAnswers((signal) =>
        request(this.#at('/v1/executors'), {
          method: 'POST',
          ...this.#access,
          body,
          schema: ExecutorInfo,
          timeoutMs: startTimeoutMs,
          signal,
        }),
      )
    const executor = await start().catch(async (error: unknown) => {
      if (!(error instanceof RfaasError) || error.field !== 'package' || error.status !== 404) {
        throw error
      }
      await uploadPackage(this.info.executorManager, this.#access, code)
      return start()
    })
    rememberThere(this.info.executorManager, code)
    // Numbered as they are in calls; one that has ended in this moment is missing.
    const { node, cores } = this.info
    if (cores.every((_core, index) => executor.workers[index]?.worker === index)) return executor
    await this.stopExecutor(executor.id).catch(() => undefined)
    throw new RfaasError('ERR_RFAAS_EXECUTOR', `a worker on ${node} ended as soon as it was ready`)
  }

  /** A start may take long, as long as its executor manager is there: one that takes a moment is asked. */
  async #whileItAnswers<T>(act: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const over = new AbortController()
    const { signal } = over
    let timer: NodeJS.Timeout | undefined
    const silent = new Promise<never>((_, reject) => {
      const ask = (): void => {
        request(this.#at('/healthz'), { ...this.#access, signal }).catch((error: unknown) => {
          const answered = error instanceof RfaasError && error.status !== undefined
          if (!signal.aborted && !answered) reject(error as Error)
        })
      }
      timer = setTimeout(ask, followMs).unref()
    })
    try {
      return await Promise.race([act(signal), silent])
    } finally {
      clearTimeout(timer)
      over.abort()
    }
  }

  async stopExecutor(id: string): Promise<void> {
    if (!this.#over) await this.#send(`/v1/executors/${id}`, { method: 'DELETE' })
  }

  /** The node enforces the expiry by itself: it has to see the new token. */
  async renew(token: string, endsBy: number): Promise<void> {
    await this.#send(`/v1/leases/${this.info.id}/token`, { method: 'PUT', token, body: { token } })
    if (this.#over || endsBy < this.#endsBy) return
    this.#token = token
    this.#setEnd(endsBy)
  }

  /** Ends it on the node, which tells the resource manager; whether that has confirmed it. */
  async release(): Promise<boolean> {
    const { confirmed } = await request(this.#at(`/v1/leases/${this.info.id}`), {
      method: 'DELETE',
      ...this.#access,
      schema: LeaseReleased,
    })
    return confirmed
  }

  /** Whatever was learned elsewhere: this part is over. Idempotent. */
  end(reason: string): void {
    if (this.#over) return
    this.close()
    this.#listener.over(this, reason)
  }

  /** Ends what goes on here, not the part on the node. Idempotent. */
  close(): void {
    this.#over = true
    clearTimeout(this.#lapse)
    clearTimeout(this.#silence)
    clearTimeout(this.#beginning)
    this.#abort.abort()
  }

  /** From now on its node is listened to. What it had to tell before, it tells then: workers that are being
   * connected to are not held up by it. Idempotent. */
  follow(): void {
    if (this.#beginning === undefined || this.#over) return
    clearTimeout(this.#beginning)
    this.#beginning = undefined
    void this.#follow()
  }

  #setEnd(endsBy: number): void {
    this.#endsBy = endsBy
    clearTimeout(this.#lapse)
    const restMs = endsBy + lapseMs - performance.now()
    this.#lapse = setTimeout(
      () => {
        if (performance.now() < endsBy) this.#setEnd(endsBy)
        else this.end('expired; its node could not be reached')
      },
      Math.min(restMs, maxTimerMs),
    ).unref()
  }

  /** Follows the part's events until it is over. Whenever the stream opens, it begins with what was
   * missed, so nothing is lost for good while the manager restarts or the network is cut. */
  async #follow(): Promise<void> {
    const { signal } = this.#abort
    const onOpen = (): void => this.#opened()
    let why = ''
    this.#fallSilent(() => why)
    while (!this.#over) {
      try {
        const url = this.#at(`/v1/leases/${this.info.id}/events`)
        for await (const { event, data } of events(url, { ...this.#access, signal, onOpen })) {
          this.#take(event, data)
        }
        why = 'it closed the connection'
      } catch (error) {
        // Calls go on without events; who makes them learns of a lost worker from the fabric.
        if (!(error instanceof RfaasError)) throw error
        why = error.message
        if (error.code === 'ERR_RFAAS_LEASE_ENDED') this.end(error.message)
      }
      this.#heard = false
      if (this.#over) return
      this.#fallSilent(() => why)
      await sleep(eventsRetryMs, undefined, { signal, ref: false }).catch(() => undefined)
    }
  }

  #take(event: string, data: unknown): void {
    const what = `event ${event} of lease ${this.info.id}`
    switch (event) {
      case 'worker-lost':
        this.#listener.workerLost(this, check(WorkerLostEvent, data, what))
        break
      case 'worker-ready':
        this.#listener.workerReady(this, check(WorkerReadyEvent, data, what))
        break
      case 'lease-revoking':
        this.#revoke(check(LeaseRevokingEvent, data, what))
        break
      case 'lease-ended':
        this.end(check(LeaseEndedEvent, data, what).reason)
    }
  }

  /** The node says so once more whenever its stream opens. */
  #revoke(event: LeaseRevokingEvent): void {
    if (this.#revoking) return
    this.#revoking = true
    this.#listener.revoking(this, event)
  }

  #opened(): void {
    this.#heard = true
    clearTimeout(this.#silence)
    this.#silence = undefined
    if (!this.#unreachable || this.#over) return
    this.#unreachable = false
    this.#listener.reachable(this)
  }

  #fallSilent(why: () => string): void {
    this.#silence ??= setTimeout(() => {
      this.#unreachable = true
      this.#listener.unreachable(this, why())
    }, unreachableMs).unref()
  }

  #send(path: string, options: RequestOptions): Promise<void> {
    return request(this.#at(path), { ...this.#access, ...options })
  }

  get #access(): Pick<CallOptions, 'token' | 'transport' | 'inSession' | 'timeoutMs'> {
    const { transport, timeoutMs } = this.#link
    return { token: this.#token, transport, inSession: true, timeoutMs }
  }

  #at(path: string): string {
    return new URL(path, this.info.executorManager).href
  }
}
