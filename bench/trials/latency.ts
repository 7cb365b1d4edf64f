// Round trips, one after the other, each driver against the floor of its provider.
import { withCluster } from '../cluster.js'
import { DriverProcess } from '../driver-process.js'
import type { DriverName } from '../drivers/index.js'
import type { FunctionName } from '../functions/functions.js'
import { eventfdFloor, roundTripFloor } from '../floors.js'
import { perftestFailure, perftestMissing, writeLatencyNs } from '../perftest.js'
import type { Point } from '../results.js'
import {
  beside,
  eachRound,
  isRfaas,
  KiB,
  MiB,
  openOptions,
  optionsPerCall,
  pricePayloadBytes,
  samplesFor,
  type Context,
  type Trial,
} from './trial.js'

const payloads = [1, 8, 64, KiB, 4 * KiB, 64 * KiB, MiB, 8 * MiB, 64 * MiB]
// Enough for the median of something that takes tens of microseconds.
const mostEventfdSamples = 2_000

export const latency: Trial = {
  description: 'round trips of one echo at a time, over the size of the payload',
  drivers: [
    'invokeSync',
    'invoke',
    'warm',
    'node',
    'piscina',
    'grpc',
    'fastify',
    'functionsFramework',
  ],
  run: async (context, names) => {
    const sizes = context.payloads ?? payloads
    await perftest(context, sizes)
    await withCluster(context.cores.workers.slice(0, 1), ({ url }) =>
      eachRound(context, 'latency', names, (driver) =>
        measure(context, { trial: 'latency', driver, url, name: 'echo', sizes }),
      ),
    )
  },
}

export const realFunction: Trial = {
  description: `round trips of a function that works: prices ${optionsPerCall} options`,
  drivers: ['direct', ...latency.drivers],
  run: (context, names) =>
    withCluster(context.cores.workers.slice(0, 1), ({ url }) =>
      eachRound(context, 'function', names, (driver) =>
        measure(context, {
          trial: 'function',
          driver,
          url,
          name: 'price',
          sizes: [pricePayloadBytes],
        }),
      ),
    ),
}

interface What {
  trial: string
  driver: DriverName
  url: string
  name: FunctionName
  sizes: readonly number[]
}

async function measure(context: Context, what: What): Promise<void> {
  const { trial, driver, url, name, sizes } = what
  const { cores, provider, recorder, budgetMs } = context
  const process = await DriverProcess.open(cores.client, {
    driver,
    options: openOptions(context, url, { function: name, maxPayloadBytes: Math.max(...sizes) }),
  })
  try {
    for (const payloadBytes of sizes) {
      const samples = samplesFor(context, payloadBytes)
      const point = (of: string, metric = 'round trip'): Point => ({
        trial,
        driver: of,
        metric,
        unit: 'ns',
        better: 'lower',
        params: { payloadBytes },
      })
      const floor = async (): Promise<number> => {
        const round = await roundTripFloor({ cores, provider, payloadBytes, samples })
        recorder.add(point('floor'), { value: round.p50Ns, distribution: round })
        return round.p50Ns
      }
      const asleep = async (): Promise<number> => {
        const few = Math.min(samples, mostEventfdSamples)
        const round = await eventfdFloor({ cores, samples: few })
        recorder.add(point('eventfd'), { value: round.p50Ns, distribution: round })
        return round.p50Ns
      }
      const call = () => process.ask('latency', { payloadBytes, samples, budgetMs })
      const spinning = (): Promise<{ measured: Awaited<ReturnType<typeof call>>; floor: number }> =>
        beside(floor, call)
      const warm = driver === 'warm' ? await beside(asleep, spinning) : undefined
      const { measured, floor: beneath } = warm?.measured ?? (await spinning())
      const { batchNs, ...distribution } = measured
      recorder.add(point(driver), {
        value: distribution.p50Ns,
        distribution,
        ratios: {
          floor: distribution.p50Ns / beneath,
          ...(warm === undefined ? {} : { eventfd: distribution.p50Ns / warm.floor }),
        },
      })
      if (isRfaas(driver)) {
        const ratios = { floor: batchNs / beneath }
        recorder.add(point(driver, 'mean of a batch'), { value: batchNs, ratios })
      }
    }
  } finally {
    await process.close()
  }
}

/** One way, as perftest reports it: half of what a round trip is. Other people's program: that it fails
 * is noted, and ends nothing. */
async function perftest(context: Context, sizes: readonly number[]): Promise<void> {
  const { provider, machine, cores, recorder } = context
  const [trial, driver] = ['latency', 'ib_write_lat']
  const missing = perftestMissing(provider)
  if (missing !== undefined) return recorder.skip(trial, driver, missing)
  for (let round = 1; round <= context.rounds; ++round) {
    context.say(`latency: round ${round} of ${context.rounds}: ib_write_lat`)
    for (const payloadBytes of sizes) {
      const samples = samplesFor(context, payloadBytes)
      const point: Point = {
        ...{ trial, driver, metric: 'one way', unit: 'ns', better: 'lower' },
        params: { payloadBytes },
      }
      try {
        const value = await writeLatencyNs(machine.device, cores, payloadBytes, samples)
        recorder.add(point, { value })
      } catch (error) {
        recorder.skip(trial, driver, perftestFailure(error))
        return
      }
    }
  }
}
