// Round trips, one after the other, each driver against the floor.
//
// The rounds of the floor and of the driver alternate on the same two cores: floor, driver, floor,
// driver, …, floor. A driver's round is divided by the mean of the floors before and after it, so
// that a machine that changes its pace changes both; the median of those ratios is the result.
import { setTimeout as sleep } from 'node:timers/promises'

import type { DriverProcess } from './driver-process.js'
import { measureFloor } from './floor.js'
import { combine, median, type Summary } from './statistics.js'
import type { Round } from './timing.js'
import type { TrialContext, TrialResult } from './trials.js'

// Longer than a worker spins after a call: the floor has the cores for itself.
const settleMs = 25

export async function latency(
  process: DriverProcess,
  context: TrialContext,
): Promise<TrialResult[]> {
  const results: TrialResult[] = []
  for (const payloadBytes of context.payloads) {
    const samples = context.samples ?? defaultSamples(payloadBytes)
    const request = { payloadBytes, samples, budgetMs: context.budgetMs }
    const { provider, cores } = context
    const floor = (): Promise<Summary> => measureFloor({ provider, cores, payloadBytes, samples })

    await process.measure(request) // warm-up
    const ours: Round[] = []
    await sleep(settleMs)
    const floors = [await floor()]
    while (ours.length < context.rounds) {
      ours.push(await process.measure(request))
      await sleep(settleMs)
      floors.push(await floor())
    }
    const ratios = ratiosToFloor(ours, floors)
    results.push({
      trial: 'latency',
      driver: context.driver,
      provider,
      payloadBytes,
      rounds: ours.length,
      ...combine(ours),
      batchNs: median(ours.map(({ batchNs }) => batchNs)),
      floorP50Ns: median(floors.map(({ p50Ns }) => p50Ns)),
      ratioToFloor: median(ratios),
      ratioMin: Math.min(...ratios),
      ratioMax: Math.max(...ratios),
      floors,
    })
  }
  return results
}

/** `floors` has one more than `rounds`. */
export function ratiosToFloor(rounds: readonly Summary[], floors: readonly Summary[]): number[] {
  return rounds.map(({ p50Ns }, i) => (2 * p50Ns) / (floors[i]!.p50Ns + floors[i + 1]!.p50Ns))
}

/** All floors that were measured beside the drivers, as results of their own. */
export function floorResults(results: readonly TrialResult[]): TrialResult[] {
  const payloads = [...new Set(results.map(({ payloadBytes }) => payloadBytes))]
  return payloads.map((payloadBytes) => {
    const same = results.filter((result) => result.payloadBytes === payloadBytes)
    const floors = same.flatMap((result) => result.floors)
    const all = combine(floors)
    const ratios = floors.map(({ p50Ns }) => p50Ns / all.p50Ns)
    return {
      trial: 'latency',
      driver: 'floor',
      provider: same[0]!.provider,
      payloadBytes,
      rounds: floors.length,
      ...all,
      floorP50Ns: all.p50Ns,
      ratioToFloor: 1,
      ratioMin: Math.min(...ratios),
      ratioMax: Math.max(...ratios),
      floors: [],
    }
  })
}

function defaultSamples(payloadBytes: number): number {
  return payloadBytes <= 4096 ? 20_000 : payloadBytes <= 65_536 ? 5_000 : 500
}
