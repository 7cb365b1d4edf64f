// Calls per second, and the CPU time that they cost on both sides: over the calls in flight, over
// workers, and over clients.
import { withCluster, type Cluster } from '../cluster.js'
import { clientCounts, workerCores, workerCounts } from '../cores.js'
import { DriverProcess } from '../driver-process.js'
import type { DriverName } from '../drivers/index.js'
import type { FunctionName } from '../functions/functions.js'
import { streamFloor } from '../floors.js'
import type { Point } from '../results.js'
import {
  beside,
  eachRound,
  isRfaas,
  openOptions,
  optionsPerCall,
  pricePayloadBytes,
  type Context,
  type Trial,
} from './trial.js'

const payloadBytes = 8
const depths = [1, 2, 4, 8, 16, 32, 64, 128, 256]
const workingDepth = 64
const defaultSamples = 1_000_000

const peers: readonly DriverName[] = ['piscina', 'grpc', 'fastify', 'functionsFramework']

export const depth: Trial = {
  description: 'echoes of 8 B per second, over the calls in flight: one client thread, one worker',
  drivers: ['invokeSync', 'invoke', 'map', 'mapRecords', 'nodeAwaited', 'nodeMap', ...peers],
  run: (context, names) =>
    withCluster(context.cores.workers.slice(0, 1), (cluster) =>
      eachRound(context, 'depth', names, (driver) => overDepth(context, cluster, driver)),
    ),
}

export const workers: Trial = {
  description: `prices of ${optionsPerCall} options per second, over workers: one client thread, ${workingDepth} calls in flight`,
  drivers: ['invoke', 'nodeAwaited', ...peers],
  run: (context, names) => {
    const counts = workerCounts(context.cores)
    const lent = workerCores(context.cores, counts.at(-1)!)
    return withCluster(lent, (cluster) =>
      eachRound(context, 'workers', names, async (driver) => {
        for (const count of counts) {
          const workers = [lent.slice(0, count)]
          await together(context, cluster, {
            ...{ trial: 'workers', params: { workers: count }, driver, workers },
            ...{ function: 'price', bytes: pricePayloadBytes },
          })
        }
      }),
    )
  },
}

export const clients: Trial = {
  description: `echoes of 8 B per second, over clients, each with a worker or server of its own and ${workingDepth} calls in flight`,
  drivers: ['invoke', ...peers],
  run: (context, names) => {
    const counts = clientCounts(context.cores)
    const lent = workerCores(context.cores, counts.at(-1)!)
    return withCluster(lent, (cluster) =>
      eachRound(context, 'clients', names, async (driver) => {
        for (const count of counts) {
          const workers = lent.slice(0, count).map((core) => [core])
          await together(context, cluster, {
            ...{ trial: 'clients', params: { clients: count }, driver, workers },
            ...{ function: 'echo', bytes: payloadBytes },
          })
        }
      }),
    )
  },
}

async function overDepth(context: Context, cluster: Cluster, driver: DriverName): Promise<void> {
  const { cores, provider, budgetMs, recorder } = context
  const samples = context.samples ?? defaultSamples
  const process = await DriverProcess.open(cores.client, {
    driver,
    options: openOptions(context, cluster.url, { function: 'echo', depth: Math.max(...depths) }),
  })
  try {
    for (const inFlight of driver === 'invokeSync' ? [1] : depths) {
      const params = { payloadBytes, depth: inFlight }
      const floor = async (): Promise<number> => {
        const options = { cores, provider, payloadBytes, samples, depth: inFlight }
        const { calls, elapsedNs } = await streamFloor(options)
        const value = (calls * 1e9) / elapsedNs
        recorder.add(rateOf('depth', 'floor', params), { value })
        return value
      }
      const { measured, floor: beneath } = await beside(floor, () =>
        process.ask('rate', {
          payloadBytes,
          depth: inFlight,
          samples,
          budgetMs,
          others: isRfaas(driver) ? cluster.workers() : [],
        }),
      )
      const { calls, elapsedNs, cpuNs } = measured
      const value = (calls * 1e9) / elapsedNs
      recorder.add(rateOf('depth', driver, params), { value, ratios: { floor: value / beneath } })
      recorder.add(costOf('depth', driver, params), { value: cpuNs / calls })
    }
  } finally {
    await process.close()
  }
}

interface What {
  trial: string
  params: Point['params']
  driver: DriverName
  function: FunctionName
  bytes: number
  /** Of each client, the cores of its workers. */
  workers: readonly (readonly number[])[]
}

/** All clients at the same time; their rates add up. An rfaas client has a lease of its own. */
async function together(context: Context, cluster: Cluster, what: What): Promise<void> {
  const { trial, params, driver, bytes, workers } = what
  // From the other end: as long as there are cores enough, no client is on a worker's.
  const cores = [context.cores.client, ...context.cores.workers.toReversed()]
  const processes = await Promise.all(
    workers.map((workerCores, i) =>
      DriverProcess.open(cores[i]!, {
        driver,
        options: openOptions(context, cluster.url, {
          function: what.function,
          maxPayloadBytes: bytes,
          depth: workingDepth,
          workerCores,
        }),
      }),
    ),
  )
  try {
    const rounds = await Promise.all(
      processes.map((process, i) =>
        process.ask('rate', {
          payloadBytes: bytes,
          depth: workingDepth,
          samples: context.samples ?? defaultSamples,
          budgetMs: context.budgetMs,
          // Those of all clients, counted by the first.
          others: isRfaas(driver) && i === 0 ? cluster.workers() : [],
        }),
      ),
    )
    const rates = rounds.map(({ calls, elapsedNs }) => (calls * 1e9) / elapsedNs)
    const value = rates.reduce((sum, rate) => sum + rate, 0)
    context.recorder.add(rateOf(trial, driver, params), { value })
    const cpuNs = rounds.reduce((sum, round) => sum + round.cpuNs, 0)
    const calls = rounds.reduce((sum, round) => sum + round.calls, 0)
    context.recorder.add(costOf(trial, driver, params), { value: cpuNs / calls })
  } finally {
    await Promise.all(processes.map((process) => process.close()))
  }
}

function rateOf(trial: string, driver: string, params: Point['params']): Point {
  return { trial, driver, metric: 'calls per second', unit: '1/s', better: 'higher', params }
}

function costOf(trial: string, driver: string, params: Point['params']): Point {
  return { trial, driver, metric: 'CPU time per call', unit: 'ns', better: 'lower', params }
}
