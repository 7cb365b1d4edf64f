// What a scenario plays on: its folder, its cluster, its clients. When the play is over the audit looks
// for what must never happen; whatever still runs after that is killed by the runner.
import {
  Client,
  type DeployOptions,
  type Functions,
  type Lease,
  type LeaseOptions,
} from '../../lib/index.js'
import { Audit } from './audit.js'
import { Cluster, type ClusterOptions } from './cluster.js'
import { HarvestedCluster, type HarvestOptions } from './harvested-cluster.js'
import { nativePackage } from './packages.js'
import { RemoteClient } from './remote-client.js'

export const deployOptions: DeployOptions = { payload: '64KiB', output: '64KiB' }

/** Small, of two cores, and long enough for any scenario. */
export const leaseOptions: LeaseOptions = { cores: 2, memory: '256MiB', duration: '5m' }

export interface Deployed {
  cluster: Cluster
  client: Client
  lease: Lease
  functions: Functions
}

export class Stage {
  readonly folder: string
  readonly audit = new Audit()
  readonly #clients: Client[] = []
  readonly #remotes: RemoteClient[] = []
  #cluster: Cluster | HarvestedCluster | undefined

  constructor(folder: string) {
    this.folder = folder
  }

  async cluster(options: ClusterOptions = {}): Promise<Cluster> {
    const cluster = await Cluster.start(this.folder, options)
    this.audit.watch((this.#cluster = cluster))
    return cluster
  }

  /** Its nodes come from a batch system. */
  async harvested(options: HarvestOptions): Promise<HarvestedCluster> {
    const cluster = await HarvestedCluster.start(this.folder, options)
    this.audit.watch((this.#cluster = cluster))
    return cluster
  }

  async client(cluster: { url: string }, options: { timeoutMs?: number } = {}): Promise<Client> {
    const client = await Client.connect(cluster.url, options)
    this.#clients.push(client)
    return client
  }

  /** A lease that the audit knows of. */
  async lease(client: Client, options: LeaseOptions = leaseOptions): Promise<Lease> {
    const lease = await client.lease(options)
    this.audit.granted(lease.id)
    return lease
  }

  /** A cluster, a lease on all of it, and functions with a worker on each core. */
  async deployed(
    options: ClusterOptions & {
      lease?: LeaseOptions
      package?: string
      deploy?: DeployOptions
    } = {},
  ): Promise<Deployed> {
    const cluster = await this.cluster(options)
    const client = await this.client(cluster)
    const lease = await this.lease(client, options.lease)
    const functions = await lease.deploy(
      options.package ?? nativePackage(),
      options.deploy ?? deployOptions,
    )
    return { cluster, client, lease, functions }
  }

  /** A client in a process of its own: to be killed, stopped, or cut off. */
  async remote(
    cluster: Cluster,
    lease: LeaseOptions = leaseOptions,
    wrap: readonly string[] = [],
  ): Promise<RemoteClient> {
    const remote = await RemoteClient.start({ url: cluster.url, lease, wrap })
    this.#remotes.push(remote)
    this.audit.granted(remote.lease)
    return remote
  }

  /** What the managers logged, for those who look for the reason of a failure. */
  get complaints(): string[] {
    return this.#cluster?.daemons.flatMap(({ complaints }) => complaints) ?? []
  }

  /** Ends the clients and managers in order, and finds nothing amiss. */
  async examine(): Promise<void> {
    for (const remote of this.#remotes) await remote.close()
    await Promise.allSettled(this.#clients.map((client) => client.close()))
    if (this.#cluster === undefined) return
    await this.audit.examine(this.#cluster)
  }
}
