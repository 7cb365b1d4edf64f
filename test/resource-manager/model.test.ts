import { rmSync, mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, it } from 'vitest'
import { schedulerNames } from '../../resource-manager/schedulers/policies.js'
import { steps } from './commands.js'
import { Model } from './model.js'
import { startStores, stopStores, stores } from './stores.js'
import { System } from './system.js'

// Longer by RFAAS_MODEL_SECONDS, with another seed each time; a failure prints what repeats it
// (RFAAS_MODEL_SEED and, for the shrunk sequence alone, RFAAS_MODEL_PATH).
const seconds = Number(process.env['RFAAS_MODEL_SECONDS'] ?? 0)
const seed = process.env['RFAAS_MODEL_SEED']
const path = process.env['RFAAS_MODEL_PATH']

beforeAll(startStores)
afterAll(stopStores)

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
