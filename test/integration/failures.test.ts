import { once } from 'node:events'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'

import type { Functions, Lease } from '../../lib/index.js'
import { workersOf } from '../faults/proc.js'
import {
  bytes,
  deployOptions,
  nativePackage,
  nodePackage,
  startCluster,
  type Cluster,
} from './support.js'

let cluster: Cluster
let lease: Lease

beforeAll(async () => {
  cluster = await startCluster()
  lease = await cluster.client.lease({ cores: 2, memory: '256MiB', duration: '5m' })
})
afterAll(() => cluster.stop())

/** Until a call succeeds on every worker again. */
async function recovered(functions: Functions): Promise<void> {
  const workers = new Set<number>()
  const deadline = Date.now() + 20_000
  while (workers.size < 2 && Date.now() < deadline) {
    // As many calls as there are slots go to all workers that are there.
    const answers = await functions.map('worker', new Array<Uint8Array>(16).fill(bytes()))
    for (const answer of answers) workers.add(answer[0] ?? -1)
  }
  expect(workers.size).toBe(2)
}

describe('a native function', () => {
  let functions: Functions
  beforeAll(async () => {
    functions = await lease.deploy(nativePackage(), deployOptions)
  })
  afterAll(() => functions.close())

  test.each([
    ['crash', 'killed by SIGSEGV'],
    ['abort', 'killed by SIGABRT'],
    ['exit', 'called exit'],
    ['vanish', 'exited with code 5'],
    ['overrun', 'killed by SIGSEGV'],
  ])('that takes its worker down (%s) ends its own call with the cause', async (name, cause) => {
    const ready = once(lease, 'workerReady')
    await expect(functions.invoke(name, bytes(1))).rejects.toMatchObject({
      code: 'ERR_RFAAS_WORKER_LOST',
      message: expect.stringContaining(cause) as string,
    })
    // The other worker answers meanwhile.
    expect(await functions.invoke('echo', bytes(2))).toEqual(bytes(2))
    await ready
    await recovered(functions)
  })

  test('that crashes under a spinning caller ends that call, too', async () => {
    const ready = once(lease, 'workerReady')
    expect(() => functions.invokeSync('crash', bytes(), new Uint8Array(8))).toThrow(
      'killed by SIGSEGV',
    )
    await ready
    await recovered(functions)
  })

  test('that crashes leaves the calls of the other worker alone', async () => {
    const ready = once(lease, 'workerReady')
    const sleeps = new Uint8Array(Uint32Array.of(200).buffer)
    // One long call on each worker; the crash waits behind one of them.
    const long = [functions.invoke('sleep_ms', sleeps), functions.invoke('sleep_ms', sleeps)]
    const crash = functions.invoke('crash', bytes())
    await expect(crash).rejects.toMatchObject({ code: 'ERR_RFAAS_WORKER_LOST' })
    expect(await Promise.all(long)).toEqual([bytes(), bytes()])
    await ready
    await recovered(functions)
  })

  test('that never returns is ended at its deadline', async () => {
    const ready = once(lease, 'workerReady')
    const call = functions.invoke('loop', bytes(), { timeoutMs: 100 })
    await expect(call).rejects.toMatchObject({
      code: 'ERR_RFAAS_DEADLINE',
      // The worker says so, or the client when the worker is late.
      message: expect.stringMatching(/deadline|no answer within/) as string,
    })
    await ready
    await recovered(functions)
  })

  test('whose worker is killed from outside ends with the signal', async () => {
    const ready = once(lease, 'workerReady')
    const [worker] = workersOf(process.pid)
    const lost = once(lease, 'workerLost')
    process.kill(worker!, 'SIGKILL')
    const [, cause] = (await lost) as [number, string]
    expect(cause).toContain('SIGKILL')
    await ready
    await recovered(functions)
  })
})

describe('a JavaScript function', () => {
  let functions: Functions
  beforeAll(async () => {
    functions = await lease.deploy(nodePackage, deployOptions)
  })
  afterAll(() => functions.close())

  // Of a deadline the worker tells, or the client does when the worker is late.
  test.each([
    ['exit', 'ERR_RFAAS_WORKER_LOST', /process\.exit\(4\)/],
    ['loop', 'ERR_RFAAS_DEADLINE', /deadline|no answer within 500 ms/],
    ['failsElsewhere', 'ERR_RFAAS_WORKER_LOST', /nobody catches this/],
    ['never', 'ERR_RFAAS_DEADLINE', /deadline|no answer within 500 ms/],
  ])('that takes its worker down (%s) ends its own call with %s', async (name, code, message) => {
    const ready = once(lease, 'workerReady')
    await expect(functions.invoke(name, bytes(), { timeoutMs: 500 })).rejects.toMatchObject({
      code,
      message: expect.stringMatching(message) as string,
    })
    expect(await functions.invoke('echo', bytes(1))).toEqual(bytes(1))
    await ready
    expect(await functions.invoke('echo', bytes(2))).toEqual(bytes(2))
  })
})
