// What can be measured: each trial with the drivers that take part.
import type { Cores } from './cores.js'
import type { DriverProcess } from './driver-process.js'
import type { DriverName } from './drivers/index.js'
import { floorResults, latency } from './latency.js'
import type { Summary } from './statistics.js'

export interface TrialContext {
  driver: DriverName
  provider: 'shm' | 'verbs'
  cores: Cores
  payloads: readonly number[]
  /** Per round; undefined: as the trial thinks right for a payload. */
  samples: number | undefined
  rounds: number
  budgetMs: number
}

export interface TrialResult extends Summary {
  trial: string
  driver: string
  provider: string
  payloadBytes: number
  rounds: number
  /** See timing.ts; the floor has none. */
  batchNs?: number
  /** Of the floors beside this driver. */
  floorP50Ns: number
  /** Median over the rounds, and its extremes. */
  ratioToFloor: number
  ratioMin: number
  ratioMax: number
  /** Each floor round. */
  floors: readonly Summary[]
}

export interface Trial {
  description: string
  drivers: readonly DriverName[]
  payloads: readonly number[]
  run: (process: DriverProcess, context: TrialContext) => Promise<TrialResult[]>
  /** Rows that come from all drivers together. */
  shared: (results: readonly TrialResult[]) => TrialResult[]
}

const KiB = 1024

export const trials: Readonly<Record<string, Trial>> = {
  latency: {
    description: 'round trips of one call at a time',
    drivers: ['invokeSync', 'invoke', 'warm', 'node', 'http'],
    payloads: [8, KiB, 64 * KiB, KiB * KiB],
    run: latency,
    shared: floorResults,
  },
}
