// Executors from start to end, with real workers and real calls.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { afterEach, describe, expect, it } from 'vitest'
import { Client, type Lease } from '../../lib/index.js'
import { events, request } from '../../lib/control/http.js'
import type { WorkerLostEvent, WorkerReadyEvent } from '../../lib/control/schemas.js'
import type { LeaseRow, Overview } from '../../resource-manager/dashboard/messages.js'
import {
  childrenOf,
  cleanUp,
  eventually,
  exists,
  grant,
  leaseInfo,
  listen,
  nativePackage,
  onCleanUp,
  startCluster,
  startExecutor,
  temporaryDirectory,
  type Cluster,
} from './support.js'

const script = `
export const echo = (input, output) => { output.set(input); return input.length }
export const view = (input) => input.slice().reverse()
export const inPlace = (input, output) => { output[0] = 42; return output.subarray(0, 1) }
export async function later(input, output) {
  await new Promise((resolve) => setTimeout(resolve, 30))
  return echo(input, output)
}
export const twice = (input, output) => output.length + 1
export const negative = () => -1
export const nothing = () => undefined
export const thrower = () => { throw new TypeError('no good') }
export const rejecter = async () => { throw new RangeError('not in range') }
export const quit = () => process.exit(3)
export const kill = () => process.kill(process.pid, 'SIGKILL')
export const loop = () => { for (;;); }
export const sleeper = () => new Promise(() => setInterval(() => {}, 1000))
export const heedful = (input, output, { signal }) => new Promise((resolve, reject) => {
  signal.addEventListener('abort', () => reject(signal.reason))
})
export const stray = () => { setImmediate(() => { throw new Error('astray') }); return 0 }
export const about = (input, output, context) => new TextEncoder().encode(JSON.stringify({
  worker: context.worker, id: typeof context.requestId, left: context.deadlineMs - Date.now(),
}))
export const environment = () => new TextEncoder().encode(Object.keys(process.env).sort().join())
export const burn = () => {
  for (let used = 0; used < 600_000; used = process.cpuUsage().user + process.cpuUsage().system);
  process.exit(0)
}
`

const library = `
#include <rfaas/function.h>
#include <string.h>
static int64_t echo(const void* in, size_t n, void* out, size_t cap, rfaas_context*) {
    if (n > cap) return RFAAS_OUTPUT_TOO_SMALL;
    memcpy(out, in, n);
    return (int64_t)n;
}
static int64_t crash(const void*, size_t, void*, size_t, rfaas_context*) {
    *(volatile int*)8 = 1;
    return 0;
}
static int64_t loop(const void*, size_t, void*, size_t, rfaas_context*) {
    for (volatile int i = 0;; i = i + 1) {}
}
RFAAS_FUNCTIONS({"echo", echo}, {"crash", crash}, {"loop", loop})
`

afterEach(cleanUp)

async function deploy(cluster: Cluster, name: string, code: string | Buffer) {
  const client = await Client.connect(cluster.resourceManager.url)
  onCleanUp(() => client.close())
  const lease: Lease = await client.lease({ cores: 1, memory: '64MiB', duration: '60s' })
  const path = join(temporaryDirectory(), name)
  writeFileSync(path, code)
  const lost: string[] = []
  lease.on('workerLost', (_worker, cause) => lost.push(cause))
  const functions = await lease.deploy(path, { payload: 4096, output: 64, slots: 4 })
  return { lease, functions, lost }
}

const bytes = (...values: number[]): Uint8Array => Uint8Array.from(values)
const text = (value: Uint8Array): string => Buffer.from(value).toString()

describe('calls', () => {
  it.each(['native', 'node'])(
    'of %s functions are counted and timed for who looks',
    async (kind) => {
      // First: while the compiler runs nothing in this process is alive.
      const code = kind === 'node' ? script : nativePackage(library)
      const cluster = await startCluster()
      const { functions, lease } = await deploy(cluster, kind === 'node' ? 'f.mjs' : 'f.so', code)
      let seen: LeaseRow['calls']
      const reading = new AbortController()
      onCleanUp(() => reading.abort())
      const url = `${cluster.resourceManager.url}/v1/overview/events`
      void (async () => {
        for await (const { data } of events(url, { signal: reading.signal })) {
          seen = (data as Overview).leases.find(({ id }) => id === lease.id)?.calls ?? seen
        }
      })().catch(() => undefined)
      for (let call = 0; call < 100; call += 1) await functions.invoke('echo', bytes(1))
      const oneMore = async (): Promise<number | undefined> => {
        // A worker tells of its last calls with the next ones.
        await functions.invoke('echo', bytes(1))
        return seen?.total
      }
      await expect.poll(oneMore, { timeout: 20_000, interval: 100 }).toBeGreaterThan(100)
      expect(seen?.p50Us).toBeGreaterThan(0)
      expect(seen?.p99Us).toBeGreaterThanOrEqual(seen!.p50Us)
    },
  )
})

