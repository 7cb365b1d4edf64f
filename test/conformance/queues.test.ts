import { expect, test } from 'vitest'

import { conformance, failure, put, succeed, take, takeOne, thrown, untext } from './support.js'
import type { End } from './support.js'

/** Posts with `post` until it says that the queue is full; how many went in. */
function fill(post: () => boolean): number {
  for (let posted = 0; posted < 100_000; posted++) if (!post()) return posted
  return expect.fail('the queue is never full')
}

/** Until the queue pair has no request left that uses the region. */
async function drained({ queue, region }: End): Promise<void> {
  while (region.inFlight > 0) await queue.wait({ timeoutMs: 10_000 })
}

conformance('queues', (fabric) => {
  test('a peer that is not ready is waited for, and everything arrives in order', async () => {
    const { client, server } = await fabric.link()
    const remote = server.region.remoteKey
    client.pair.send({ id: 1, local: put(client.region, 0, 'one') })
    client.pair.write({ id: 2, local: put(client.region, 8, 'two'), remote, immediate: 2 })
    client.pair.send({ id: 3, local: put(client.region, 16, 'three'), immediate: 3 })
    await new Promise((resolve) => setTimeout(resolve, 50))
    expect(server.queue.poll()).toEqual([])
    expect(client.queue.poll()).toEqual([])
    const sent = take(client.queue, 3)
    for (const id of [11, 12, 13]) {
      server.pair.postReceive({ id, local: server.region.bytes(id * 64, 64) })
    }
    const received = await take(server.queue, 3)
    expect(received.map(({ id, opcode, immediate }) => [id, opcode, immediate])).toEqual([
      [11, 'receive', undefined],
      [12, 'receive-write', 2],
      [13, 'receive', 3],
    ])
    expect((await sent).map(({ id, status }) => [id, status])).toEqual([
      [1, 'success'],
      [2, 'success'],
      [3, 'success'],
    ])
    expect(untext(server.region.bytes(11 * 64, 3))).toBe('one')
    expect(untext(server.region.bytes(0, 3))).toBe('two')
    expect(untext(server.region.bytes(13 * 64, 5))).toBe('three')
  })

  test('a finite number of retries ends in rnr-retry-exceeded, and flushes the rest', async () => {
    const { client } = await fabric.link({ client: { rnrRetry: 1 } })
    client.pair.send({ id: 1, local: client.region.bytes(0, 8) })
    client.pair.send({ id: 2, local: client.region.bytes(0, 8) })
    client.pair.send({ id: 3, local: client.region.bytes(0, 8), signaled: false })
    const ended = await take(client.queue, 3)
    expect(ended.map(({ id, status }) => [id, status])).toEqual([
      [1, 'rnr-retry-exceeded'],
      [2, 'flushed'],
      [3, 'flushed'],
    ])
    expect(client.pair.state).toBe('error')
    const error = thrown(() => client.pair.send({}))
    expect(error).toMatchObject({ code: 'ERR_RFAAS_FABRIC', errno: -107, syscall: 'post_send' })
  })

  test('a full send queue says so, posts nothing, and takes more after completions', async () => {
    const sendDepth = 8
    const { client, server } = await fabric.link({ client: { sendDepth } })
    // Sends to a peer that is not ready stay in the queue.
    let id = 0
    const send = () => client.pair.send({ id: id++, local: client.region.bytes(0, 8) })
    const posted = fill(send)
    expect(posted).toBeGreaterThanOrEqual(sendDepth)
    expect(send()).toBe(false)
    for (let i = 0; i < posted; i++) server.pair.postReceive({ local: server.region.bytes(0, 64) })
    // Requests that wait for the peer go on when their owner polls.
    const [sent] = await Promise.all([take(client.queue, posted), take(server.queue, posted)])
    expect(sent.map((completion) => completion.id)).toEqual([...sent.keys()])
    server.pair.postReceive({ local: server.region.bytes(0, 64) })
    expect(client.pair.send({ id: 77 })).toBe(true)
    expect(await succeed(client.queue)).toMatchObject({ id: 77 })
    expect(await succeed(server.queue)).toMatchObject({ opcode: 'receive', byteLength: 0 })
  })

  test('a batch stops at the first request that does not fit, and says how many went', async () => {
    const { client, server } = await fabric.link({ client: { sendDepth: 8 } })
    for (let i = 0; i < 64; i++) client.pair.encode(i, { opcode: 'send', id: i })
    const posted = client.pair.submit(64)
    expect(posted).toBeGreaterThanOrEqual(8)
    expect(posted).toBeLessThan(64)
    expect(client.pair.submit(64)).toBe(-11)
    for (let i = 0; i < posted; i++) server.pair.encodeReceive(i, { id: 100 + i })
    expect(server.pair.submitReceives(posted)).toBe(posted)
    const [sent, received] = await Promise.all([
      take(client.queue, posted),
      take(server.queue, posted),
    ])
    expect(sent.map(({ id }) => id)).toEqual([...sent.keys()])
    expect(received.map(({ id }) => id - 100)).toEqual([...received.keys()])
  })

  test('a full receive queue says so, and takes more after one was used', async () => {
    const receiveDepth = 8
    const { client, server } = await fabric.link({ server: { receiveDepth } })
    let id = 0
    const post = () => server.pair.postReceive({ id: id++, local: server.region.bytes(0, 64) })
    const posted = fill(post)
    expect(posted).toBeGreaterThanOrEqual(receiveDepth)
    client.pair.send({})
    expect(await succeed(server.queue)).toMatchObject({ id: 0 })
    expect(server.pair.postReceive({ id: 99 })).toBe(true)
    expect(server.pair.postReceive({ id: 100 })).toBe(false)
    for (let i = 1; i < posted; i++) client.pair.send({})
    client.pair.send({})
    const rest = await take(server.queue, posted)
    expect(rest.at(-1)?.id).toBe(99)
  })

  test('a completion queue that could overflow is refused', async () => {
    const device = fabric.open()
    const listener = fabric.listen(device)
    const completionQueue = device.createCompletionQueue(16)
    const depths = { sendDepth: 1024, receiveDepth: 1024 }
    const error = await failure(device.connect(listener.address, { completionQueue, ...depths }))
    expect(error).toMatchObject({ code: 'ERR_RFAAS_FABRIC', syscall: 'connect' })
    const small = device.connect(listener.address, {
      completionQueue,
      sendDepth: 4,
      receiveDepth: 4,
    })
    const request = await listener.next({ timeoutMs: 5000 })
    expect((await failure(request.accept({ completionQueue, ...depths }))).syscall).toBe('prepare')
    request.reject()
    expect((await failure(small)).errno).toBe(-111)
  })

  test('a message longer than the posted receive fails at both ends', async () => {
    const { client, server } = await fabric.link()
    server.region.bytes(0, 128).fill(0xee)
    server.pair.postReceive({ id: 1, local: server.region.bytes(0, 64) })
    server.pair.postReceive({ id: 2, local: server.region.bytes(0, 64) })
    client.pair.send({ id: 3, local: client.region.bytes(0, 65) })
    const received = await take(server.queue, 2)
    expect(received.map(({ id, status }) => [id, status])).toEqual([
      [1, 'local-length'],
      [2, 'flushed'],
    ])
    expect(await takeOne(client.queue)).toMatchObject({ id: 3, status: 'remote-invalid' })
    expect(server.region.bytes(64, 64).every((byte) => byte === 0xee)).toBe(true)
    expect(client.pair.state).toBe('error')
  })

  test('a disconnect flushes every posted receive, in order', async () => {
    const { client, server } = await fabric.link()
    for (let id = 0; id < 10; id++) {
      server.pair.postReceive({ id, local: server.region.bytes(id * 8, 8) })
    }
    client.pair.disconnect()
    const flushed = await take(server.queue, 10)
    expect(flushed.map(({ id, status }) => [id, status])).toEqual(
      [...flushed.keys()].map((id) => [id, 'flushed']),
    )
    await server.pair.disconnected
    expect(server.pair.state).toBe('error')
    expect(thrown(() => server.pair.postReceive()).errno).toBe(-107)
  })

  test('a poll takes no more than it was asked for, and leaves the rest in order', async () => {
    const { client, server } = await fabric.link()
    for (let id = 0; id < 10; id++) client.pair.write({ id, remote: server.region.remoteKey })
    const taken: number[] = []
    while (taken.length < 10) {
      const some = client.queue.poll(3)
      expect(some.length).toBeLessThanOrEqual(3)
      taken.push(...some.map(({ id }) => id))
      if (some.length === 0) await new Promise((resolve) => setImmediate(resolve))
    }
    expect(taken).toEqual([...taken.keys()])
  })

  test('sends and receives may complete in different queues', async () => {
    const device = fabric.open()
    const sendQueue = device.createCompletionQueue(64)
    const receiveQueue = device.createCompletionQueue(64)
    const listener = fabric.listen(device)
    const [pair, other] = await Promise.all([
      device.connect(listener.address, { sendQueue, receiveQueue }),
      (async () => {
        const request = await listener.next({ timeoutMs: 5000 })
        return await request.accept({ completionQueue: device.createCompletionQueue(256) })
      })(),
    ])
    pair.postReceive({ id: 1 })
    other.postReceive({ id: 2 })
    pair.send({ id: 3 })
    other.send({ id: 4 })
    expect(await succeed(sendQueue)).toMatchObject({ id: 3, opcode: 'send' })
    expect(await succeed(receiveQueue)).toMatchObject({ id: 1, opcode: 'receive' })
    expect([...sendQueue.poll(), ...receiveQueue.poll()]).toEqual([])
  })

  test('queue pairs can share a completion queue, which tells them apart', async () => {
    const device = fabric.open()
    const completionQueue = device.createCompletionQueue(1024)
    const listener = fabric.listen(device)
    const connect = async () =>
      await Promise.all([
        device.connect(listener.address, { completionQueue }),
        listener
          .next({ timeoutMs: 5000 })
          .then(async (request) => await request.accept({ completionQueue })),
      ])
    const [[a, b], [c, d]] = [await connect(), await connect()]
    b.postReceive({ id: 10 })
    d.postReceive({ id: 20 })
    a.send({ id: 1 })
    c.send({ id: 2 })
    const taken = await take(completionQueue, 4)
    const where = new Map(taken.map(({ id, queuePair }) => [id, queuePair]))
    expect([1, 10, 2, 20].map((id) => where.get(id))).toEqual(
      [a, b, c, d].map(({ number }) => number),
    )
    expect(new Set([a, b, c, d].map(({ number }) => number)).size).toBe(4)
  })

  test('a region counts what is in flight on it, and a closed queue pair lets go', async () => {
    const { client, server } = await fabric.link()
    server.pair.postReceive({ local: server.region.bytes(0, 64) })
    server.pair.postReceive({ local: server.region.bytes(64, 64) })
    expect(server.region.inFlight).toBe(2)
    client.pair.send({ local: client.region.bytes(0, 8) })
    await succeed(server.queue)
    expect(server.region.inFlight).toBe(1)
    await drained(client)
    server.pair.close()
    expect(server.region.inFlight).toBe(0)
  })
})
