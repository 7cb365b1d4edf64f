import { rmSync, mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, it } from 'vitest'
import { SteadyClock } from '../../lib/control/clock.js'
import { Election, type OwnTerm } from '../../resource-manager/stores/etcd-election.js'
import { openEtcdStore } from '../../resource-manager/stores/etcd.js'
import { schedulerNames } from '../../resource-manager/schedulers/policies.js'
import { openLmdbStore } from '../../resource-manager/stores/lmdb.js'
import type { Store } from '../../resource-manager/stores/store.js'
import { steps } from './commands.js'
import { EtcdCluster, lackOfEtcd } from './etcd-cluster.js'
import { Model } from './model.js'
import { System, type OpenStore } from './system.js'

// Longer by RFAAS_MODEL_SECONDS, with another seed each time; a failure prints what repeats it
// (RFAAS_MODEL_SEED and, for the shrunk sequence alone, RFAAS_MODEL_PATH).
const seconds = Number(process.env['RFAAS_MODEL_SECONDS'] ?? 0)
const seed = process.env['RFAAS_MODEL_SEED']
const path = process.env['RFAAS_MODEL_PATH']

let cluster: EtcdCluster | undefined
let term: OwnTerm | undefined

beforeAll(async () => {
  if (lackOfEtcd === undefined) cluster = await EtcdCluster.start({ hasty: true })
})
afterAll(() => cluster?.stop())

/** Each in a term of its own, as after an election. */
async function openInEtcd(folder: string): Promise<Store> {
  const etcd = cluster!.client()
  await term?.resign()
  const election = new Election({ etcd, prefix: folder, ttlMs: 60_000, clock: new SteadyClock() })
  term = await election.stand('http://127.0.0.1:1')
  return openEtcdStore(etcd, folder, term!)
}

const stores: [string, OpenStore, string | undefined][] = [
  ['lmdb', (folder) => openLmdbStore(folder, 0), undefined],
  ['etcd', openInEtcd, lackOfEtcd],
]

describe.each(stores)('on the store %s', (_name, open, lack) => {
  it.skipIf(lack !== undefined)(
    'a resource manager does what its model does, whatever happens in whatever order',
    async () => {
      const sequence = fc.commands(steps, { maxCommands: 60, size: 'max' })
      const policy = fc.constantFrom(...schedulerNames)
      const property = fc.asyncProperty(policy, sequence, async (scheduler, commands) => {
        const folder = mkdtempSync(join(tmpdir(), 'rfaas-model-'))
        const model = new Model()
        const system = await System.start({ open, folder, scheduler }, model)
        try {
          await fc.asyncModelRun(() => ({ model, real: system }), commands)
        } finally {
          await system.close()
          rmSync(folder, { recursive: true, force: true })
        }
      })
      await fc.assert(property, {
        numRuns: seconds > 0 ? 2 ** 30 : 25,
        ...(seconds > 0 && { interruptAfterTimeLimit: seconds * 1000 }),
        seed: seed !== undefined ? Number(seed) : seconds > 0 ? Date.now() & 0x7fffffff : 1,
        ...(path !== undefined && { path }),
      })
    },
    60_000 + seconds * 1000,
  )
})
