// What the resource manager alone can do, with its durable store: leases granted per second, how long
// one takes, and the memory that one costs. It runs in a process of its own on the worker's core, and
// whoever asks it in another one on the client's; the nodes whose cores it grants are only registered,
// nothing runs on them.
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'

import { forkOn } from '../cores.js'
import type { GrantsAnswer, GrantsAsk } from '../grants-process.js'
import { root } from '../machine.js'
import { startManager } from '../manager-process.js'
import { unsharedBytes } from '../processes.js'
import type { Point } from '../results.js'
import { distributionOf } from '../statistics.js'
import type { Context, Trial } from './trial.js'

const concurrencies = [1, 8, 16, 64]
// After a quarter as many for warming up: the compilers of a manager that has just started share its core.
const defaultSamples = (concurrency: number): number => (concurrency === 1 ? 4_000 : 16_000)
const coresPerNode = 128
const memoryBytes = 16 * 1024 * 1024
// Nobody answers its heartbeats: the nodes must not be lost before the end.
const heartbeat = ['--heartbeat-ms', '1h']

export const leases: Trial = {
  description: 'leases granted by the resource manager, each durable before it is answered',
  drivers: [],
  run: async (context) => {
    for (let round = 1; round <= context.rounds; ++round) {
      context.say(`leases: round ${round} of ${context.rounds}`)
      for (const concurrency of concurrencies) await grants(context, concurrency)
    }
  },
}

async function grants(context: Context, concurrency: number): Promise<void> {
  const samples = context.samples ?? defaultSamples(concurrency)
  const warmup = Math.ceil(samples / 4)
  const { client, workers } = context.cores
  const manager = await startManager('resource-manager', [workers[0]!], heartbeat)
  const asking = forkOn([client], join(root, 'dist', 'bench', 'grants-process.js'))
  try {
    const nodes = Math.ceil((samples + warmup) / coresPerNode)
    for (let node = 0; node < nodes; ++node) await register(manager.url, node)
    const ask = (samples: number): Promise<GrantsAnswer> =>
      answerOf(asking, { url: manager.url, concurrency, samples, memoryBytes })
    await ask(warmup)
    const before = unsharedBytes(manager.pid)
    const { timesNs, elapsedNs } = await ask(samples)
    const distribution = distributionOf(Float64Array.from(timesNs))
    const { recorder } = context
    const params = { concurrency }
    recorder.add(pointOf('grant', 'ns', params), { value: distribution.p50Ns, distribution })
    recorder.add(pointOf('p99 of a grant', 'ns', params), { value: distribution.p99Ns })
    recorder.add(pointOf('grants per second', '1/s', params), {
      value: (samples * 1e9) / elapsedNs,
    })
    recorder.add(pointOf('unshared memory per lease', 'B', params), {
      value: Math.max(0, unsharedBytes(manager.pid) - before) / samples,
    })
  } finally {
    asking.kill()
    await manager.close()
  }
}

async function answerOf(asking: ChildProcess, ask: GrantsAsk): Promise<GrantsAnswer> {
  const ended = once(asking, 'exit').then(([code, signal]) => {
    throw new Error(`the process that asks for leases ended with ${String(code ?? signal)}`)
  })
  asking.send(ask)
  const [answer] = (await Promise.race([once(asking, 'message'), ended])) as [GrantsAnswer]
  ended.catch(() => undefined)
  return answer
}

async function register(url: string, node: number): Promise<void> {
  const registration = {
    name: `node-${node}`,
    url: `http://127.0.0.1:${20_000 + node}`,
    cores: Array.from({ length: coresPerNode }, (_, core) => core),
    memoryBytes: coresPerNode * memoryBytes,
    providers: [{ name: 'shm', available: true, reason: '' }],
    hostId: `bench-${node}`,
    sequence: 1,
    leases: [],
  }
  const answer = await fetch(new URL('/v1/nodes', url), {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(registration),
  })
  if (!answer.ok) throw new Error(`a node was answered ${answer.status}: ${await answer.text()}`)
}

function pointOf(metric: string, unit: Point['unit'], params: Point['params']): Point {
  const better = unit === '1/s' ? 'higher' : 'lower'
  return { trial: 'leases', driver: 'resourceManager', metric, unit, better, params }
}
