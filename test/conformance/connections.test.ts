import { execFile } from 'node:child_process'
import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'

import type { ConnectionRequest, Device, Listener, RfaasError } from '../../lib/fabric/index.js'
import {
  conformance,
  deadlineMs,
  failure,
  succeed,
  take,
  thrown,
  within,
  type TestFabric,
} from './support.js'

const timeoutMs = deadlineMs
const execute = promisify(execFile)

/** The listener still takes a connection and moves a message over it. */
async function expectWorking(device: Device, listener: Listener): Promise<void> {
  const completionQueue = device.createCompletionQueue(256)
  const [near, far] = await Promise.all([
    device.connect(listener.address, { completionQueue, timeoutMs }),
    (await listener.next({ timeoutMs })).accept({ completionQueue, timeoutMs }),
  ])
  far.postReceive({ id: 2 })
  near.send({ id: 1 })
  const ended = await take(completionQueue, 2)
  expect(ended.map(({ status }) => status)).toEqual(['success', 'success'])
  near.close()
  far.close()
  completionQueue.close()
}

/** One side of a connection that the other has not answered. */
async function pending(fabric: TestFabric) {
  const device = fabric.open()
  const listener = fabric.listen(device)
  const completionQueue = device.createCompletionQueue(256)
  const connecting = failure(device.connect(listener.address, { completionQueue }))
  const request = await listener.next({ timeoutMs })
  return { device, listener, completionQueue, connecting, request }
}

