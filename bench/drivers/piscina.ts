// A pool of worker threads in the client's own process: what one takes instead on a single host.
import { readdirSync } from 'node:fs'
import { Piscina } from 'piscina'

import { pinThread } from '../cores.js'
import { javascriptModule } from '../functions/functions.js'
import type { AsyncOperation } from '../timing.js'
import type { Driver } from './driver.js'

export const piscina: Driver = {
  description: 'worker threads with piscina, in the same process',
  kind: 'peer',
  open: async ({ workerCores, function: name, depth }, step) => {
    step('begin')
    const before = new Set(threads())
    const pool = new Piscina({
      filename: javascriptModule,
      name,
      minThreads: workerCores.length,
      maxThreads: workerCores.length,
      concurrentTasksPerWorker: Math.max(1, depth),
    })
    if (pool.threads.length < workerCores.length) throw new Error('piscina started no threads')
    // They are there when they have been heard of.
    await Promise.all(pool.threads.map((thread) => online(thread)))
    threads()
      .filter((thread) => !before.has(thread))
      .forEach((thread, i) => pinThread(thread, workerCores[i % workerCores.length]!))
    step('spawn')
    let input: Uint8Array = new Uint8Array(0)
    const operation: AsyncOperation = {
      kind: 'async',
      call: () => pool.run(input) as Promise<Uint8Array>,
      output: input,
    }
    return {
      operation,
      use: (payload) => {
        input = payload
      },
      result: () => operation.output,
      servers: [],
      close: () => pool.destroy(),
    }
  },
}

/** Of this process, as the kernel numbers them. */
function threads(): number[] {
  return readdirSync('/proc/self/task').map(Number)
}

function online(thread: Piscina['threads'][number]): Promise<void> {
  return new Promise((resolve) => thread.once('online', resolve))
}
