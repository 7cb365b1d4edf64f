// A lease, from its grant to its end: packages are deployed on its nodes, it renews itself, and it hears
// from the executor managers what becomes of its workers.
import { EventEmitter } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'

import {
  LeaseGrant,
  LeaseInfo,
  type LeasePart,
  type WorkerLostEvent,
  type WorkerReadyEvent,
} from '../control/schemas.js'
import { isLive } from '../control/lease-states.js'
import { invalidArgument, RfaasError } from '../errors.js'
import { hostId } from '../host.js'
import { native } from '../native.js'
import { parseDuration } from '../units.js'
import { planDeployment, type DeploymentPlan, type DeployOptions } from './deploy-options.js'
import { Deployment } from './deployment.js'
import type { Functions } from './functions.js'
import type { Grant } from './grant.js'
import { LeasedPart, type PartListener } from './leased-part.js'
import type { ManagerLink } from './manager-link.js'

/** Events of a lease. Workers are numbered through all nodes, in the order of `parts`. */
export interface LeaseEvents {
  /** It is taken back, on all nodes: new calls are refused with ERR_RFAAS_LEASE_REVOKED, running ones may finish
   * within the notice; then it ends. Releasing it before is the polite thing to do. */
  revoking: [noticeMs: number, reason: string]
  /** It is taken back on this node and goes on on the others: calls go there. */
  partRevoking: [node: string, noticeMs: number, reason: string]
  /** It is over, on all nodes; what was running has ended with ERR_RFAAS_LEASE_ENDED. Not after
   * `release()`. */
  ended: [reason: string]
  /** It is over on this node and goes on on the others. */
  partLost: [node: string, reason: string]
  /** The node's executor manager has been silent for 5 s. Calls go on as far as they can; should it
   * not come back, the part ends when it expires, or when the resource manager says that it is over. */
  nodeUnreachable: [node: string, reason: string]
  nodeReachable: [node: string]
  renewed: [expiresAt: Date]
  /** A renewal failed, or did not reach a node; it is tried again until the lease expires. */
  renewalFailed: [error: unknown]
  workerLost: [worker: number, cause: string]
  workerReady: [worker: number]
}

/** What a lease is for, known when it is asked for. */
export interface LeaseDeployment extends DeployOptions {
  /** As for `Lease.deploy`. */
  path: string
}

interface Settings {
  durationMs: number
  announced: { deploy: LeaseDeployment; plan: DeploymentPlan } | undefined
  autoRenew: boolean
  onEnd: () => void
}

const renewalRetryMs = 1_000
// About a node that is silent.
const askAgainMs = 2_000
const maxTimerMs = 2 ** 31 - 1

/** Made by `Client.lease`. */
export class Lease extends EventEmitter<LeaseEvents> {
  readonly #link: ManagerLink
  readonly #settings: Settings
  readonly #parts: readonly LeasedPart[]
  readonly #deployments = new Set<Deployment>()
  /** Those about which the resource manager is asked. */
  readonly #asking = new Set<LeasedPart>()
  #info: LeaseInfo
  /** By performance.now(), like all of the lease's times here: it lasts at least so long, and the
   * wall clock may be set. */
  #lastsUntil: number
  #renewal: NodeJS.Timeout | undefined
  #revoking = false
  #ended: RfaasError | undefined
  #releasing: Promise<void> | undefined

