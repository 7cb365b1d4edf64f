// A program's connection to a resource manager.
import { HarvestInfo, JobUsageReport, UsageReport } from '../control/report-schemas.js'
import {
  DrainRequest,
  LeaseList,
  LeaseRequest,
  NodeList,
  type LeaseInfo,
  type NodeInfo,
} from '../control/schemas.js'
import { parseUrls } from '../control/manager-urls.js'
import { checkArgument } from '../control/check.js'
import { keyOfEnvironment, readKey } from '../control/keys.js'
import { caOfEnvironment, Transport } from '../control/transport.js'
import { RfaasError } from '../errors.js'
import { hostId } from '../host.js'
import { parseBytes, parseDuration } from '../units.js'
import { planDeployment } from './deploy-options.js'
import { giveBack, mayBeGranted, newRequestId, requestGrant, type Grant } from './grant.js'
import { Lease, type LeaseDeployment } from './lease.js'
import { ManagerLink } from './manager-link.js'

export interface ClientOptions {
  /** API key: `rfk_…`. Default: RFAAS_KEY, else what is in the file RFAAS_KEY_FILE names. */
  key?: string
  /** File with the API key, mode 0600. */
  keyFile?: string
  /** PEM file with the authorities that signed the managers' certificates. Default: RFAAS_CA, else
   * those of the system. */
  ca?: string
  /** Send key and lease tokens to other hosts without encryption: only where nobody can listen. */
  allowPlaintext?: boolean
  /** For each request to a manager. Default 10 s. */
  timeoutMs?: number
}

export interface LeaseOptions {
  /** Whole cores; each runs one worker. Default 1. */
  cores?: number
  /** For all workers together: bytes, or text such as '512MiB'. Default 512 MiB. */
  memory?: number | string
  /** Milliseconds, or text such as '10m'. Renewed by itself until it is released. Default 10 min. */
  duration?: number | string
  /** What will be deployed first: its nodes start it while the lease is being granted, and `deploy()`
   * finds it there. For workers on the client's own host; elsewhere it only saves saying it again. */
  deploy?: LeaseDeployment
  /** Only on this node. */
  node?: string
  /** Most nodes that the cores may be spread over. Default 1. */
  nodes?: number
  /** How long to wait, first come, first served, when nothing is free: ms, or text. Default 0. */
  wait?: number | string
  /** Stops waiting. A lease that is granted all the same is given back. */
  signal?: AbortSignal
  /** Renew before it expires. Default true. */
  autoRenew?: boolean
}

export interface UsageOptions {
  /** Of this tenant alone. */
  tenant?: string
  /** Of leases that closed then or later. */
  since?: Date
  /** Of leases that closed before. */
  until?: Date
}

/** What all leases of one tenant used that are over. */
export type Usage = UsageReport['tenants'][number]

export class Client {
  readonly url: string
  readonly #link: ManagerLink
  readonly #leases = new Set<Lease>()
  /** Grants that nobody waits for any more, on their way back. */
  readonly #returns = new Set<Promise<void>>()
  #closed = false

  private constructor(url: string, link: ManagerLink) {
    this.url = url
    this.#link = link
  }

  /** Connects to the resource manager at `url`, for example http://127.0.0.1:7070, or to several that share a
   * store: `http://a:7070,http://b:7070`. */
  static async connect(url: string, options: ClientOptions = {}): Promise<Client> {
    const urls = parseUrls('url', url)
    const { key, keyFile, ca, allowPlaintext, timeoutMs } = options
    const given = key !== undefined || keyFile !== undefined
    const link = new ManagerLink(urls, {
      key: readKey(given ? { key, keyFile } : keyOfEnvironment()),
      transport: new Transport({ ca: ca ?? caOfEnvironment(), allowPlaintext }),
      timeoutMs,
    })
    await link.request('/healthz')
    return new Client(url, link)
  }