describe('functions in JavaScript', () => {
  it('answer with what they wrote, returned or resolved to', async () => {
    const { functions } = await deploy(await startCluster(), 'f.mjs', script)
    expect(await functions.invoke('echo', bytes(1, 2))).toEqual(bytes(1, 2))
    expect(await functions.invoke('view', bytes(1, 2))).toEqual(bytes(2, 1))
    expect(await functions.invoke('inPlace', bytes())).toEqual(bytes(42))
    const inputs = [bytes(1), bytes(2), bytes(3), bytes(4)]
    expect(await Promise.all(inputs.map((i) => functions.invoke('later', i)))).toEqual(inputs)
    const about = JSON.parse(
      text(await functions.invoke('about', bytes(), { timeoutMs: 5000 })),
    ) as { worker: number; id: string; left: number }
    expect(about).toMatchObject({ worker: 0, id: 'bigint' })
    expect(about.left).toBeGreaterThan(3000)
    expect(about.left).toBeLessThanOrEqual(5000)
  })

  it('fail with their own words, and go on working', async () => {
    const { functions } = await deploy(await startCluster(), 'f.mjs', script)
    const fails = async (name: string, code: string, words: string): Promise<void> => {
      await expect(functions.invoke(name, bytes()), name).rejects.toMatchObject({
        code,
        message: expect.stringContaining(words) as unknown,
      })
    }
    await fails('thrower', 'ERR_RFAAS_FUNCTION', 'TypeError: no good')
    await fails('rejecter', 'ERR_RFAAS_FUNCTION', 'RangeError: not in range')
    await fails('negative', 'ERR_RFAAS_FUNCTION', 'returned -1')
    await fails('nothing', 'ERR_RFAAS_FUNCTION', 'returned undefined')
    await fails('twice', 'ERR_RFAAS_OUTPUT_TOO_SMALL', '65 bytes, the output takes 64')
    expect(await functions.invoke('echo', bytes(7))).toEqual(bytes(7))
  })

  it('get only a small part of the environment of the manager', async () => {
    process.env['SECRET_OF_THE_OPERATOR'] = 'x'
    process.env['NODE_EXTRA_CA_CERTS'] = '/dev/null'
    onCleanUp(() => {
      delete process.env['SECRET_OF_THE_OPERATOR']
      delete process.env['NODE_EXTRA_CA_CERTS']
    })
    const { functions } = await deploy(await startCluster(), 'f.mjs', script)
    const names = text(await functions.invoke('environment', bytes())).split(',')
    expect(['PATH', 'HOME', 'TMPDIR', 'LANG', 'TZ']).toEqual(expect.arrayContaining(names))
  })

  it('that end their process are named, and the worker comes back', async () => {
    const { functions, lost } = await deploy(await startCluster(), 'f.mjs', script)
    const ends = [
      ['quit', "worker 0 exited with code 3 in function 'quit'"],
      ['kill', 'worker 0 was killed by SIGKILL'],
      ['stray', 'worker 0 failed: the worker failed outside of a call: Error: astray'],
    ] as const
    for (const [name, cause] of ends) {
      await functions.invoke(name, bytes()).catch(() => undefined)
      await eventually(() => lost.includes(cause), cause)
      await eventually(
        () =>
          functions.invoke('echo', bytes(1)).then(
            () => true,
            () => false,
          ),
        `the worker is back after ${name}`,
      )
    }
  })

  it('that run past their deadline end with it, whether they block or not', async () => {
    const { functions, lost } = await deploy(await startCluster(), 'f.mjs', script)
    const timeoutMs = 150
    const late = { code: 'ERR_RFAAS_DEADLINE' }
    await expect(functions.invoke('loop', bytes(), { timeoutMs })).rejects.toMatchObject(late)
    await eventually(() => lost.includes("worker 0 ran past its deadline in 'loop'"), 'loop')
    await eventually(
      () =>
        functions.invoke('echo', bytes(1)).then(
          () => true,
          () => false,
        ),
      'the worker is back',
    )
    await expect(functions.invoke('heedful', bytes(), { timeoutMs })).rejects.toMatchObject(late)
    expect(lost).toHaveLength(1)
    await functions.invoke('sleeper', bytes(), { timeoutMs }).catch(() => undefined)
    await eventually(() => lost.includes("worker 0 ran past its deadline in 'sleeper'"), 'sleeper')
  })
})