conformance('connections', (fabric) => {
  test('private data goes both ways, up to what the device says', async () => {
    const device = fabric.open()
    const { maxRequestPrivateData, maxReplyPrivateData } = device.info
    expect(maxRequestPrivateData).toBeGreaterThanOrEqual(40)
    expect(maxReplyPrivateData).toBeGreaterThanOrEqual(72)
    const hello = new Uint8Array(maxRequestPrivateData).map((_, i) => 255 - i)
    const welcome = new Uint8Array(maxReplyPrivateData).map((_, i) => i)
    const { client, server } = await linkWith(hello, welcome)
    expect(client.privateData.subarray(0, welcome.length)).toEqual(welcome)
    expect(server.privateData).toHaveLength(0)

    async function linkWith(request: Uint8Array, reply: Uint8Array) {
      const listener = fabric.listen(device)
      const completionQueue = device.createCompletionQueue(512)
      const [client, server] = await Promise.all([
        device.connect(listener.address, { completionQueue, privateData: request }),
        (async () => {
          const asked = await listener.next({ timeoutMs })
          expect(asked.privateData.subarray(0, request.length)).toEqual(request)
          expect(asked.peer).not.toBe('')
          return await asked.accept({ completionQueue, privateData: reply })
        })(),
      ])
      return { client, server }
    }
  })

  test('private data that is one byte too long is refused before anything is sent', async () => {
    const { device, listener, completionQueue, connecting, request } = await pending(fabric)
    const tooLong = (max: number) => ({ completionQueue, privateData: new Uint8Array(max + 1) })
    const { maxRequestPrivateData, maxReplyPrivateData } = device.info
    const field = 'privateData.byteLength'
    expect(
      await failure(device.connect(listener.address, tooLong(maxRequestPrivateData))),
    ).toMatchObject({ code: 'ERR_RFAAS_INVALID_ARGUMENT', field })
    expect(await failure(request.accept(tooLong(maxReplyPrivateData)))).toMatchObject({ field })
    expect(thrown(() => request.reject(tooLong(maxReplyPrivateData)))).toMatchObject({ field })
    request.reject()
    expect((await connecting).errno).toBe(-111)
  })

  test('a rejection tells the peer why', async () => {
    const { request, connecting, device, listener } = await pending(fabric)
    request.reject({ privateData: new Uint8Array([4, 2]) })
    const error = await connecting
    expect(error).toMatchObject({ code: 'ERR_RFAAS_FABRIC', syscall: 'connect', errno: -111 })
    expect((error.value as Uint8Array).subarray(0, 2)).toEqual(new Uint8Array([4, 2]))
    request.reject()
    await expectWorking(device, listener)
  })

  test('an answered request cannot be accepted', async () => {
    const { request, connecting, completionQueue } = await pending(fabric)
    request.reject()
    expect((await failure(request.accept({ completionQueue }))).code).toBe('ERR_RFAAS_CLOSED')
    await connecting
  })

  test('receives that prepare() posts are there before the peer’s first message', async () => {
    const { client } = await fabric.link({
      client: { rnrRetry: 0 },
      server: { prepare: (pair) => pair.postReceive({ id: 8 }), privateData: new Uint8Array(1) },
    })
    client.pair.send({ id: 1 })
    expect(await succeed(client.queue)).toMatchObject({ id: 1 })
  })

  test('a connection to where nobody listens fails', async () => {
    const device = fabric.open()
    const listener = fabric.listen(device)
    const { address } = listener
    const completionQueue = device.createCompletionQueue(256)
    listener.close()
    const error = await failure(device.connect(address, { completionQueue, timeoutMs }))
    expect(error.code).toBe('ERR_RFAAS_FABRIC')
    expect(error.syscall).toBe('connect')
  })

  test('a connection to a listener that was killed fails', async () => {
    const peer = await fabric.peer('silent')
    peer.child.kill('SIGKILL')
    await peer.exited
    const device = fabric.open()
    const completionQueue = device.createCompletionQueue(256)
    const error = await failure(device.connect(peer.first, { completionQueue, timeoutMs }))
    expect(error).toMatchObject({ code: 'ERR_RFAAS_FABRIC', syscall: 'connect' })
  })

  test('an address that is none is refused with the address in the message', async () => {
    const device = fabric.open()
    const completionQueue = device.createCompletionQueue(256)
    const nonsense = fabric.isShm ? `/${'x'.repeat(200)}` : 'no address at all'
    const connected = await failure(device.connect(nonsense, { completionQueue, timeoutMs }))
    expect(connected.message).toContain(nonsense)
    expect(thrown(() => device.listen(nonsense)).message).toContain(nonsense)
    expect((await failure(device.connect('', { completionQueue }))).field).toBe('address')
  })

  test('an address that is in use is refused', () => {
    const device = fabric.open()
    const listener = fabric.listen(device)
    const error = thrown(() => device.listen(listener.address))
    expect(error).toMatchObject({ code: 'ERR_RFAAS_FABRIC', errno: -98, syscall: 'listen' })
  })

  test('a listener that never answers is given up after timeoutMs', async () => {
    const device = fabric.open()
    const listener = fabric.listen(device)
    const completionQueue = device.createCompletionQueue(256)
    const options = { completionQueue, timeoutMs: 50 }
    const error = await failure(device.connect(listener.address, options))
    expect(error.code).toBe('ERR_RFAAS_DEADLINE')
    const signal = AbortSignal.timeout(50)
    const aborted = await failure(device.connect(listener.address, { completionQueue, signal }))
    expect(aborted.code).toBe('ERR_RFAAS_ABORTED')
  })

  test('iterating a listener ends when it is closed', async () => {
    const device = fabric.open()
    const listener = fabric.listen(device)
    const completionQueue = device.createCompletionQueue(1024)
    const peers: string[] = []
    const serving = (async () => {
      for await (const request of listener) {
        peers.push(request.peer)
        await request.accept({ completionQueue })
      }
    })()
    for (let i = 0; i < 3; i++) await device.connect(listener.address, { completionQueue })
    listener.close()
    await within(serving, 'the end of the iteration')
    expect(peers).toHaveLength(3)
    expect((await failure(listener.next())).code).toBe('ERR_RFAAS_CLOSED')
  })

  test('both ends hear of a close, whichever side it comes from', async () => {
    for (const side of ['client', 'server'] as const) {
      const link = await fabric.link()
      const other = side === 'client' ? link.server : link.client
      link[side].pair.close()
      await within(other.pair.disconnected, 'disconnected')
      await within(link[side].pair.disconnected, 'disconnected')
      expect(link[side].pair.state).toBe('closed')
      expect(other.pair.state).toBe('error')
      expect(thrown(() => link[side].pair.send({})).code).toBe('ERR_RFAAS_CLOSED')
    }
  })

  test('a connecting queue pair closes with its queue or its device', async () => {
    for (const closeBy of ['queue', 'device'] as const) {
      const far = fabric.open()
      const near = fabric.open()
      const listener = fabric.listen(far)
      const completionQueue = near.createCompletionQueue(256)
      const connecting = failure(near.connect(listener.address, { completionQueue }))
      await listener.next({ timeoutMs })
      if (closeBy === 'queue') completionQueue.close()
      else near.close()
      expect((await connecting).code).toBe('ERR_RFAAS_CLOSED')
    }
  })

  test('a listener that closes rejects what it has not answered', async () => {
    const { listener, connecting, request, completionQueue } = await pending(fabric)
    listener.close()
    expect((await connecting).code).toBe('ERR_RFAAS_FABRIC')
    expect((await failure(request.accept({ completionQueue }))).code).toBe('ERR_RFAAS_CLOSED')
  })

  test('accepting a peer that has gone does not stand for long', async () => {
    const far = fabric.open()
    const near = fabric.open()
    const listener = fabric.listen(far)
    const options = { completionQueue: near.createCompletionQueue(256) }
    const connecting = failure(near.connect(listener.address, options))
    const request = await listener.next({ timeoutMs })
    near.close()
    await connecting
    const completionQueue = far.createCompletionQueue(256)
    // The acceptor may learn it at once or after it thought itself connected.
    await within(
      request.accept({ completionQueue, timeoutMs }).then(
        async (pair) => {
          await pair.disconnected
        },
        (error: unknown) => {
          expect(error).toMatchObject({ name: 'RfaasError' })
        },
      ),
      'the end of the connection',
    )
    await expectWorking(far, listener)
  })

  test('closing works twice, in every order, with work posted', async () => {
    type Closing = 'pair' | 'queue' | 'region' | 'device'
    const orders: Closing[][] = [
      ['pair', 'queue', 'region', 'device'],
      ['device', 'region', 'queue', 'pair'],
      ['queue', 'pair', 'device', 'region'],
      ['region', 'device', 'pair', 'queue'],
    ]
    for (const order of orders) {
      const { client, server } = await fabric.link()
      for (let i = 0; i < 8; i++) {
        server.pair.postReceive({ local: server.region.bytes(i * 64, 64) })
        client.pair.postReceive({ local: client.region.bytes(i * 64, 64) })
        // More sends than the peer has receives, so some are waiting.
        client.pair.send({ local: client.region.bytes(0, 64) })
        client.pair.send({ local: client.region.bytes(0, 64) })
      }
      for (const what of [...order, ...order]) {
        client[what].close()
        server[what].close()
      }
      expect([client.pair.state, server.pair.state]).toEqual(['closed', 'closed'])
      expect(client.region.buffer.byteLength).toBe(0)
      await within(client.pair.disconnected, 'disconnected')
    }
  })

  test('a queue pair in error closes, and its device works on', async () => {
    const { client, server } = await fabric.link()
    client.pair.disconnect()
    await server.pair.disconnected
    server.pair.disconnect()
    server.pair.close()
    client.pair.close()
    await expectWorking(client.device, fabric.listen(client.device))
  })

  test('a region that is closed in flight keeps its pages until the completion', async () => {
    const { client, server } = await fabric.link()
    const region = fabric.allocate(server.device, 4096)
    const view = region.bytes(0, 64)
    server.pair.postReceive({ id: 1, local: view })
    region.close()
    expect(view.byteLength).toBe(0)
    expect(region.closed).toBe(true)
    client.pair.send({ id: 2, local: client.region.bytes(0, 64) })
    expect(await succeed(server.queue)).toMatchObject({ id: 1, byteLength: 64 })
    expect(await succeed(client.queue)).toMatchObject({ id: 2 })
    // Its index is free again, for a region that is not mistaken for it.
    const next = fabric.allocate(server.device, 4096)
    server.pair.postReceive({ id: 3, local: next.bytes(0, 64) })
    client.region.bytes(0, 4).set([1, 2, 3, 4])
    client.pair.send({ id: 4, local: client.region.bytes(0, 4) })
    await succeed(server.queue)
    expect([...next.bytes(0, 4)]).toEqual([1, 2, 3, 4])
  })

  test('hundreds of connections, one after another, leave no descriptor behind', async () => {
    const device = fabric.open()
    const listener = fabric.listen(device)
    const descriptors = () => readdirSync('/proc/self/fd').length
    await expectWorking(device, listener)
    await new Promise((resolve) => setImmediate(resolve))
    const before = descriptors()
    for (let i = 0; i < 300; i++) await expectWorking(device, listener)
    await new Promise((resolve) => setImmediate(resolve))
    expect(descriptors()).toBeLessThanOrEqual(before + 4)
  })

  test('many requests can be pending at once, and each is answered by itself', async () => {
    const device = fabric.open()
    const listener = fabric.listen(device)
    const completionQueue = device.createCompletionQueue(16 * 128)
    const connecting = Array.from({ length: 8 }, async (_, i) => {
      const options = { completionQueue, privateData: new Uint8Array([i]) }
      return await device.connect(listener.address, options).then(
        (pair) => pair.privateData[0],
        (error: unknown) => (error as RfaasError).errno,
      )
    })
    const requests: ConnectionRequest[] = []
    for (let i = 0; i < 8; i++) requests.push(await listener.next({ timeoutMs }))
    for (const request of requests.reverse()) {
      const [i = 0] = request.privateData
      if (i % 2 === 0) request.reject()
      else await request.accept({ completionQueue, privateData: new Uint8Array([i]) })
    }
    expect(await Promise.all(connecting)).toEqual([-111, 1, -111, 3, -111, 5, -111, 7])
  })

  test('options that make no sense name the option, the value and what is allowed', async () => {
    const device = fabric.open()
    const completionQueue = device.createCompletionQueue(256)
    const { maxSendDepth, maxCompletionDepth } = device.info
    const connect = async (options: object) =>
      await failure(device.connect('nowhere', { completionQueue, ...options }))
    expect(await connect({ sendDepth: 0 })).toMatchObject({ field: 'sendDepth', value: 0 })
    expect((await connect({ sendDepth: maxSendDepth + 1 })).allowed).toContain(`${maxSendDepth}`)
    expect(await connect({ rnrRetry: 8 })).toMatchObject({ field: 'rnrRetry', value: 8 })
    expect((await connect({ timeoutMs: -1 })).field).toBe('timeoutMs')
    const foreign = fabric.open().createCompletionQueue(256)
    expect((await connect({ completionQueue: foreign })).field).toBe('sendQueue')
    expect(thrown(() => device.createCompletionQueue(maxCompletionDepth + 1)).field).toBe('depth')
    expect(thrown(() => device.allocate(0)).field).toBe('bytes')
    expect(thrown(() => device.allocate(1.5)).value).toBe(1.5)
  })

  test('peers that speak nonsense are dropped, and the listener works on', async () => {
    const device = fabric.open()
    const listener = fabric.listen(device)
    if (fabric.isShm) {
      const script = fileURLToPath(new URL('peers/garbage.py', import.meta.url))
      const stop = new AbortController()
      const requests = failure(listener.next({ signal: stop.signal }))
      const { stderr } = await execute('python3', [script, listener.address])
      expect(stderr).toBe('')
      stop.abort()
      expect((await requests).code).toBe('ERR_RFAAS_ABORTED')
    } else {
      // The connection manager of the kernel speaks for us: what can be wrong is the private data.
      const completionQueue = device.createCompletionQueue(256)
      const privateData = new Uint8Array(device.info.maxRequestPrivateData).fill(0xff)
      const connecting = failure(device.connect(listener.address, { completionQueue, privateData }))
      ;(await listener.next({ timeoutMs })).reject()
      expect((await connecting).errno).toBe(-111)
    }
    await expectWorking(device, listener)
  })

  test('the socket of a listener goes with it', () => {
    const device = fabric.open()
    const folder = fabric.folder()
    if (!fabric.isShm) return
    const path = join(folder, 'socket')
    const listener = device.listen(path)
    expect(listener.address).toBe(path)
    expect(existsSync(path)).toBe(true)
    listener.close()
    expect(existsSync(path)).toBe(false)
  })
})
