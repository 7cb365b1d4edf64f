// Calls whose worker ends or stops: what is sent again, what is not, and what the caller is told.
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'

import { workersOf } from '../faults/proc.js'
import { nativeWorkers, slots } from './lone-worker.js'
import {
  bytes,
  deployOptions,
  marks,
  marksIn,
  nativePackage,
  nodePackage,
  sleeps,
  startCluster,
} from './support.js'

const failure = (call: Promise<unknown>): Promise<unknown> => call.catch((error: unknown) => error)

const start = nativeWorkers()

/** Until `mark` has begun with this path. */
async function running(path: string): Promise<void> {
  await expect.poll(() => marksIn(path)).toBe(1)
}

describe('a worker that crashes', () => {
  test('takes no call along that waits behind the one that crashed', async () => {
    const cluster = await startCluster()
    try {
      const lease = await cluster.client.lease({ cores: 1, memory: '256MiB' })
      const functions = await lease.deploy(nativePackage(), deployOptions)
      const crash = failure(functions.invoke('crash', bytes(), { idempotent: true }))
      const values = [1, 2, 3, 4, 5].map((value) => bytes(value))
      const behind = values.map((value) => functions.invoke('echo', value))
      // Its own fault: that is repeated for nobody.
      expect(await crash).toMatchObject({
        code: 'ERR_RFAAS_WORKER_LOST',
        message: expect.stringContaining('SIGSEGV') as string,
        mayHaveRun: true,
      })
      expect(await Promise.all(behind)).toEqual(values)
    } finally {
      await cluster.stop()
    }
  })

  test('under a spinning caller leaves the next call to another worker', async () => {
    const functions = await start().connect(start())
    const output = new Uint8Array(8)
    expect(() => functions.invokeSync('crash', bytes(), output)).toThrow('SIGSEGV')
    expect(functions.invokeSync('echo', bytes(1), output)).toBe(1)
    expect(() => functions.invokeSync('crash', bytes(), output)).toThrow('SIGSEGV')
    expect(() => functions.invokeSync('echo', bytes(1), output)).toThrow('did not run')
  })
})

describe('a worker that is killed', () => {
  test('may have run its call: the error says so', async () => {
    const worker = start()
    const functions = await worker.connect()
    const call = failure(functions.invoke('mark', marks(worker.file('ran'), 20_000)))
    await running(worker.file('ran'))
    worker.process.kill('SIGKILL')
    functions.workerLost(0, 'worker 0 was killed by SIGKILL', Infinity)
    expect(await call).toMatchObject({
      code: 'ERR_RFAAS_WORKER_LOST',
      message: 'mark: worker 0 was killed by SIGKILL; the call may or may not have run',
      mayHaveRun: true,
    })
  })

  test('of whom nobody tells anything is noticed all the same', async () => {
    const worker = start()
    const functions = await worker.connect()
    const call = failure(functions.invoke('mark', marks(worker.file('ran'), 20_000)))
    await running(worker.file('ran'))
    worker.process.kill('SIGKILL')
    expect(await call).toMatchObject({ code: 'ERR_RFAAS_WORKER_LOST', mayHaveRun: true })
  })

  test('leaves the calls behind the last that it started to the next worker', async () => {
    const worker = start()
    const functions = await worker.connect()
    const first = failure(functions.invoke('mark', marks(worker.file('first'), 20_000)))
    await running(worker.file('first'))
    const behind = functions.invoke('mark', marks(worker.file('behind')))
    worker.process.kill('SIGKILL')
    functions.workerLost(0, 'worker 0 was killed by SIGKILL', 1)
    expect(await first).toMatchObject({ mayHaveRun: true })
    const next = start()
    await next.ready
    await functions.workerReady(next.endpoint())
    expect(await behind).toEqual(bytes())
    expect(marksIn(worker.file('behind'))).toBe(1)
  })

  test.each([
    ['native', 'mark'],
    ['node', 'markAlone'],
  ] as const)(
    'of a lease takes only the call along that it had started (%s)',
    async (runtime, mark) => {
      const cluster = await startCluster({ executorManager: { confinement: 'off' } })
      try {
        const path = (name: string): string => join(cluster.dataDir, name)
        const lease = await cluster.client.lease({ cores: 1, memory: '256MiB' })
        const code = runtime === 'native' ? nativePackage() : nodePackage
        const functions = await lease.deploy(code, deployOptions)
        const first = failure(functions.invoke(mark, marks(path('first'), 20_000)))
        await running(path('first'))
        const others = Array.from({ length: 12 }, (_, i) => path(`behind-${i}`))
        const behind = others.map((other) => functions.invoke(mark, marks(other)))
        process.kill(workersOf(process.pid)[0]!, 'SIGKILL')
        expect(await first).toMatchObject({
          code: 'ERR_RFAAS_WORKER_LOST',
          message: expect.stringContaining('SIGKILL') as string,
          mayHaveRun: true,
        })
        await Promise.all(behind)
        expect(others.map(marksIn)).toEqual(others.map(() => 1))
      } finally {
        await cluster.stop()
      }
    },
  )

  test('has its idempotent call run by another worker, and no other', async () => {
    const worker = start()
    const other = start()
    const functions = await worker.connect(other)
    const path = worker.file('ran')
    const call = functions.invoke('mark', marks(path, 1000), { idempotent: true })
    await running(path)
    worker.process.kill('SIGKILL')
    functions.workerLost(0, 'worker 0 was killed by SIGKILL', Infinity)
    expect(await call).toEqual(bytes())
    expect(marksIn(path)).toBe(2)
  })

  test('is waited for by new calls, until their deadline', async () => {
    const worker = start()
    const functions = await worker.connect()
    worker.process.kill('SIGKILL')
    functions.workerLost(0, 'worker 0 was killed by SIGKILL', Infinity)
    const early = failure(functions.invoke('echo', bytes(1), { timeoutMs: 100 }))
    const late = functions.invoke('echo', bytes(2))
    expect(await early).toMatchObject({ code: 'ERR_RFAAS_DEADLINE', mayHaveRun: false })
    const next = start()
    await next.ready
    await functions.workerReady(next.endpoint())
    expect(await late).toEqual(bytes(2))
  })
})

