import { readFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'

import type { Functions, Lease } from '../../lib/index.js'
import {
  bytes,
  deployOptions,
  legacyPackage,
  nativePackage,
  nodePackage,
  pattern,
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

const code = (expected: string) => expect.objectContaining({ code: expected })

describe('a native package', () => {
  let functions: Functions
  beforeAll(async () => {
    functions = await lease.deploy(nativePackage(), deployOptions)
  })
  afterAll(() => functions.close())

  test('is called with bytes and answers with bytes', async () => {
    const input = pattern(1000)
    expect(await functions.invoke('echo', input)).toEqual(input)
    expect(functions.names).toContain('echo')
  })

  test.each([0, 1, 7, 8, 9, 63, 64, 65, 200, 220, 232, 233, 4096, 65535, 65536])(
    'takes and returns %i bytes, awaited and spinning, registered and not',
    async (length) => {
      const input = pattern(length, length + 1)
      expect(await functions.invoke('echo', input)).toEqual(input)
      const registered = functions.allocate(Math.max(1, length)).subarray(0, length)
      registered.set(input)
      const output = functions.allocate(Math.max(1, length))
      expect(functions.invokeSync('echo', registered, output)).toBe(length)
      expect(output.subarray(0, length)).toEqual(input)
      const copied = new Uint8Array(length)
      expect(functions.invokeSync('echo', input, copied)).toBe(length)
      expect(copied).toEqual(input)
    },
  )

  test('leaves the bytes behind a shorter result alone', () => {
    const output = functions.allocate(64).fill(0xaa)
    expect(functions.invokeSync('echo', bytes(1, 2, 3), output)).toBe(3)
    expect([...output.subarray(0, 5)]).toEqual([1, 2, 3, 0xaa, 0xaa])
  })

  test('answers more calls than a 16-bit counter can count', () => {
    const input = functions.allocate(8)
    const output = functions.allocate(8)
    const view = new DataView(input.buffer, input.byteOffset)
    const answer = new DataView(output.buffer, output.byteOffset)
    for (let i = 0; i < 70_000; ++i) {
      view.setUint32(0, i, true)
      functions.invokeSync('echo', input, output)
      if (answer.getUint32(0, true) !== i) expect.fail(`call ${i} got another call's answer`)
    }
  })

  test('keeps many awaited calls apart, more than there are slots', async () => {
    const inputs = Array.from({ length: 500 }, (_, i) => pattern(1 + (i % 300), i))
    expect(await functions.map('echo', inputs)).toEqual(inputs)
    const all = await Promise.all(inputs.map((input) => functions.invoke('echo', input)))
    expect(all).toEqual(inputs)
  })

  test('ends a map at the first input that is none, and goes on with other calls', async () => {
    const inputs = Array.from({ length: 300 }, (_, i) => bytes(i))
    const wrong = inputs.with(200, undefined as never)
    await expect(functions.map('echo', wrong)).rejects.toThrow('input is undefined')
    const failing = functions.map('echo', inputs.with(200, new Uint8Array(1 << 20)))
    await expect(failing).rejects.toMatchObject({ code: 'ERR_RFAAS_PAYLOAD_TOO_LARGE' })
    const [first, second] = await Promise.all([
      functions.map('echo', inputs, { concurrency: 7 }),
      functions.map('echo', inputs.toReversed()),
    ])
    expect(first).toEqual(inputs)
    expect(second).toEqual(inputs.toReversed())
  })

  test('mixes spinning and awaited calls', async () => {
    const output = functions.allocate(64)
    const awaited = Array.from({ length: 50 }, (_, i) => functions.invoke('echo', bytes(i)))
    for (let i = 0; i < 50; ++i) {
      expect(functions.invokeSync('echo', bytes(100 + i), output)).toBe(1)
      expect(output[0]).toBe(100 + i)
    }
    expect((await Promise.all(awaited)).map((result) => result[0])).toEqual(
      Array.from({ length: 50 }, (_, i) => i),
    )
  })

  test('leaves timers and sockets their turn, although each call is awaited and answered at once', async () => {
    let fired = false
    setTimeout(() => (fired = true), 1)
    while (!fired) await functions.invoke('echo', bytes(1))
    expect(fired).toBe(true)
  })

  test('spreads parallel calls over the workers of the lease', async () => {
    const sleeps = Uint8Array.from(new Uint8Array(Uint32Array.of(30).buffer))
    await Promise.all([0, 1].map(() => functions.invoke('sleep_ms', sleeps)))
    const answers = await functions.map(
      'worker',
      Array.from({ length: 40 }, () => bytes()),
    )
    const workers = new Set(answers.map((answer) => answer[0]))
    expect([...workers].sort()).toEqual([0, 1])
  })

  test('says what the function said when it fails', async () => {
    await expect(functions.invoke('fails', bytes())).rejects.toMatchObject({
      code: 'ERR_RFAAS_FUNCTION',
      message: 'fails: the matrix is singular',
    })
    await expect(functions.invoke('fails_silently', bytes())).rejects.toMatchObject({
      message: expect.stringContaining('without a message') as string,
    })
    const call = () => functions.invokeSync('fails', bytes(), new Uint8Array(8))
    expect(call).toThrow('the matrix is singular')
  })

  test('refuses an unknown function and lists the known ones', async () => {
    const unknown = functions.invoke('ech', bytes())
    await expect(unknown).rejects.toMatchObject({
      code: 'ERR_RFAAS_UNKNOWN_FUNCTION',
      message: expect.stringContaining('echo') as string,
    })
  })

  test('refuses a payload that is longer than a slot before it is sent', async () => {
    const input = new Uint8Array(65537)
    await expect(functions.invoke('echo', input)).rejects.toEqual(
      code('ERR_RFAAS_PAYLOAD_TOO_LARGE'),
    )
    expect(() => functions.invokeSync('echo', input, new Uint8Array(1))).toThrow('65536')
    const registered = functions.allocate(65537)
    expect(() => functions.invokeSync('echo', registered, new Uint8Array(1))).toThrow()
    expect(await functions.invoke('echo', bytes(1))).toEqual(bytes(1))
  })

  test('says by how much an output is too small and writes none of it', () => {
    const output = functions.allocate(16).fill(7)
    const call = () => functions.invokeSync('echo', pattern(100), output.subarray(0, 8))
    expect(call).toThrow(code('ERR_RFAAS_OUTPUT_TOO_SMALL') as unknown)
    expect([...output]).toEqual(new Array(16).fill(7))
    expect(() => functions.invokeSync('too_much', bytes(), output)).toThrow('17 bytes')
  })

  test('answers after both sides have gone to sleep', async () => {
    for (let i = 0; i < 5; ++i) {
      await new Promise((resolve) => setTimeout(resolve, 30))
      expect(await functions.invoke('echo', bytes(i))).toEqual(bytes(i))
    }
  })

  test.each([
    [{ timeoutMs: 0 }, 'timeoutMs is 0'],
    [{ timeoutMs: -1 }, 'timeoutMs is -1'],
    [{ timeoutMs: Number.NaN }, 'timeoutMs is NaN'],
    [{ timeoutMs: 1e9 }, 'timeoutMs is 1000000000'],
  ])('refuses options %j', async (options, message) => {
    await expect(functions.invoke('echo', bytes(), options)).rejects.toThrow(message)
    expect(() => functions.invokeSync('echo', bytes(), bytes(), options)).toThrow(message)
  })

  test('refuses what is not bytes, and sizes that are none', async () => {
    await expect(functions.invoke('echo', 'text' as never)).rejects.toThrow('input is "text"')
    expect(() => functions.allocate(0)).toThrow('bytes is 0')
    expect(() => functions.allocate(1.5)).toThrow('bytes is 1.5')
    await expect(functions.map('echo', [bytes()], { concurrency: 0 })).rejects.toThrow(
      'concurrency is 0',
    )
  })

  test('stops waiting when the caller aborts', async () => {
    const aborted = AbortSignal.abort(new Error('not now'))
    await expect(functions.invoke('echo', bytes(), { signal: aborted })).rejects.toThrow('not now')
    const controller = new AbortController()
    const sleeps = new Uint8Array(Uint32Array.of(100).buffer)
    const call = functions.invoke('sleep_ms', sleeps, { signal: controller.signal })
    controller.abort()
    await expect(call).rejects.toEqual(code('ERR_RFAAS_ABORTED'))
    expect(await functions.invoke('echo', bytes(5))).toEqual(bytes(5))
  })
})

describe('a node package', () => {
  let functions: Functions
  beforeAll(async () => {
    functions = await lease.deploy(nodePackage, deployOptions)
  })
  afterAll(() => functions.close())

  test('returns a length, bytes, or a promise of either', async () => {
    const output = functions.allocate(64)
    expect(functions.invokeSync('echo', bytes(1, 2, 3), output)).toBe(3)
    expect([...output.subarray(0, 3)]).toEqual([1, 2, 3])
    expect(await functions.invoke('reversed', bytes(1, 2, 3))).toEqual(bytes(3, 2, 1))
    expect(await functions.invoke('later', bytes(4, 5))).toEqual(bytes(4, 5))
  })

  test('runs asynchronous functions side by side', async () => {
    const inputs = Array.from({ length: 16 }, (_, i) => bytes(i))
    expect(await functions.map('later', inputs)).toEqual(inputs)
    const answers = await functions.map('together', inputs)
    expect(Math.max(...answers.map(([count]) => count ?? 0))).toBeGreaterThan(1)
  })

  test('gives each call an id of its own', async () => {
    const ids = await functions.map('requestId', [bytes(), bytes(), bytes()], { concurrency: 1 })
    expect(new Set(ids.map((id) => id.toString())).size).toBeGreaterThan(1)
  })

  test.each([
    ['throws', 'ERR_RFAAS_FUNCTION', 'RangeError: the matrix is singular'],
    ['rejects', 'ERR_RFAAS_FUNCTION', 'Error: the file is gone'],
    ['wrongType', 'ERR_RFAAS_FUNCTION', 'the function returned string'],
    ['tooMuch', 'ERR_RFAAS_OUTPUT_TOO_SMALL', 'the result has 65537 bytes'],
  ])('ends a call to %s with %s', async (name, errorCode, message) => {
    await expect(functions.invoke(name, bytes(1))).rejects.toMatchObject({
      code: errorCode,
      message: expect.stringContaining(message) as string,
    })
    expect(await functions.invoke('echo', bytes(1))).toEqual(bytes(1))
  })

  test('aborts the signal of an asynchronous function at its deadline', async () => {
    const call = functions.invoke('waitsForAbort', bytes(), { timeoutMs: 50 })
    await expect(call).rejects.toEqual(code('ERR_RFAAS_DEADLINE'))
    expect(await functions.invoke('echo', bytes(1))).toEqual(bytes(1))
  })
})

describe('a library built for the original rFaaS', () => {
  test('is called unchanged', async () => {
    await using functions = await lease.deploy(legacyPackage(), deployOptions)
    expect(functions.names).toEqual(['empty', 'sum'])
    const numbers = new Uint8Array(Int32Array.of(1, 2, 39).buffer)
    const result = await functions.invoke('sum', numbers)
    expect(new DataView(result.buffer).getInt32(0, true)).toBe(42)
  })
})

describe('deploy', () => {
  test('refuses a package that is none, and says why', async () => {
    await expect(lease.deploy('missing.so')).rejects.toThrow('cannot be read')
    await expect(lease.deploy('package.txt')).rejects.toThrow('.so (native) or .mjs (node)')
    const unloadable = nativePackage().replace(/\.so$/, '-broken.so')
    const { writeFileSync, rmSync } = await import('node:fs')
    writeFileSync(unloadable, readFileSync(nativePackage()).subarray(0, 500))
    await expect(lease.deploy(unloadable, deployOptions)).rejects.toThrow('cannot be loaded')
    rmSync(unloadable)
  })

  test.each([
    [{ slots: 0 }, 'slots is 0'],
    [{ slots: 1.5 }, 'slots is 1.5'],
    [{ payload: 'big' }, 'payload is "big"'],
    [{ output: -1 }, 'output is -1'],
    [{ hotTimeout: 'soon' }, 'hotTimeout is "soon"'],
    [{ provider: 'tcp' as never }, 'provider is "tcp"'],
    [{ slots: 1000, payload: '10MiB' }, 'memory'],
  ])('refuses %j', async (options, message) => {
    await expect(lease.deploy(nodePackage, { ...deployOptions, ...options })).rejects.toThrow(
      message,
    )
  })
})
