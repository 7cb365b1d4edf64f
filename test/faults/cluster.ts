// A resource manager and its nodes, each in a process of its own, that can be struck down and brought
// back one by one. A node lends one or two of this machine's cores.
import { setTimeout as sleep } from 'node:timers/promises'
import { join } from 'node:path'

import { Client } from '../../lib/index.js'
import { openEtcdStore } from '../../resource-manager/stores/etcd.js'
import { openLmdbStore } from '../../resource-manager/stores/lmdb.js'
import type { Store } from '../../resource-manager/stores/store.js'
import type { EtcdCluster } from '../resource-manager/etcd-cluster.js'
import type { Audited } from './audit.js'
import { Daemon, endAll, type DaemonOptions } from './daemon.js'

/** Short ones, so that what depends on them is soon seen; a node may miss several heartbeats. */
export const heartbeatMs = 200
export const nodeTimeoutMs = 4000

export interface ClusterOptions {
  /** What each node lends, as for `--cores`. Default: one node with cores 0 and 1. */
  nodes?: readonly string[]
  /** Further flags, and where the managers run. */
  resourceManager?: { args?: readonly string[] } & DaemonOptions
  executorManager?: { args?: readonly string[] } & DaemonOptions
  /** Several resource managers, this many or where each runs, on an etcd. */
  several?: { etcd: EtcdCluster; managers: readonly DaemonAt[] }
}

type DaemonAt = { args?: readonly string[] } & DaemonOptions

const leaderTimeoutMs = 2000
const prefix = 'faults/'

interface Place {
  daemon: Daemon | undefined
  args: readonly string[]
  options: DaemonOptions
}

export class Cluster implements Audited {
  readonly folder: string
  readonly #options: ClusterOptions
  readonly #resourceManagers: Place[]
  readonly #nodes: Place[] = []

  private constructor(folder: string, options: ClusterOptions) {
    this.folder = folder
    this.#options = options
    const { several } = options
    const shared =
      several === undefined
        ? []
        : ['--store', 'etcd', '--etcd', several.etcd.urls.join(), '--etcd-prefix', prefix]
    const timeouts = [
      '--heartbeat-ms',
      `${heartbeatMs}ms`,
      '--node-timeout-ms',
      `${nodeTimeoutMs}ms`,
    ]
    if (several !== undefined) timeouts.push('--leader-timeout-ms', `${leaderTimeoutMs}ms`)
    const store = several === undefined ? ['--data-dir', join(folder, 'rm')] : shared
    const places = several?.managers ?? [options.resourceManager ?? {}]
    this.#resourceManagers = places.map(({ args = [], ...where }) => ({
      daemon: undefined,
      args: ['resource-manager', '--log-level', 'info', ...store, ...timeouts, ...args],
      options: where,
    }))
  }

  static async start(folder: string, options: ClusterOptions = {}): Promise<Cluster> {
    const cluster = new Cluster(folder, options)
    // The first one leads.
    for (const place of cluster.#resourceManagers) place.daemon = await launch(place)
    for (const cores of options.nodes ?? ['0,1']) cluster.#nodes.push(cluster.#placeOf(cores))
    await Promise.all(cluster.#nodes.map(async (place) => (place.daemon = await launch(place))))
    await cluster.registered()
    return cluster
  }

  /** Of all resource managers. */
  get url(): string {
    return this.#resourceManagers.map(({ daemon }) => daemon!.url).join()
  }

  get resourceManager(): Daemon {
    return this.manager(0)
  }

  /** One of several, counted from 0. */
  manager(index: number): Daemon {
    return this.#resourceManagers[index]!.daemon!
  }

  async end(): Promise<void> {
    await endAll(this.daemons)
  }

  async stop(): Promise<void> {
    await this.#options.several?.etcd.stop()
  }

  openStore(): Store {
    const { several } = this.#options
    if (several === undefined) return openLmdbStore(join(this.folder, 'rm'), 0)
    const reader = { name: 'audit', createRevision: '0', holds: false, leftMs: 0 }
    return openEtcdStore(several.etcd.client(), prefix, reader)
  }

  /** The executor manager of a node, counted from 0. */
  node(index = 0): Daemon {
    return this.#nodes[index]!.daemon!
  }

  get daemons(): Daemon[] {
    return [...this.#nodes, ...this.#resourceManagers].flatMap(({ daemon }) => daemon ?? [])
  }

  /** All of them on this one. */
  executorManagersByMachine(): number[][] {
    return [this.#nodes.flatMap(({ daemon }) => daemon?.pid ?? [])]
  }

  /** Starts what has ended, where it was: same folder, same port unless told otherwise. */
  async restartResourceManager(index = 0): Promise<Daemon> {
    const place = this.#resourceManagers[index]!
    return (place.daemon = await launch(place))
  }

  async restartNode(index = 0, { samePort = true } = {}): Promise<Daemon> {
    const place = this.#nodes[index]!
    if (!samePort) place.daemon = undefined
    return (place.daemon = await launch(place))
  }

  /** One more; `args` overrule. */
  async addNode(cores: string, args: readonly string[] = []): Promise<Daemon> {
    const place = this.#placeOf(cores, args)
    this.#nodes.push(place)
    place.daemon = await launch(place)
    await this.registered()
    return place.daemon
  }

  /** Resolves when as many nodes are up as there should be. */
  async registered(withinMs = 15_000): Promise<void> {
    await using client = await Client.connect(this.url)
    const deadline = performance.now() + withinMs
    for (;;) {
      const up = (await client.nodes()).filter(({ state }) => state === 'up')
      if (up.length >= this.#nodes.length) return
      if (performance.now() > deadline) throw new Error(`${up.length} nodes are up`)
      await sleep(20)
    }
  }

  #placeOf(cores: string, more: readonly string[] = []): Place {
    const name = `node-${this.#nodes.length + 1}`
    const { args = [], ...options } = this.#options.executorManager ?? {}
    // Scenarios strike at the workers that they find.
    const own = ['--data-dir', join(this.folder, name), '--runtime-dir', this.folder, '--pool', '0']
    const lends = ['--name', name, '--cores', cores.includes(',') ? cores : `${cores}-${cores}`]
    const where = ['--resource-manager', this.url]
    return {
      daemon: undefined,
      args: [
        'executor-manager',
        '--log-level',
        'info',
        ...own,
        ...lends,
        ...where,
        ...args,
        ...more,
      ],
      options,
    }
  }
}

function launch({ daemon, args, options }: Place): Promise<Daemon> {
  return Daemon.start([...args, '--port', daemon?.port ?? '0'], options)
}
