// The stores that a resource manager may have, for tests that run over each of them.
import { SteadyClock } from '../../lib/control/clock.js'
import { Election, type OwnTerm } from '../../resource-manager/stores/etcd-election.js'
import { openEtcdStore } from '../../resource-manager/stores/etcd.js'
import { openLmdbStore } from '../../resource-manager/stores/lmdb.js'
import type { Store } from '../../resource-manager/stores/store.js'
import { EtcdCluster, lackOfEtcd } from './etcd-cluster.js'
import type { OpenStore } from './system.js'

let cluster: EtcdCluster | undefined
let term: OwnTerm | undefined

/** For beforeAll and afterAll. */
export async function startStores(): Promise<void> {
  if (lackOfEtcd === undefined) cluster = await EtcdCluster.start({ hasty: true })
}
export async function stopStores(): Promise<void> {
  await cluster?.stop()
}

/** Each in a term of its own, as after an election. */
async function openInEtcd(folder: string): Promise<Store> {
  const etcd = cluster!.client()
  await term?.resign()
  const election = new Election({ etcd, prefix: folder, ttlMs: 60_000, clock: new SteadyClock() })
  term = await election.stand('http://127.0.0.1:1')
  return openEtcdStore(etcd, folder, term!)
}

/** Their names, how to open them, and what they lack here. */
export const stores: [string, OpenStore, string | undefined][] = [
  ['lmdb', (folder) => openLmdbStore(folder, 0), undefined],
  ['etcd', openInEtcd, lackOfEtcd],
]
