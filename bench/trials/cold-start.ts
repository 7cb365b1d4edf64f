// From nothing to the first result, taken apart: lease, code, spawn, connect, first call. `first`:
// the node has never seen the code; `cached`: it has; `pool`: it has, and a worker waits. Peers start
// their server.
import { setTimeout as sleep } from 'node:timers/promises'

import { withCluster } from '../cluster.js'
import { DriverProcess } from '../driver-process.js'
import { withBareServers } from '../drivers/bare-requests.js'
import type { DriverName } from '../drivers/index.js'
import type { Point } from '../results.js'
import { distributionOf } from '../statistics.js'
import { eachRound, isRfaas, openOptions, type Context, type Trial } from './trial.js'

const payloadBytes = 8
// Each is a whole start: enough for a median, not for a tail.
const mostSamples = 20
// A rate is that of managers that have been at it for a while: so many times as many starts.
const ratedStarts = 10
// Until another worker waits in the pool.
const refillMs = 250

/** The runtime that a driver stands for here: how it calls does not matter. */
const labels: Partial<Record<DriverName, string>> = { invokeSync: 'native', node: 'node' }

export const coldStart: Trial = {
  description: 'from nothing to the first result of an echo of 8 B, taken apart',
  drivers: ['invokeSync', 'node', 'piscina', 'grpc', 'fastify', 'functionsFramework'],
  run: (context, names) => {
    const { client, workers } = context.cores
    // On all cores: a worker that has just started spins on its own, while the client only waits.
    const managers = [client, ...workers]
    const run = (cold: string, pooled: string, bare: string): Promise<void> =>
      eachRound(context, 'cold-start', ['bareRequests', ...names], async (driver) => {
        if (driver === 'bareRequests') return starts(context, bare, driver, 'floor')
        if (!isRfaas(driver)) return starts(context, cold, driver, 'server')
        await starts(context, cold, driver, 'first')
        await starts(context, cold, driver, 'cached')
        await starts(context, pooled, driver, 'pool')
        await startsPerSecond(context, cold, driver)
      })
    return withBareServers(managers, (bare) =>
      withCluster(
        workers,
        (cold) =>
          withCluster(workers, (pooled) => run(cold.url, pooled.url, bare), { managers, pool: 1 }),
        { managers },
      ),
    )
  },
}

async function starts(
  context: Context,
  url: string,
  driver: DriverName,
  state: 'first' | 'cached' | 'pool' | 'server' | 'floor',
): Promise<void> {
  const times = new Map<string, number[]>()
  const note = (name: string, ns: number): void => {
    times.set(name, [...(times.get(name) ?? []), ns])
  }
  const process = DriverProcess.start(context.cores.client)
  try {
    const options = openOptions(context, url, {
      function: 'echo',
      firstTime: state === 'first',
    })
    // The first one warms the managers and this client's code up.
    for (let i = 0; i <= samplesOf(context); ++i) {
      if (state === 'pool' || state === 'floor') await sleep(refillMs)
      const parts = await process.ask('cold', { driver, options, payloadBytes })
      if (i === 0) continue
      for (const name of new Set(parts.map((part) => part.name))) {
        const own = parts.filter((part) => part.name === name)
        note(
          name,
          own.reduce((sum, { ns }) => sum + ns, 0),
        )
      }
      note(
        'total',
        parts.reduce((sum, { ns }) => sum + ns, 0),
      )
    }
  } finally {
    process.kill()
  }
  for (const [part, ns] of times) {
    const distribution = distributionOf(Float64Array.from(ns))
    context.recorder.add(pointOf(driver, 'start', { state, part }), {
      value: distribution.p50Ns,
      ...(part === 'total' ? { distribution } : {}),
    })
  }
}

/** As many clients as the node has cores to lend start one executor after the other. */
async function startsPerSecond(context: Context, url: string, driver: DriverName): Promise<void> {
  const { workers, client } = context.cores
  const options = openOptions(context, url, { function: 'echo' })
  const ask = { driver, options, payloadBytes }
  const processes = workers.map(() => DriverProcess.start(client))
  try {
    await Promise.all(processes.map((process) => process.ask('cold', ask)))
    const each = ratedStarts * (context.samples ?? mostSamples)
    const begin = performance.now()
    await Promise.all(
      processes.map(async (process) => {
        for (let i = 0; i < each; ++i) await process.ask('cold', ask)
      }),
    )
    const seconds = (performance.now() - begin) / 1000
    context.recorder.add(
      {
        ...pointOf(driver, 'starts per second', { cores: workers.length }),
        unit: '1/s',
        better: 'higher',
      },
      { value: (each * processes.length) / seconds },
    )
  } finally {
    for (const process of processes) process.kill()
  }
}

function samplesOf({ samples }: Context): number {
  return Math.min(samples ?? mostSamples, mostSamples)
}

function pointOf(driver: DriverName, metric: string, params: Point['params']): Point {
  return {
    trial: 'cold-start',
    driver: labels[driver] ?? driver,
    metric,
    unit: 'ns',
    better: 'lower',
    params,
  }
}
