// What a worker costs that nobody calls: memory that it shares with no other process, and CPU time
// once it is warm, that is, asleep.
import { setTimeout as sleep } from 'node:timers/promises'

import { withCluster } from '../cluster.js'
import { DriverProcess } from '../driver-process.js'
import type { DriverName } from '../drivers/index.js'
import { cpuNsOf, unsharedBytes } from '../processes.js'
import type { Point } from '../results.js'
import { eachRound, openOptions, type Trial } from './trial.js'

const payloadBytes = 8
const calls = 1_000
// Far longer than a worker stays hot.
const coolMs = 200
const shortestWatchMs = 200

const runtimes: Partial<Record<DriverName, string>> = { invokeSync: 'native', node: 'node' }

export const footprint: Trial = {
  description: 'a worker that nobody calls: unshared memory and CPU time',
  drivers: ['invokeSync', 'node'],
  run: (context, names) =>
    withCluster(context.cores.workers.slice(0, 1), (cluster) =>
      eachRound(context, 'footprint', names, async (driver) => {
        const { cores, recorder, budgetMs } = context
        const options = openOptions(context, cluster.url, { function: 'echo' })
        const process = await DriverProcess.open(cores.client, { driver, options })
        try {
          await process.ask('latency', { payloadBytes, samples: calls, budgetMs })
          await sleep(coolMs)
          const pids = cluster.workers()
          const memory = pids.reduce((sum, pid) => sum + unsharedBytes(pid), 0)
          recorder.add(pointOf(driver, 'unshared memory per worker', 'B'), { value: memory })
          const watchMs = Math.max(shortestWatchMs, budgetMs)
          const [before, begin] = [cpuNsOf(pids), performance.now()]
          await sleep(watchMs)
          const used = cpuNsOf(pids) - before
          const elapsedNs = (performance.now() - begin) * 1e6
          recorder.add(pointOf(driver, 'CPU when idle', '%'), { value: (100 * used) / elapsedNs })
        } finally {
          await process.close()
        }
      }),
    ),
}

function pointOf(driver: DriverName, metric: string, unit: Point['unit']): Point {
  return {
    trial: 'footprint',
    driver: runtimes[driver] ?? driver,
    metric,
    unit,
    better: 'lower',
    params: {},
  }
}