describe('a worker that is stopped', () => {
  test('keeps no caller beyond its deadline, and gives its slots back when it goes on', async () => {
    const worker = start()
    const functions = await worker.connect()
    expect(await functions.invoke('echo', bytes(1))).toEqual(bytes(1))
    worker.process.kill('SIGSTOP')
    const calls = Array.from({ length: slots + 2 }, () =>
      failure(functions.invoke('echo', bytes(1), { timeoutMs: 200 })),
    )
    const errors = (await Promise.all(calls)) as { code: string; mayHaveRun: boolean }[]
    expect(errors.map(({ code }) => code)).toEqual(calls.map(() => 'ERR_RFAAS_DEADLINE'))
    expect(errors.filter(({ mayHaveRun }) => mayHaveRun)).toHaveLength(slots)
    const spinning = () =>
      functions.invokeSync('echo', bytes(1), new Uint8Array(8), { timeoutMs: 200 })
    expect(spinning).toThrow('every slot of the worker is in use')
    worker.process.kill('SIGCONT')
    const inputs = Array.from({ length: 3 * slots }, (_, i) => bytes(i))
    expect(await functions.map('echo', inputs)).toEqual(inputs)
  })

  test('does not hold up a spinning caller for longer', async () => {
    const worker = start()
    const functions = await worker.connect()
    worker.process.kill('SIGSTOP')
    const spinning = () =>
      functions.invokeSync('echo', bytes(1), new Uint8Array(8), { timeoutMs: 200 })
    expect(spinning).toThrow('may still have run')
    worker.process.kill('SIGCONT')
    expect(await functions.invoke('echo', bytes(1))).toEqual(bytes(1))
  })

  test('gets no calls that another worker can take', async () => {
    const worker = start()
    const functions = await worker.connect(start())
    worker.process.kill('SIGSTOP')
    const inputs = Array.from({ length: slots }, (_, i) => bytes(i))
    const first = inputs.map((input) => functions.invoke('echo', input, { timeoutMs: 200 }))
    expect((await Promise.allSettled(first)).map(({ status }) => status)).toContain('rejected')
    const more = Array.from({ length: 10 * slots }, (_, i) => bytes(i))
    expect(await functions.map('echo', more)).toEqual(more)
    worker.process.kill('SIGCONT')
  })

  test('is not waited for when nobody has connected to it yet', async () => {
    const worker = start()
    await worker.ready
    worker.process.kill('SIGSTOP')
    expect(await failure(worker.connect())).toMatchObject({
      code: 'ERR_RFAAS_UNAVAILABLE',
      message: expect.stringContaining('no answer within 10000 ms') as string,
    })
  })

  test('does not keep functions from being closed', async () => {
    const worker = start()
    const functions = await worker.connect()
    worker.process.kill('SIGSTOP')
    const call = failure(functions.invoke('sleep_ms', sleeps(1), { timeoutMs: 200 }))
    await functions.close()
    expect(await call).toMatchObject({ code: 'ERR_RFAAS_DEADLINE' })
    await expect(functions.invoke('echo', bytes())).rejects.toMatchObject({
      code: 'ERR_RFAAS_CLOSED',
    })
  })
})
