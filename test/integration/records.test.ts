// mapRecords: inputs and outputs of a fixed size, side by side in registered memory.
import { afterAll, beforeAll, describe, expect, test } from 'vitest'

import type { Functions, Lease } from '../../lib/index.js'
import { nativeWorkers, slots, type LoneWorker } from './lone-worker.js'
import {
  bytes,
  deployOptions,
  marks,
  marksIn,
  nativePackage,
  nodePackage,
  pattern,
  sleeps,
  startCluster,
  type Cluster,
} from './support.js'

const failure = (call: Promise<unknown>): Promise<unknown> => call.catch((error: unknown) => error)

/** Registered memory with these bytes. */
function registered(functions: Functions, content: Uint8Array): Uint8Array {
  const memory = functions.allocate(content.byteLength)
  memory.set(content)
  return memory
}

/** Inputs of one length, side by side. */
const inRow = (functions: Functions, inputs: readonly Uint8Array[]): Uint8Array =>
  registered(functions, Buffer.concat(inputs))

describe('records', () => {
  let cluster: Cluster
  let lease: Lease
  let native: Functions
  let node: Functions
  beforeAll(async () => {
    cluster = await startCluster()
    lease = await cluster.client.lease({ cores: 2, memory: '256MiB', duration: '5m' })
    native = await lease.deploy(nativePackage(), deployOptions)
    node = await lease.deploy(nodePackage, deployOptions)
  })
  afterAll(() => cluster.stop())

  test.each([1, 8, 24, 220, 232, 1000])(
    'of %i bytes come back in their places, more of them than there are slots',
    async (size) => {
      for (const functions of [native, node]) {
        const inputs = registered(functions, pattern(500 * size, size))
        const outputs = functions.allocate(500 * size)
        const lengths = await functions.mapRecords('echo', inputs, outputs, {
          inputBytes: size,
          outputBytes: size,
        })
        expect(outputs).toEqual(inputs)
        expect(lengths).toEqual(new Uint32Array(500).fill(size))
      }
    },
  )

  test('may be some of those that a larger piece of memory holds', async () => {
    const inputs = registered(native, pattern(100 * 8))
    const outputs = native.allocate(100 * 16).fill(0xaa)
    const some = inputs.subarray(20 * 8, 50 * 8)
    const options = { inputBytes: 8, outputBytes: 16, concurrency: 3 }
    await native.mapRecords('echo', some, outputs.subarray(20 * 16, 50 * 16), options)
    for (let i = 0; i < 100; ++i) {
      const given = i >= 20 && i < 50
      const result = given ? inputs.subarray(8 * i, 8 * i + 8) : new Uint8Array(8).fill(0xaa)
      expect(outputs.subarray(16 * i, 16 * i + 8)).toEqual(result)
    }
  })

  test('leaves what is behind a shorter result alone and says how long each one is', async () => {
    const outputs = native.allocate(20 * 8).fill(0xaa)
    const inputs = native.allocate(20)
    const options = { inputBytes: 1, outputBytes: 8 }
    const lengths = await native.mapRecords('worker', inputs, outputs, options)
    expect(lengths).toEqual(new Uint32Array(20).fill(4))
    const workers = new Set<number>()
    for (let i = 0; i < 20; ++i) {
      workers.add(outputs[8 * i]!)
      expect([...outputs.subarray(8 * i + 4, 8 * i + 8)]).toEqual([0xaa, 0xaa, 0xaa, 0xaa])
    }
    expect([...workers].sort()).toEqual([0, 1])
    const nothing = await native.mapRecords('nothing', inputs, outputs, options)
    expect(nothing).toEqual(new Uint32Array(20))
  })

  test('are none where there is no input', async () => {
    const none = new Uint8Array(0)
    const lengths = await native.mapRecords('echo', none, none, { inputBytes: 8, outputBytes: 8 })
    expect(lengths).toEqual(new Uint32Array(0))
  })

  test('leave other calls their turn', async () => {
    const inputs = native.allocate(100_000 * 8)
    const outputs = native.allocate(100_000 * 8)
    let done = false
    const all = native
      .mapRecords('echo', inputs, outputs, { inputBytes: 8, outputBytes: 8 })
      .then(() => (done = true))
    expect(await native.invoke('echo', bytes(1))).toEqual(bytes(1))
    expect(native.invokeSync('echo', bytes(2), new Uint8Array(8))).toBe(1)
    expect(done).toBe(false)
    await all
  })

  test('leave a synchronous call its turn while they hold all slots', async () => {
    const count = 200_000
    const inputs = native.allocate(count * 8).fill(1)
    const outputs = native.allocate(count * 8)
    const options = { inputBytes: 8, outputBytes: 8 }
    const all = native.mapRecords('echo', inputs, outputs, options)
    await new Promise(setImmediate)
    expect(native.invokeSync('echo', bytes(2), new Uint8Array(8))).toBe(1)
    expect(outputs.at(-1)).toBe(0)
    await all
    expect(outputs.at(-1)).toBe(1)
  })

  test('have a time of their own each, however many follow each other', async () => {
    const sleepy = inRow(
      native,
      Array.from({ length: 10 }, () => sleeps(100)),
    )
    const options = { inputBytes: 4, outputBytes: 1, concurrency: 1, timeoutMs: 900 }
    const lengths = await native.mapRecords('sleep_ms', sleepy, native.allocate(10), options)
    expect(lengths.length).toBe(10)
  })

  test.each([
    [{ inputBytes: 0, outputBytes: 8 }, 'inputBytes is 0'],
    [{ inputBytes: 8, outputBytes: 1.5 }, 'outputBytes is 1.5'],
    [{ inputBytes: 8 }, 'outputBytes is undefined'],
    [{ inputBytes: 7, outputBytes: 8 }, 'inputs has 64 bytes, must be whole records of 7 bytes'],
    [{ inputBytes: 8, outputBytes: 5 }, 'outputs has 64 bytes, must be whole records of 5 bytes'],
    [{ inputBytes: 8, outputBytes: 4 }, 'outputs has 64 bytes, must be 8 records of 4 bytes'],
    [{ inputBytes: 8, outputBytes: 8, concurrency: 0 }, 'concurrency is 0'],
    [{ inputBytes: 8, outputBytes: 8, timeoutMs: -1 }, 'timeoutMs is -1'],
  ])('cannot be %j', async (options, message) => {
    const [inputs, outputs] = [native.allocate(64), native.allocate(64)]
    await expect(
      native.mapRecords('echo', inputs, outputs, options as { inputBytes: 8; outputBytes: 8 }),
    ).rejects.toThrow(message)
  })

  test('cannot lie in memory that is not registered, nor on top of each other', async () => {
    const options = { inputBytes: 8, outputBytes: 8 }
    const memory = native.allocate(64)
    const foreign = node.allocate(64)
    for (const other of [new Uint8Array(64), foreign]) {
      await expect(native.mapRecords('echo', other, memory, options)).rejects.toThrow(
        'inputs is not memory of these functions: take it from allocate()',
      )
      await expect(native.mapRecords('echo', memory, other, options)).rejects.toThrow(
        'outputs is not memory of these functions',
      )
    }
    const [begin, end] = [memory.subarray(0, 40), memory.subarray(24, 64)]
    await expect(native.mapRecords('echo', begin, end, options)).rejects.toThrow('overlap')
    const text = 'text' as unknown as Uint8Array
    await expect(native.mapRecords('echo', text, memory, options)).rejects.toThrow(
      'inputs is "text"',
    )
  })

  test('cannot be longer than a slot', async () => {
    const [inputs, outputs] = [native.allocate(65537), native.allocate(8)]
    const options = { inputBytes: 65537, outputBytes: 8 }
    await expect(native.mapRecords('echo', inputs, outputs, options)).rejects.toMatchObject({
      code: 'ERR_RFAAS_PAYLOAD_TOO_LARGE',
    })
  })

  test('have results that fit, or none', async () => {
    const inputs = registered(native, pattern(64))
    const outputs = native.allocate(32).fill(7)
    const options = { inputBytes: 8, outputBytes: 4 }
    await expect(native.mapRecords('echo', inputs, outputs, options)).rejects.toMatchObject({
      code: 'ERR_RFAAS_OUTPUT_TOO_SMALL',
    })
    expect(outputs).toEqual(new Uint8Array(32).fill(7))
  })

  test('are written by nobody any more when a failure is told', async () => {
    const inputs = registered(node, bytes(0xff, 0, 0, 0, 1, 2, 3, 4))
    const outputs = node.allocate(8)
    const options = { inputBytes: 4, outputBytes: 4, concurrency: 2 }
    const call = node.mapRecords('failsOrEchoesLater', inputs, outputs, options)
    await expect(call).rejects.toThrow('no such record')
    expect([...outputs]).toEqual([0, 0, 0, 0, 1, 2, 3, 4])
  })

  test('are not waited for when their time is over or the caller aborts', async () => {
    const sleepy = inRow(native, [sleeps(500), sleeps(500), sleeps(500)])
    const outputs = native.allocate(3)
    const options = { inputBytes: 4, outputBytes: 1 }
    const late = native.mapRecords('sleep_ms', sleepy, outputs, { ...options, timeoutMs: 50 })
    await expect(late).rejects.toMatchObject({ code: 'ERR_RFAAS_DEADLINE' })
    const controller = new AbortController()
    const { signal } = controller
    const aborted = native.mapRecords('sleep_ms', sleepy, outputs, { ...options, signal })
    controller.abort(new Error('not now'))
    await expect(aborted).rejects.toMatchObject({ code: 'ERR_RFAAS_ABORTED' })
    await expect(
      native.mapRecords('sleep_ms', sleepy, outputs, { ...options, signal }),
    ).rejects.toThrow('not now')
    expect(await native.invoke('echo', bytes(5))).toEqual(bytes(5))
  })

  test('are all done before functions are closed, and none afterwards', async () => {
    const functions = await lease.deploy(nativePackage(), deployOptions)
    const inputs = registered(functions, pattern(1000 * 8))
    const outputs = functions.allocate(1000 * 8)
    const options = { inputBytes: 8, outputBytes: 8 }
    const call = functions.mapRecords('echo', inputs, outputs, options)
    await functions.close()
    expect(await call).toEqual(new Uint32Array(1000).fill(8))
    await expect(functions.mapRecords('echo', inputs, outputs, options)).rejects.toMatchObject({
      code: 'ERR_RFAAS_CLOSED',
    })
  })
})