  /** Leases cores and memory. Rejects with ERR_RFAAS_NO_CAPACITY when they are not to be had within
   * `wait`. */
  async lease(options: LeaseOptions = {}): Promise<Lease> {
    this.#check()
    const { cores = 1, memory = '512MiB', duration = '10m', wait = 0, autoRenew = true } = options
    const { deploy, node, nodes, signal } = options
    const isAbandoned = (): boolean => signal?.aborted === true
    if (isAbandoned()) throw abandoned(signal)
    const waitMs = parseDuration(wait, 'wait')
    const plan = deploy && (await planDeployment(deploy.path, deploy, 'shm'))
    this.#check()
    const requestId = newRequestId()
    const body = {
      ...checkArgument(
        LeaseRequest,
        {
          cores,
          memoryBytes: parseBytes(memory, 'memory'),
          durationMs: parseDuration(duration, 'duration'),
          ...(plan?.request.provider === 'shm' && { executor: plan.request }),
          ...(node === undefined ? {} : { node }),
          ...(nodes === undefined ? {} : { nodes }),
          hostId: hostId(),
          ...(waitMs === 0 ? {} : { waitMs }),
          requestId,
        },
        'lease',
      ),
      requestId,
    }
    let grant: Grant
    try {
      grant = await requestGrant(this.#link, body, signal)
    } catch (error) {
      if (mayBeGranted(error)) this.#return(giveBack(this.#link, body))
      throw error
    }
    const lease = new Lease(this.#link, grant, {
      durationMs: body.durationMs,
      announced: deploy && plan && { deploy, plan },
      autoRenew,
      onEnd: () => this.#leases.delete(lease),
    })
    this.#leases.add(lease)
    // The answer came too late for whoever asked.
    if (!this.#closed && !isAbandoned()) return lease
    this.#return(lease.release().catch(() => undefined))
    this.#check()
    throw abandoned(signal)
  }

  async nodes(): Promise<NodeInfo[]> {
    this.#check()
    return (await this.#link.request('/v1/nodes', { schema: NodeList })).nodes
  }

  /** Operators: nothing new is granted on the node until `undrain`. Its leases go on, or with `notice`
   * (ms, or text such as '30s'; 0 is at once) are taken back. */
  async drain(node: string, { notice }: { notice?: number | string } = {}): Promise<void> {
    const body = notice === undefined ? {} : { noticeMs: parseDuration(notice, 'notice') }
    await this.#maintain('POST', node, '/drain', checkArgument(DrainRequest, body, 'drain'))
  }

  /** Operators: the node lends its cores again. */
  async undrain(node: string): Promise<void> {
    await this.#maintain('POST', node, '/undrain')
  }

  /** Operators: forgets a node that is not up, or any with `force`. Its leases are closed as lost. */
  async removeNode(node: string, { force = false } = {}): Promise<void> {
    await this.#maintain('DELETE', node, force ? '?force=true' : '')
  }

  /** Operators: what the batch system runs and leaves idle, and what is harvested. */
  async harvest(): Promise<HarvestInfo> {
    this.#check()
    return this.#link.request('/v1/harvest', { schema: HarvestInfo })
  }

  /** Leases that hold cores, and those that closed a while ago. */
  async leases(): Promise<LeaseInfo[]> {
    this.#check()
    return (await this.#link.request('/v1/leases', { schema: LeaseList })).leases
  }

  /** What closed leases used, by tenant: this client's own, or all for an operator. */
  async usage({ tenant, since, until }: UsageOptions = {}): Promise<Usage[]> {
    this.#check()
    const query = rangeQuery(since, until)
    if (tenant !== undefined) query.set('tenant', tenant)
    return (await this.#link.request(`/v1/usage?${query.toString()}`, { schema: UsageReport }))
      .tenants
  }

  /** Operators: what leases had of each harvest job that had its cores at some time from `since` to
   * `until`, and what was idle. */
  async jobUsage({ since, until }: Omit<UsageOptions, 'tenant'> = {}): Promise<JobUsageReport> {
    this.#check()
    const query = rangeQuery(since, until)
    return this.#link.request(`/v1/usage/jobs?${query.toString()}`, { schema: JobUsageReport })
  }

  /** Releases the leases that are still held. Idempotent. */
  async close(): Promise<void> {
    this.#closed = true
    const ends = [...[...this.#leases].map((lease) => lease.release()), ...this.#returns]
    // All of them, whatever becomes of one.
    await Promise.allSettled(ends)
    await Promise.all(ends)
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  #maintain(method: 'POST' | 'DELETE', node: string, what: string, body?: DrainRequest) {
    this.#check()
    const path = `/v1/nodes/${encodeURIComponent(node)}${what}`
    return this.#link.request(path, { method, ...(body === undefined ? {} : { body }) })
  }

  #return(work: Promise<void>): void {
    const done = work.finally(() => this.#returns.delete(done))
    this.#returns.add(done)
  }

  #check(): void {
    if (this.#closed) throw new RfaasError('ERR_RFAAS_CLOSED', 'the client is closed')
  }
}

function rangeQuery(since: Date | undefined, until: Date | undefined): URLSearchParams {
  return new URLSearchParams({
    ...(since === undefined ? {} : { from: since.toISOString() }),
    ...(until === undefined ? {} : { to: until.toISOString() }),
  })
}

function abandoned(signal: AbortSignal | undefined): RfaasError {
  return new RfaasError('ERR_RFAAS_ABORTED', 'the caller stopped waiting for the lease', {
    cause: signal?.reason,
  })
}
