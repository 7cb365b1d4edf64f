// The tail when somebody else wants the worker's core: the same calls, calm and beside a process that
// copies memory there without a break.
import { once } from 'node:events'

import { withCluster } from '../cluster.js'
import { DriverProcess } from '../driver-process.js'
import { burn } from '../floors.js'
import type { Point } from '../results.js'
import { eachRound, openOptions, samplesFor, type Trial } from './trial.js'

const payloadBytes = 8

export const neighbour: Trial = {
  description:
    'round trips of an echo of 8 B, calm and with a noisy neighbour on the worker’s core',
  drivers: ['invokeSync', 'invoke', 'warm', 'node', 'fastify'],
  run: (context, names) =>
    withCluster(context.cores.workers.slice(0, 1), ({ url }) =>
      eachRound(context, 'neighbour', names, async (driver) => {
        const { cores, recorder, budgetMs } = context
        const options = openOptions(context, url, { function: 'echo' })
        const process = await DriverProcess.open(cores.client, { driver, options })
        const measure = async (neighbours: number): Promise<void> => {
          const samples = samplesFor(context, payloadBytes)
          const round = await process.ask('latency', { payloadBytes, samples, budgetMs })
          const { batchNs: _, ...distribution } = round
          const params = { neighbours }
          const of = (metric: string): Point => ({
            ...{ trial: 'neighbour', driver, metric, params },
            ...{ unit: 'ns', better: 'lower' },
          })
          recorder.add(of('round trip'), { value: distribution.p50Ns, distribution })
          recorder.add(of('p99'), { value: distribution.p99Ns })
        }
        try {
          await measure(0)
          const noise = burn(cores.workers[0]!)
          await once(noise, 'spawn')
          try {
            await measure(1)
          } finally {
            const exited = once(noise, 'exit')
            noise.kill()
            await exited
          }
        } finally {
          await process.close()
        }
      }),
    ),
}