  /** @internal */
  constructor(link: ManagerLink, { grant, askedAt, answeredAt }: Grant, settings: Settings) {
    super()
    this.#link = link
    this.#settings = settings
    this.#info = grant.lease
    this.#lastsUntil = askedAt + settings.durationMs
    const endsBy = answeredAt + settings.durationMs
    this.#parts = grant.lease.parts.map((part, index) => {
      return new LeasedPart(part, grant.tokens[index] ?? '', endsBy, this.#listener, link)
    })
    this.#scheduleRenewal()
  }

  get id(): string {
    return this.#info.id
  }
  /** What it has on each node, as of its grant or last renewal. */
  get parts(): readonly LeasePart[] {
    return this.#info.parts
  }
  /** Names of its nodes. */
  get nodes(): readonly string[] {
    return this.#info.parts.map(({ node }) => node)
  }
  /** Of each worker, the number of its core on its node. */
  get cores(): readonly number[] {
    return this.#info.parts.flatMap(({ cores }) => cores)
  }
  get memoryBytes(): number {
    return this.#info.memoryBytes
  }
  /** By the resource manager's clock. */
  get expiresAt(): Date {
    return new Date(this.#info.expiresAt)
  }

  /**
   * Ships the function package at `path` (a shared library `.so` or an ES module `.mjs`) to the
   * nodes, starts a worker on each leased core and connects to them: on all nodes, or on none. Without
   * a path it is what `Client.lease` was told of.
   */
  async deploy(path?: string, options: DeployOptions = {}): Promise<Functions> {
    this.#check()
    const plan =
      path === undefined
        ? await this.#announced()
        : await planDeployment(path, options, this.#provider())
    const { code, request, settings } = plan
    this.#check()
    const device = native.openDevice(request.provider, plan.device)
    let deployment: Deployment | undefined
    try {
      const started = await Deployment.start(this.#usableParts(), code, request, device)
      // From here on it hears of its workers.
      this.#deployments.add((deployment = started))
      this.#check()
      return await started.connect(settings, () => this.#deployments.delete(started))
    } catch (error) {
      if (deployment !== undefined) this.#deployments.delete(deployment)
      device.close()
      throw this.#ended ?? error
    }
  }

  /** Makes the lease last for `duration` from now. It is never shortened. */
  async renew(duration: number | string = this.#settings.durationMs): Promise<Date> {
    this.#check()
    const durationMs = parseDuration(duration, 'duration')
    const askedAt = performance.now()
    const grant = await this.#link.request(`/v1/leases/${this.id}/renew`, {
      method: 'POST',
      body: { durationMs },
      schema: LeaseGrant,
    })
    this.#check()
    this.#info = grant.lease
    const endsBy = performance.now() + durationMs
    const shown = await Promise.allSettled(
      this.#liveParts().map((part) => this.#renewPart(part, grant, endsBy)),
    )
    this.#check()
    for (const outcome of shown) if (outcome.status === 'rejected') throw outcome.reason
    this.#lastsUntil = Math.max(this.#lastsUntil, askedAt + durationMs)
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
    await Promise.allSettled([...this.#deployments].map((deployment) => deployment.drained()))
    const parts = this.#liveParts()
    this.#end(new RfaasError('ERR_RFAAS_LEASE_ENDED', `lease ${this.id} was released`))
    // The nodes stop the executors, measure what was used and confirm it to the resource manager. Should
    // one not answer, the resource manager's word reaches it later.
    const released = await Promise.allSettled(parts.map((part) => part.release()))
    const confirmed = released.every((answer) => answer.status === 'fulfilled' && answer.value)
    if (confirmed && parts.length === this.#parts.length) return
    try {
      await this.#link.request(`/v1/leases/${this.id}`, { method: 'DELETE' })
    } catch (error) {
      // While it is away, the word of the nodes is enough: they report to it.
      if (released.some(({ status }) => status === 'rejected')) throw error
    }
  }

  /** Nothing of it remains on this side. */
  #end(error: RfaasError): void {
    if (this.#ended) return
    this.#ended = error
    clearTimeout(this.#renewal)
    for (const part of this.#parts) part.close()
    for (const deployment of this.#deployments) deployment.destroy(error)
    this.#deployments.clear()
    this.#settings.onEnd()
  }

  #liveParts(): LeasedPart[] {
    return this.#parts.filter(({ over }) => !over)
  }

  /** Those that take something new; when all are being revoked, their nodes say so. */
  #usableParts(): LeasedPart[] {
    const live = this.#liveParts()
    const usable = live.filter(({ revoking }) => !revoking)
    return usable.length > 0 ? usable : live
  }

  async #announced(): Promise<DeploymentPlan> {
    const { announced } = this.#settings
    if (announced === undefined) {
      throw invalidArgument(
        'path',
        undefined,
        'that of a package, as the lease was asked for without',
      )
    }
    const { deploy, plan } = announced
    const provider = deploy.provider ?? this.#provider()
    if (plan.request.provider === provider) return plan
    return planDeployment(deploy.path, deploy, provider)
  }

  /** shm when all nodes are this host, else verbs. */
  #provider(): 'shm' | 'verbs' {
    const here = hostId()
    return this.#usableParts().every(({ info }) => info.hostId === here) ? 'shm' : 'verbs'
  }

  // ── renewal ─────────────────────────────────────────────────────────────────────────────────

  /** Halfway, or after `delayMs`. */
  #scheduleRenewal(delayMs = (this.#lastsUntil - performance.now()) / 2): void {
    clearTimeout(this.#renewal)
    if (!this.#settings.autoRenew || this.#ended || this.#revoking) return
    // A lease that is longer than timers can count is simply renewed earlier.
    const timerMs = Math.min(Math.max(0, delayMs), maxTimerMs)
    this.#renewal = setTimeout(() => void this.#autoRenew(), timerMs)
    this.#renewal.unref()
  }

  async #autoRenew(): Promise<void> {
    try {
      await this.renew()
    } catch (error) {
      if (this.#ended) return
      const code = error instanceof RfaasError ? error.code : undefined
      if (code === 'ERR_RFAAS_LEASE_ENDED') {
        // It ended while nobody could tell us: all parts have.
        for (const part of this.#liveParts()) part.end((error as RfaasError).message)
        return
      }
      this.emit('renewalFailed', error)
      if (code === 'ERR_RFAAS_LEASE_REVOKED') return
      this.#scheduleRenewal(renewalRetryMs)
    }
  }

  async #renewPart(part: LeasedPart, { lease, tokens }: LeaseGrant, endsBy: number): Promise<void> {
    const index = lease.parts.findIndex(({ id }) => id === part.info.id)
    const token = tokens[index]
    if (token == null) {
      part.end(`${lease.parts[index]?.state ?? 'lost'}, says the resource manager`)
      return
    }
    try {
      await part.renew(token, endsBy)
    } catch (error) {
      if (!(error instanceof RfaasError) || error.code !== 'ERR_RFAAS_LEASE_ENDED') throw error
      part.end(error.message)
    }
  }

  // ── what the executor managers tell ─────────────────────────────────────────────────────────

  readonly #listener: PartListener = {
    workerLost: (part: LeasedPart, event: WorkerLostEvent) => {
      for (const deployment of this.#deployments) {
        const worker = deployment.workerLost(part, event)
        if (worker !== undefined && event.stopped !== true) {
          this.emit('workerLost', worker, event.cause)
        }
      }
    },
    workerReady: (part: LeasedPart, event: WorkerReadyEvent) => {
      for (const deployment of this.#deployments) {
        deployment.workerReady(part, event, (worker) => this.emit('workerReady', worker))
      }
    },
    revoking: ({ info }, { noticeMs, reason }) => {
      if (this.#liveParts().some(({ revoking }) => !revoking)) {
        this.emit('partRevoking', info.node, noticeMs, reason)
        return
      }
      this.#revoking = true
      clearTimeout(this.#renewal)
      this.emit('revoking', noticeMs, reason)
    },
    over: (part, reason) => this.#partOver(part, reason),
    unreachable: (part, reason) => {
      this.emit('nodeUnreachable', part.info.node, reason)
      void this.#askAbout(part)
    },
    reachable: ({ info }) => this.emit('nodeReachable', info.node),
  }

  /** Its node is silent, and may be gone for good: then the resource manager knows sooner or later that the
   * part is over. If it is away, too, the part ends when it expires. */
  async #askAbout(part: LeasedPart): Promise<void> {
    if (this.#asking.has(part)) return
    this.#asking.add(part)
    while (part.unreachable && !part.over) {
      const state = await this.#link
        .request(`/v1/leases/${this.id}`, { schema: LeaseInfo })
        .then(({ parts }) => parts.find(({ id }) => id === part.info.id)?.state)
        .catch(() => undefined)
      if (state !== undefined && !isLive(state)) part.end(`${state}, says the resource manager`)
      else await sleep(askAgainMs, undefined, { ref: false })
    }
    this.#asking.delete(part)
  }

  #partOver(part: LeasedPart, reason: string): void {
    if (this.#ended) return
    if (this.#liveParts().length > 0) {
      const cause = `lease ${this.id} has ended on node ${part.info.node}: ${reason}`
      for (const deployment of this.#deployments) deployment.partOver(part, cause)
      this.emit('partLost', part.info.node, reason)
      return
    }
    // The words of a manager name the lease already.
    const message = reason.includes(this.id) ? reason : `lease ${this.id} has ended: ${reason}`
    this.#end(new RfaasError('ERR_RFAAS_LEASE_ENDED', message))
    this.emit('ended', reason)
  }

  #check(): void {
    if (this.#ended) throw this.#ended
  }
}
