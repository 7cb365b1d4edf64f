// A program's connection to a resource manager.
import { request } from '../control/http.js'
import {
  LeaseGrant,
  LeaseList,
  NodeList,
  UsageReport,
  type LeaseInfo,
  type NodeInfo,
} from '../control/schemas.js'
import { checkArgument } from '../control/check.js'
import { LeaseRequest } from '../control/schemas.js'
import { invalidArgument, RfaasError } from '../errors.js'
import { parseBytes, parseDuration } from '../units.js'
import { Lease } from './lease.js'

export interface ClientOptions {
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
  /** Only on this node. */
  node?: string
  /** Renew before it expires. Default true. */
  autoRenew?: boolean
}

/** What all leases of one tenant used that are over. */
export type Usage = UsageReport['tenants'][number]

const tenant = 'default'

export class Client {
  readonly url: string
  readonly #timeoutMs: number | undefined
  readonly #leases = new Set<Lease>()
  #closed = false

  private constructor(url: string, { timeoutMs }: ClientOptions) {
    this.url = url
    this.#timeoutMs = timeoutMs
  }

  /** Connects to the resource manager at `url`, for example http://127.0.0.1:7070. */
  static async connect(url: string, options: ClientOptions = {}): Promise<Client> {
    if (!URL.canParse(url) || !/^https?:$/.test(new URL(url).protocol)) {
      throw invalidArgument('url', url, 'an http or https URL of a resource manager')
    }
    const client = new Client(url, options)
    await request(client.#at('/healthz'), { timeoutMs: options.timeoutMs })
    return client
  }

  /** Leases cores and memory on one node. Rejects with ERR_RFAAS_NO_CAPACITY when none has them. */
  async lease(options: LeaseOptions = {}): Promise<Lease> {
    this.#check()
    const { cores = 1, memory = '512MiB', duration = '10m', node, autoRenew = true } = options
    const body = checkArgument(
      LeaseRequest,
      {
        cores,
        memoryBytes: parseBytes(memory, 'memory'),
        durationMs: parseDuration(duration, 'duration'),
        ...(node === undefined ? {} : { node }),
      },
      'lease',
    )
    const grant = await request(this.#at('/v1/leases'), {
      method: 'POST',
      body,
      schema: LeaseGrant,
      timeoutMs: this.#timeoutMs,
    })
    const lease = new Lease(this.url, grant, {
      durationMs: body.durationMs,
      autoRenew,
      onEnd: () => this.#leases.delete(lease),
    })
    this.#leases.add(lease)
    return lease
  }

  async nodes(): Promise<NodeInfo[]> {
    this.#check()
    return (await request(this.#at('/v1/nodes'), { schema: NodeList, timeoutMs: this.#timeoutMs }))
      .nodes
  }

  /** Leases that hold cores, and those that closed a while ago. */
  async leases(): Promise<LeaseInfo[]> {
    this.#check()
    const { leases } = await request(this.#at('/v1/leases'), {
      schema: LeaseList,
      timeoutMs: this.#timeoutMs,
    })
    return leases
  }

  /** What this tenant's closed leases used. */
  async usage(): Promise<Usage> {
    this.#check()
    const { tenants } = await request(this.#at('/v1/usage'), {
      schema: UsageReport,
      timeoutMs: this.#timeoutMs,
    })
    const nothing = { tenant, leases: 0, heldMs: 0, cpuMs: 0, coreMs: 0, memoryByteMs: 0 }
    return tenants.find((usage) => usage.tenant === tenant) ?? nothing
  }

  /** Releases the leases that are still held. Idempotent. */
  async close(): Promise<void> {
    this.#closed = true
    await Promise.all([...this.#leases].map((lease) => lease.release()))
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  #at(path: string): string {
    return new URL(path, this.url).href
  }

  #check(): void {
    if (this.#closed) throw new RfaasError('ERR_RFAAS_CLOSED', 'the client is closed')
  }
}
