// A connection that is cut while its worker lives: no call is lost, and none runs twice.
import { execFile, execFileSync } from 'node:child_process'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'

import type { Functions } from '../../lib/index.js'
import { LoneWorker } from './lone-worker.js'
import { bytes, marks, marksIn, nativePackage, nodePackage, pattern, sleeps } from './support.js'

const script = join(import.meta.dirname, 'cut.py')
const execute = promisify(execFile)

/** How many connections of the process were cut. */
function cut(pid: number | undefined): number {
  return Number(execFileSync('python3', [script, String(pid)]))
}

describe.each(['native', 'node'] as const)('a cut connection to a %s worker', (runtime) => {
  let worker: LoneWorker
  let functions: Functions
  beforeEach(async () => {
    worker = new LoneWorker(runtime, runtime === 'native' ? nativePackage() : nodePackage)
    functions = await worker.connect()
    expect(await functions.invoke('echo', bytes(1))).toEqual(bytes(1))
  })
  afterEach(() => worker.close())

  test('under a call that runs is back when the call has ended', async () => {
    const path = worker.file('ran')
    const running = functions.invoke('mark', marks(path, 500))
    await expect.poll(() => marksIn(path)).toBe(1)
    expect(cut(worker.process.pid)).toBe(1)
    expect(await running).toEqual(bytes())
    expect(marksIn(path)).toBe(1)
    expect(await functions.invoke('echo', bytes(2))).toEqual(bytes(2))
  })

  test('under calls that wait loses none and runs none twice', async () => {
    const paths = Array.from({ length: 12 }, (_, i) => worker.file(`ran-${i}`))
    const first = functions.invoke('mark', marks(worker.file('first'), 300))
    await expect.poll(() => marksIn(worker.file('first'))).toBe(1)
    const others = paths.map((path) => functions.invoke('mark', marks(path)))
    expect(cut(process.pid)).toBeGreaterThan(0)
    await Promise.all([first, ...others])
    expect(marksIn(worker.file('first'))).toBe(1)
    expect(paths.map(marksIn)).toEqual(paths.map(() => 1))
  })

  test('again and again brings every result to its own call', async () => {
    const inputs = Array.from({ length: 400 }, (_, i) => pattern(1 + (i % 500), i))
    const [records, results] = [functions.allocate(8 * 400), functions.allocate(8 * 400)]
    records.set(pattern(8 * 400))
    let cuts = 0
    const cutting = (async () => {
      for (; cuts < 10; ++cuts) {
        await execute('python3', [script, String(worker.process.pid)])
        await sleep(20)
      }
    })()
    while (cuts < 10) {
      expect(await functions.map('echo', inputs)).toEqual(inputs)
      results.fill(0)
      await functions.mapRecords('echo', records, results, { inputBytes: 8, outputBytes: 8 })
      expect(results).toEqual(records)
      await functions.invoke('sleep_ms', sleeps(20))
    }
    await cutting
  })

  test('is mended although its caller spins for another worker meanwhile', async () => {
    const other = new LoneWorker(runtime, runtime === 'native' ? nativePackage() : nodePackage)
    try {
      functions.destroy()
      const both = await worker.connect(other)
      const running = both.invoke('sleep_ms', sleeps(1000), { timeoutMs: 5000 })
      await execute('python3', [script, String(worker.process.pid)])
      await sleep(100) // the client knocks; its worker is busy
      both.invokeSync('sleep_ms', sleeps(1500), new Uint8Array(8))
      expect(await running).toEqual(bytes())
    } finally {
      other.close()
    }
  })

  test('under a spinning caller does not keep the result from it', async () => {
    const output = new Uint8Array(64)
    expect(cut(worker.process.pid)).toBe(1)
    expect(functions.invokeSync('echo', bytes(1, 2, 3), output)).toBe(3)
    expect([...output.subarray(0, 3)]).toEqual([1, 2, 3])
    expect(await functions.invoke('echo', bytes(4))).toEqual(bytes(4))
  })

  test('does not change that calls have deadlines', async () => {
    const running = functions.invoke('sleep_ms', sleeps(300), { timeoutMs: 10_000 })
    expect(await functions.invoke('echo', bytes(1)).catch(() => bytes(1))).toEqual(bytes(1))
    worker.process.kill('SIGSTOP')
    try {
      expect(cut(process.pid)).toBeGreaterThan(0)
      await expect(functions.invoke('echo', bytes(1), { timeoutMs: 200 })).rejects.toMatchObject({
        code: 'ERR_RFAAS_DEADLINE',
      })
    } finally {
      worker.process.kill('SIGCONT')
    }
    expect(await running).toEqual(bytes())
  })
})
