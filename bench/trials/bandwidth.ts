// Bytes per second, in and out together, of large echoes one after the other.
import { withCluster } from '../cluster.js'
import { DriverProcess } from '../driver-process.js'
import type { DriverName } from '../drivers/index.js'
import { memcpyFloor, roundTripFloor } from '../floors.js'
import { perftestFailure, perftestMissing, writeBandwidth } from '../perftest.js'
import type { Point } from '../results.js'
import {
  beside,
  eachRound,
  MiB,
  openOptions,
  samplesFor,
  type Context,
  type Trial,
} from './trial.js'

const payloads = [MiB, 8 * MiB, 64 * MiB]

export const bandwidth: Trial = {
  description: 'bytes per second, in and out, of one large echo at a time',
  drivers: ['invokeSync', 'invoke', 'node', 'piscina', 'grpc', 'fastify', 'functionsFramework'],
  run: async (context, names) => {
    const sizes = context.payloads ?? payloads
    await machine(context, sizes)
    await withCluster(context.cores.workers.slice(0, 1), ({ url }) =>
      eachRound(context, 'bandwidth', names, (driver) => measure(context, driver, url, sizes)),
    )
  },
}

async function measure(
  context: Context,
  driver: DriverName,
  url: string,
  sizes: readonly number[],
): Promise<void> {
  const { cores, provider, recorder, budgetMs } = context
  const process = await DriverProcess.open(cores.client, {
    driver,
    options: openOptions(context, url, { function: 'echo', maxPayloadBytes: Math.max(...sizes) }),
  })
  try {
    for (const payloadBytes of sizes) {
      const samples = samplesFor(context, payloadBytes)
      // An echo reads its input and writes a result, on whatever fabric: so does this floor. The
      // bare one never looks at its bytes.
      const floor = async (): Promise<number> => {
        const options = { cores, provider, payloadBytes, samples }
        const bare = await roundTripFloor(options)
        recorder.add(rateOf('bareFloor', payloadBytes), { value: rate(payloadBytes, bare.p50Ns) })
        const echo = await roundTripFloor({ ...options, echo: true })
        const value = rate(payloadBytes, echo.p50Ns)
        recorder.add(rateOf('floor', payloadBytes), { value })
        return value
      }
      const { measured, floor: beneath } = await beside(floor, () =>
        process.ask('latency', { payloadBytes, samples, budgetMs }),
      )
      const value = rate(payloadBytes, measured.p50Ns)
      recorder.add(rateOf(driver, payloadBytes), { value, ratios: { floor: value / beneath } })
    }
  } finally {
    await process.close()
  }
}

/** What copying costs anyhow, and what perftest makes of the device. */
async function machine(context: Context, sizes: readonly number[]): Promise<void> {
  const { provider, cores, recorder } = context
  let missing = perftestMissing(provider)
  for (let round = 1; round <= context.rounds; ++round) {
    context.say(`bandwidth: round ${round} of ${context.rounds}: the machine`)
    for (const payloadBytes of sizes) {
      const samples = samplesFor(context, payloadBytes)
      const copy = await memcpyFloor({ cores, payloadBytes, samples })
      // One copy of the bytes: in and out are two.
      recorder.add(rateOf('memcpy', payloadBytes), { value: (payloadBytes * 1e9) / copy.p50Ns })
      if (missing !== undefined) continue
      try {
        const value = await writeBandwidth(context.machine.device, cores, payloadBytes, samples)
        recorder.add(rateOf('ib_write_bw', payloadBytes), { value })
      } catch (error) {
        missing = perftestFailure(error)
      }
    }
  }
  if (missing !== undefined) recorder.skip('bandwidth', 'ib_write_bw', missing)
}

const rate = (payloadBytes: number, ns: number): number => (2 * payloadBytes * 1e9) / ns

function rateOf(driver: string, payloadBytes: number): Point {
  return {
    trial: 'bandwidth',
    driver,
    metric: 'bytes per second',
    unit: 'B/s',
    better: 'higher',
    params: { payloadBytes },
  }
}