describe('functions in a shared library', () => {
  it('answer, and a crash names its function and is survived', async () => {
    // First: while the compiler runs nothing in this process is alive, heartbeats neither.
    const code = nativePackage(library)
    const { functions, lost } = await deploy(await startCluster(), 'f.so', code)
    expect(await functions.invoke('echo', bytes(1, 2))).toEqual(bytes(1, 2))
    await expect(functions.invoke('crash', bytes())).rejects.toMatchObject({
      code: 'ERR_RFAAS_WORKER_LOST',
    })
    await eventually(
      () => lost.includes("worker 0 was killed by SIGSEGV in function 'crash'"),
      'the cause of the crash',
    )
    await eventually(
      () =>
        functions.invoke('echo', bytes(3)).then(
          () => true,
          () => false,
        ),
      'the worker is back',
    )
  })
})

describe('executors', () => {
  it('replace a worker under a new address and ticket, and say so to late listeners too', async () => {
    const cluster = await startCluster()
    const { lease, part, token } = await grant(cluster)
    const { url } = cluster.node
    const heard = listen(url, lease.id, token)
    const executor = await startExecutor(url, token, script)
    const [worker] = childrenOf(process.pid)
    process.kill(worker as number, 'SIGBUS')
    expect(await heard.next<WorkerLostEvent>('worker-lost')).toEqual({
      executor: executor.id,
      worker: 0,
      cause: 'worker 0 was killed by SIGBUS',
    })
    const { endpoint } = await heard.next<WorkerReadyEvent>('worker-ready')
    const [first] = executor.workers
    expect(endpoint).toMatchObject({ worker: 0, core: part.cores[0] })
    expect(endpoint.ticket).not.toBe(first?.ticket)
    expect(endpoint.address).not.toBe(first?.address)
    const late = listen(url, lease.id, token)
    expect((await late.next<WorkerReadyEvent>('worker-ready')).endpoint).toEqual(endpoint)
  })

  it('have what became of them kept for whoever listens first', async () => {
    const cluster = await startCluster()
    const { lease, token } = await grant(cluster)
    const { url } = cluster.node
    const executor = await startExecutor(url, token, script)
    const [worker] = childrenOf(process.pid)
    process.kill(worker as number, 'SIGBUS')
    await eventually(() => ![undefined, worker].includes(childrenOf(process.pid)[0]), 'another')
    const heard = listen(url, lease.id, token)
    const lost = await heard.next<WorkerLostEvent>('worker-lost')
    expect(lost).toMatchObject({ executor: executor.id, cause: 'worker 0 was killed by SIGBUS' })
    const { endpoint } = await heard.next<WorkerReadyEvent>('worker-ready')
    expect(endpoint.ticket).not.toBe(executor.workers[0]?.ticket)
  })

  it('are ended on their node when the lease expires, and the ledger gets what they used', async () => {
    const cluster = await startCluster()
    const { lease, token } = await grant(cluster, { durationMs: 3000 })
    const heard = listen(cluster.node.url, lease.id, token)
    await startExecutor(cluster.node.url, token, script)
    const [worker] = childrenOf(process.pid)
    expect(await heard.next('lease-ended')).toEqual({ reason: 'expired' })
    await heard.done
    expect(exists(worker as number)).toBe(false)
    await eventually(
      async () => (await leaseInfo(cluster, lease.id)).state === 'closed',
      'the lease is closed',
    )
  })

  it('of one lease share its cores; each can be stopped by itself', async () => {
    const cluster = await startCluster()
    const { token } = await grant(cluster)
    const { url } = cluster.node
    const first = await startExecutor(url, token, script)
    const second = await startExecutor(url, token, `${script}\nexport const more = () => 0`)
    expect(second.functions).toContain('more')
    expect(childrenOf(process.pid)).toHaveLength(2)
    await request(`${url}/v1/executors/${first.id}`, { method: 'DELETE', token })
    expect(childrenOf(process.pid)).toHaveLength(1)
    await expect(
      request(`${url}/v1/executors/${first.id}`, { method: 'DELETE', token }),
    ).rejects.toMatchObject({ code: 'ERR_RFAAS_NOT_FOUND' })
  })

  it('do not start for whoever has hung up meanwhile', async () => {
    const cluster = await startCluster()
    const { url } = cluster.node
    const { token } = await grant(cluster)
    const slow = `await new Promise((resolve) => setTimeout(resolve, 2000)); ${script}`
    // All of the lease's memory: as long as it is there, no other executor is.
    const all = { slots: 64, payloadBytes: 500_000, outputBytes: 500_000 }
    await expect(startExecutor(url, token, slow, { ...all, timeoutMs: 200 })).rejects.toThrow(
      expect.objectContaining({ code: 'ERR_RFAAS_UNAVAILABLE' }),
    )
    await expect
      .poll(() => startExecutor(url, token, script, all), { timeout: 20_000 })
      .toMatchObject({ runtime: 'node' })
  })

  it('do not start from packages that cannot be loaded, and leave no process behind', async () => {
    const cluster = await startCluster({ readyTimeoutMs: 1000 })
    const { token } = await grant(cluster)
    const { url } = cluster.node
    for (const [code, words] of [
      ['this is not JavaScript', 'cannot be loaded: SyntaxError'],
      ['export const number = 1', 'it exports no function'],
      ['throw new Error("at the top")', 'Error: at the top'],
      ['process.exit(7)', 'exited with code 7'],
      ['await new Promise(() => setInterval(() => {}, 100))', 'not ready within 1000 ms'],
    ] as const) {
      await expect(startExecutor(url, token, code), code).rejects.toMatchObject({
        message: expect.stringContaining(words) as unknown,
      })
    }
    expect(childrenOf(process.pid)).toEqual([])
  })

  it('are charged for the CPU time of workers that end by themselves', async () => {
    const cluster = await startCluster()
    const { lease, functions } = await deploy(cluster, 'f.mjs', script)
    await functions.invoke('burn', bytes()).catch(() => undefined)
    await lease.release()
    const client = await Client.connect(cluster.resourceManager.url)
    onCleanUp(() => client.close())
    const cpuMs = await eventually(async () => {
      const [usage] = await client.usage()
      return usage?.leases === 1 && usage.cpuMs
    }, 'the lease is in the ledger')
    // 600 ms by the process's own account, less what a kernel tick rounds away.
    expect(cpuMs).toBeGreaterThanOrEqual(580)
  })

  it('are gone when the manager closes, and when it is killed, even in an endless loop', async () => {
    const cluster = await startCluster()
    const { token } = await grant(cluster)
    await startExecutor(cluster.node.url, token, script)
    expect(childrenOf(process.pid)).toHaveLength(1)
    await cluster.node.close()
    expect(childrenOf(process.pid)).toEqual([])

    const main = join(import.meta.dirname, '../../dist/executor-manager/src/main.js')
    const args = ['--port', '0', '--name', 'victim', '--log-level', 'error']
    const folders = ['--data-dir', temporaryDirectory(), '--runtime-dir', temporaryDirectory()]
    const manager = spawn(
      process.execPath,
      [main, ...args, ...folders, '--resource-manager', cluster.resourceManager.url],
      { stdio: ['ignore', 'pipe', 'inherit'] },
    )
    onCleanUp(() => void manager.kill('SIGKILL'))
    await once(createInterface(manager.stdout), 'line')
    const { functions } = await deploy(cluster, 'f.mjs', script)
    const endless = functions.invoke('loop', bytes(), { timeoutMs: 60_000 }).catch(() => undefined)
    const [worker] = childrenOf(manager.pid as number)
    await new Promise((resolve) => setTimeout(resolve, 200)) // the loop has the thread
    expect(exists(worker as number)).toBe(true)
    manager.kill('SIGKILL')
    await eventually(() => !exists(worker as number), 'the worker has ended')
    await endless
  })
})