describe('of many calls', () => {
  const start = nativeWorkers()

  /** Marks, the first of which fails: `mark` cannot write there. */
  function failingMarks(worker: LoneWorker, count: number): { paths: string[]; all: Uint8Array[] } {
    const paths = Array.from({ length: count }, (_, i) => worker.file(`mark-${10 + i}`))
    const nowhere = '/nowhere'.padEnd(paths[0]!.length, '/x')
    return { paths, all: [nowhere, ...paths.slice(1)].map((path) => marks(path)) }
  }

  test.each(['map', 'mapRecords'] as const)(
    'of a %s none is sent behind a failure, neither in its slot nor from the queue',
    async (form) => {
      const worker = start()
      const functions = await worker.connect()
      const { paths, all } = failingMarks(worker, 4 * slots)
      const options = { concurrency: 2 * slots }
      const inputs = inRow(functions, all)
      const call =
        form === 'map'
          ? functions.map('mark', all, options)
          : functions.mapRecords('mark', inputs, functions.allocate(all.length), {
              ...options,
              inputBytes: all[0]!.byteLength,
              outputBytes: 1,
            })
      await expect(call).rejects.toMatchObject({ code: 'ERR_RFAAS_FUNCTION' })
      expect(await functions.invoke('echo', bytes(1))).toEqual(bytes(1))
      await functions.close()
      expect(paths.slice(slots).map(marksIn)).toEqual(paths.slice(slots).map(() => 0))
    },
  )

  test('idempotent ones of a worker that is killed are run by another, other ones are not', async () => {
    const path = (worker: LoneWorker, i: number): string => worker.file(`mark-${10 + i}`)
    for (const idempotent of [true, false]) {
      const worker = start()
      const functions = await worker.connect(start())
      const all = Array.from({ length: 2 * slots }, (_, i) => marks(path(worker, i), 300))
      const call = failure(
        functions.mapRecords('mark', inRow(functions, all), functions.allocate(all.length), {
          inputBytes: all[0]!.byteLength,
          outputBytes: 1,
          idempotent,
        }),
      )
      await expect.poll(() => marksIn(path(worker, 0))).toBe(1)
      worker.process.kill('SIGKILL')
      functions.workerLost(0, 'worker 0 was killed by SIGKILL', Infinity)
      expect(await call).toEqual(
        idempotent
          ? new Uint32Array(all.length)
          : expect.objectContaining({ code: 'ERR_RFAAS_WORKER_LOST', mayHaveRun: true }),
      )
    }
  })

  test('none outlives its functions', async () => {
    const functions = await start().connect()
    const inputs = inRow(functions, [sleeps(20_000), sleeps(20_000)])
    const call = functions.mapRecords('sleep_ms', inputs, functions.allocate(2), {
      inputBytes: 4,
      outputBytes: 1,
    })
    functions.destroy()
    await expect(call).rejects.toMatchObject({ code: 'ERR_RFAAS_CLOSED' })
  })
})
