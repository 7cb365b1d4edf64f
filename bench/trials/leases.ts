// What the resource manager alone can do, with its durable store: leases granted per second, how long
// one takes, and the memory that one costs. It runs in a process of its own on the worker's core; the
// nodes whose cores it grants are only registered, nothing runs on them.
import { spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { Agent, request } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'

import { canPin } from '../cores.js'
import { root } from '../machine.js'
import { unsharedBytes } from '../processes.js'
import type { Point } from '../results.js'
import { distributionOf } from '../statistics.js'
import type { Context, Trial } from './trial.js'

const concurrencies = [1, 8, 16, 64]
const defaultSamples = 5_000
const coresPerNode = 4096
const memoryBytes = 16 * 1024 * 1024
// Nobody answers its heartbeats: the nodes must not be lost before the end.
const heartbeat = '1h'

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
  const samples = context.samples ?? defaultSamples
  const warmup = Math.ceil(samples / 4)
  const manager = await startResourceManager(context.cores.workers[0]!)
  try {
    const post = poster(manager.url, concurrency)
    const nodes = Math.ceil((samples + warmup) / coresPerNode)
    for (let node = 0; node < nodes; ++node) await post('/v1/nodes', registration(node))
    const grant = (): Promise<void> =>
      post('/v1/leases', {
        ...{ cores: 1, memoryBytes, durationMs: 3_600_000 },
        requestId: randomUUID(),
      })
    await lanes(concurrency, warmup, grant)
    const before = unsharedBytes(manager.pid)
    const times = new Float64Array(samples)
    let done = 0
    const begin = process.hrtime.bigint()
    await lanes(concurrency, samples, async () => {
      const start = process.hrtime.bigint()
      await grant()
      times[done++] = Number(process.hrtime.bigint() - start)
    })
    const elapsedNs = Number(process.hrtime.bigint() - begin)
    const distribution = distributionOf(times)
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
    await manager.close()
  }
}

async function startResourceManager(core: number) {
  const dataDir = await mkdtemp(join(tmpdir(), 'rfaas-bench-'))
  const program = join(root, 'dist', 'lib', 'cli', 'main.js')
  const options = ['--port', '0', '--data-dir', dataDir, '--heartbeat-ms', heartbeat]
  const command = [process.execPath, program, 'resource-manager', ...options, '--log-level', 'warn']
  const pinned = canPin() ? ['taskset', '-c', String(core), ...command] : command
  const child = spawn(pinned[0]!, pinned.slice(1), { stdio: ['ignore', 'pipe', 'inherit'] })
  const failed = once(child, 'exit').then(([code]) => {
    throw new Error(`the resource manager ended with ${String(code)}`)
  })
  const url = once(createInterface(child.stdout), 'line').then(([line]) => line as string)
  const close = async (): Promise<void> => {
    if (child.exitCode === null) {
      const exited = once(child, 'exit')
      child.kill()
      await exited
    }
    await rm(dataDir, { recursive: true })
  }
  try {
    return { url: await Promise.race([url, failed]), pid: child.pid!, close }
  } catch (error) {
    await close()
    throw error
  } finally {
    failed.catch(() => undefined)
  }
}

function registration(node: number): unknown {
  return {
    name: `node-${node}`,
    url: `http://127.0.0.1:${20_000 + node}`,
    cores: Array.from({ length: coresPerNode }, (_, core) => core),
    memoryBytes: coresPerNode * memoryBytes,
    providers: [{ name: 'shm', available: true, reason: '' }],
    hostId: `bench-${node}`,
    sequence: 1,
    leases: [],
  }
}

/** POSTs JSON. Not the client of lib: it would be the slower side, and this is about the manager. */
function poster(url: string, connections: number) {
  const agent = new Agent({ keepAlive: true, maxSockets: connections })
  return (path: string, body: unknown): Promise<void> =>
    new Promise((resolve, reject) => {
      const text = JSON.stringify(body)
      const headers = {
        'content-type': 'application/json',
        'content-length': Buffer.byteLength(text),
      }
      const sent = request(new URL(path, url), { method: 'POST', agent, headers }, (response) => {
        const chunks: Buffer[] = []
        response.on('data', (chunk: Buffer) => chunks.push(chunk))
        response.on('error', reject)
        response.on('end', () => {
          const { statusCode = 0 } = response
          if (statusCode >= 200 && statusCode < 300) return resolve()
          reject(
            new Error(`POST ${path} was answered ${statusCode}: ${String(Buffer.concat(chunks))}`),
          )
        })
      })
      sent.on('error', reject)
      sent.end(text)
    })
}

async function lanes(count: number, calls: number, call: () => Promise<void>): Promise<void> {
  let left = calls
  const lane = async (): Promise<void> => {
    while (left-- > 0) await call()
  }
  await Promise.all(Array.from({ length: count }, lane))
}

function pointOf(metric: string, unit: Point['unit'], params: Point['params']): Point {
  const better = unit === '1/s' ? 'higher' : 'lower'
  return { trial: 'leases', driver: 'resourceManager', metric, unit, better, params }
}
