import { freemem } from 'node:os'
import { expect, test } from 'vitest'

import { conformance, put, succeed, take, text, thrown, untext } from './support.js'

const immediates = [0, 1, 0x80000000, 0xffffffff]

conformance('requests', (fabric) => {
  test('a write puts bytes into the peer’s memory and completes at the writer alone', async () => {
    const { client, server } = await fabric.link()
    const local = put(client.region, 100, 'over there')
    const remote = server.region.remoteKey
    expect(client.pair.write({ id: 1, local, remote, remoteOffset: 4096 })).toBe(true)
    expect(await succeed(client.queue)).toMatchObject({
      id: 1,
      opcode: 'write',
      queuePair: client.pair.number,
      immediate: undefined,
    })
    expect(untext(server.region.bytes(4096, 10))).toBe('over there')
    expect(server.queue.poll()).toEqual([])
  })

  test.each(immediates)(
    'a write with immediate %i takes a receive and says it',
    async (immediate) => {
      const { client, server } = await fabric.link()
      server.pair.postReceive({ id: 5 })
      const local = put(client.region, 0, 'hello')
      client.pair.write({ id: 6, local, remote: server.region.remoteKey, immediate })
      expect(await succeed(server.queue)).toEqual({
        id: 5,
        status: 'success',
        opcode: 'receive-write',
        queuePair: server.pair.number,
        byteLength: 5,
        immediate,
      })
      expect(untext(server.region.bytes(0, 5))).toBe('hello')
      expect(await succeed(client.queue)).toMatchObject({ id: 6, opcode: 'write-immediate' })
    },
  )

  test('a read fetches the peer’s bytes, which hears nothing of it', async () => {
    const { client, server } = await fabric.link()
    put(server.region, 7, 'from afar')
    const local = client.region.bytes(3, 9)
    client.pair.read({ id: 2, local, remote: server.region.remoteKey, remoteOffset: 7 })
    expect(await succeed(client.queue)).toMatchObject({ id: 2, opcode: 'read' })
    expect(untext(local)).toBe('from afar')
    expect(server.queue.poll()).toEqual([])
  })

  test('a send lands in the posted receive, and nothing beyond its length is touched', async () => {
    const { client, server } = await fabric.link()
    server.region.bytes(0, 32).fill(0xee)
    server.pair.postReceive({ id: 3, local: server.region.bytes(8, 16) })
    client.pair.send({ id: 4, local: put(client.region, 0, 'message') })
    expect(await succeed(server.queue)).toMatchObject({
      id: 3,
      opcode: 'receive',
      byteLength: 7,
      immediate: undefined,
    })
    expect(untext(server.region.bytes(8, 7))).toBe('message')
    expect(server.region.bytes(15, 17).every((byte) => byte === 0xee)).toBe(true)
    expect(await succeed(client.queue)).toMatchObject({ id: 4, opcode: 'send' })
  })

  test.each(immediates)('a send with immediate %i carries both', async (immediate) => {
    const { client, server } = await fabric.link()
    server.pair.postReceive({ id: 3, local: server.region.bytes(0, 64) })
    client.pair.send({ id: 4, local: put(client.region, 0, 'both'), immediate })
    const received = await succeed(server.queue)
    expect(received).toMatchObject({ id: 3, opcode: 'receive', byteLength: 4, immediate })
    expect(untext(server.region.bytes(0, 4))).toBe('both')
    expect(await succeed(client.queue)).toMatchObject({ id: 4, opcode: 'send-immediate' })
  })

  test('a fetch-add returns the old value, adds, and wraps at 64 bits', async ({ skip }) => {
    const { client, server } = await fabric.link()
    if (!client.device.info.atomics) skip('the device has no atomics')
    const theirs = new DataView(server.region.buffer)
    const old = new DataView(client.region.buffer)
    const add = async (value: bigint | number) => {
      const [local, remote] = [client.region.bytes(64, 8), server.region.remoteKey]
      client.pair.fetchAdd({ id: 1, local, remote, remoteOffset: 8, add: value })
      expect(await succeed(client.queue)).toMatchObject({ id: 1, opcode: 'fetch-add' })
      return old.getBigUint64(64, true)
    }
    theirs.setBigUint64(8, 0xffff_ffff_ffffn, true)
    expect(await add(1)).toBe(0xffff_ffff_ffffn)
    expect(await add(0xffff_0000_0000_0000n)).toBe(0x1_0000_0000_0000n)
    expect(await add(0)).toBe(0n)
    expect(theirs.getBigUint64(8, true)).toBe(0n)
  })

  test('a compare-swap swaps only what it expected, and returns what it found', async ({
    skip,
  }) => {
    const { client, server } = await fabric.link()
    if (!client.device.info.atomics) skip('the device has no atomics')
    const theirs = new DataView(server.region.buffer)
    const old = new DataView(client.region.buffer)
    const swap = async (compare: bigint, by: bigint) => {
      const [local, remote] = [client.region.bytes(0, 8), server.region.remoteKey]
      client.pair.compareSwap({ local, remote, remoteOffset: 16, compare, swap: by })
      expect(await succeed(client.queue)).toMatchObject({ opcode: 'compare-swap' })
      return old.getBigUint64(0, true)
    }
    theirs.setBigUint64(16, 0xfedc_ba98_7654_3210n, true)
    expect(await swap(1n, 2n)).toBe(0xfedc_ba98_7654_3210n)
    expect(theirs.getBigUint64(16, true)).toBe(0xfedc_ba98_7654_3210n)
    expect(await swap(0xfedc_ba98_7654_3210n, 0xffff_ffff_ffff_ffffn)).toBe(0xfedc_ba98_7654_3210n)
    expect(theirs.getBigUint64(16, true)).toBe(0xffff_ffff_ffff_ffffn)
  })

  test.each(['no segment', 'an empty segment'])('messages of 0 bytes with %s', async (kind) => {
    const { client, server } = await fabric.link()
    const local = kind === 'no segment' ? {} : { local: client.region.bytes(8, 0) }
    const remote = server.region.remoteKey
    server.region.bytes(0, 64).fill(0xee)
    for (let id = 1; id <= 3; id++) server.pair.postReceive({ id })
    client.pair.write({ id: 1, ...local, remote })
    client.pair.write({ id: 2, ...local, remote, immediate: 9 })
    client.pair.read({ id: 3, ...local, remote })
    client.pair.send({ id: 4, ...local })
    client.pair.send({ id: 5, ...local, immediate: 0 })
    const sent = await take(client.queue, 5)
    expect(sent.map(({ id, status }) => [id, status])).toEqual(
      [1, 2, 3, 4, 5].map((id) => [id, 'success']),
    )
    const received = await take(server.queue, 3)
    expect(received.map(({ id, byteLength, immediate }) => [id, byteLength, immediate])).toEqual([
      [1, 0, 9],
      [2, 0, undefined],
      [3, 0, 0],
    ])
    expect(server.region.bytes(0, 64).every((byte) => byte === 0xee)).toBe(true)
  })

  test('inline bytes may lie anywhere and are the caller’s again at once', async () => {
    const { client, server } = await fabric.link()
    const local = text('inline bytes')
    server.pair.postReceive({ id: 1, local: server.region.bytes(0, 32) })
    client.pair.send({ id: 1, local, inline: true })
    local.fill(0)
    client.pair.write({
      id: 2,
      local: [text('in'), text('line')],
      remote: server.region.remoteKey,
      remoteOffset: 100,
      inline: true,
    })
    expect(await succeed(server.queue)).toMatchObject({ byteLength: 12 })
    expect((await take(client.queue, 2)).map(({ status }) => status)).toEqual([
      'success',
      'success',
    ])
    expect(untext(server.region.bytes(0, 12))).toBe('inline bytes')
    expect(untext(server.region.bytes(100, 6))).toBe('inline')
  })

  test('the granted inline length works to its last byte, and one more is refused', async () => {
    const { client, server } = await fabric.link({ client: { inlineBytes: 60 } })
    const { inlineBytes } = client.pair
    expect(inlineBytes).toBeGreaterThanOrEqual(60)
    const local = new Uint8Array(inlineBytes).map((_, i) => i)
    client.pair.write({ local, remote: server.region.remoteKey, inline: true })
    await succeed(client.queue)
    expect(server.region.bytes(0, inlineBytes)).toEqual(local)
    const longer = new Uint8Array(inlineBytes + 1)
    const error = thrown(() => client.pair.send({ local: longer, inline: true }))
    expect(error).toMatchObject({ code: 'ERR_RFAAS_INVALID_ARGUMENT', field: 'local.byteLength' })
  })

  test('two segments are gathered in order, and scattered by a read', async () => {
    const { client, server } = await fabric.link()
    const [first, second] = [put(client.region, 500, 'left '), put(client.region, 10, 'right')]
    const remote = server.region.remoteKey
    client.pair.write({ local: [first, second], remote })
    await succeed(client.queue)
    expect(untext(server.region.bytes(0, 10))).toBe('left right')
    server.pair.postReceive({ local: server.region.bytes(32, 32) })
    client.pair.send({ local: [second, first] })
    expect(await succeed(server.queue)).toMatchObject({ byteLength: 10 })
    expect(untext(server.region.bytes(32, 10))).toBe('rightleft ')
    await succeed(client.queue)
    client.pair.read({
      local: [client.region.bytes(1000, 3), client.region.bytes(2000, 7)],
      remote,
    })
    await succeed(client.queue)
    expect(untext(client.region.bytes(1000, 3))).toBe('lef')
    expect(untext(client.region.bytes(2000, 7))).toBe('t right')
  })

  test('unsignalled requests complete only through a later signalled one', async () => {
    const { client, server } = await fabric.link()
    for (let i = 0; i < 20; i++) {
      client.region.bytes()[i] = i + 1
      client.pair.write({
        id: i,
        local: client.region.bytes(i, 1),
        remote: server.region.remoteKey,
        remoteOffset: i,
        signaled: i === 19,
      })
    }
    expect(await succeed(client.queue)).toMatchObject({ id: 19 })
    expect(client.queue.poll()).toEqual([])
    expect(server.region.bytes(0, 20)).toEqual(client.region.bytes(0, 20))
  })

  test('what one request wrote is there when a later one arrives', async () => {
    const { client, server } = await fabric.link()
    const count = 2000
    const seen = new Uint32Array(server.region.buffer)
    const value = new Uint32Array(client.region.buffer)
    const remote = server.region.remoteKey
    for (let i = 0; i < 32; i++) server.pair.postReceive({ id: i })
    let received = 0
    for (let sent = 0; received < count;) {
      if (sent < count && sent - received < 16) {
        const slot = sent % 16
        value[slot * 256] = sent + 1
        const local = client.region.bytes(slot * 1024, 1024)
        client.pair.write({ local, remote, remoteOffset: slot * 1024, signaled: false })
        client.pair.write({ remote, immediate: sent, signaled: sent % 16 === 15 })
        sent++
      }
      client.queue.poll()
      for (const { immediate, status } of server.queue.spin({ budgetNs: 1000 })) {
        expect([immediate, status]).toEqual([received, 'success'])
        expect(seen[(received % 16) * 256]).toBe(received + 1)
        server.pair.postReceive()
        received++
      }
    }
  })

  test('a fenced request comes after the reads before it', async () => {
    const { client, server } = await fabric.link()
    put(server.region, 0, 'before')
    const remote = server.region.remoteKey
    client.pair.read({ id: 1, local: client.region.bytes(0, 6), remote, signaled: false })
    client.pair.write({
      id: 2,
      local: client.region.bytes(0, 6),
      remote,
      remoteOffset: 64,
      fence: true,
    })
    await succeed(client.queue)
    expect(untext(server.region.bytes(64, 6))).toBe('before')
  })

  test('ids come back whole', async () => {
    const { client, server } = await fabric.link()
    const ids = [0, 0xffffffff, 0x100000000, Number.MAX_SAFE_INTEGER]
    for (const id of ids) {
      server.pair.postReceive({ id })
      client.pair.send({ id })
    }
    expect((await take(client.queue, ids.length)).map(({ id }) => id)).toEqual(ids)
    expect((await take(server.queue, ids.length)).map(({ id }) => id)).toEqual(ids)
  })

  test('a very long write arrives from its first byte to its last', async () => {
    const { maxMessageBytes } = fabric.open().info
    const wanted = 2 ** 30 - 64
    const room = freemem() > 8 * 2 ** 30 ? wanted : 2 ** 28 - 64
    const bytes = Math.min(wanted, room, maxMessageBytes)
    if (bytes < wanted) {
      const why = bytes === maxMessageBytes ? 'the device takes no more' : 'memory is short'
      console.warn(`${fabric.provider}: a message of ${bytes} bytes only, ${why}`)
    }
    const { client, server } = await fabric.link({ bytes })
    const marks = [0, 4095, bytes >>> 1, bytes - 1]
    for (const at of marks) client.region.bytes()[at] = 1 + (at % 251)
    client.pair.write({ local: client.region.bytes(), remote: server.region.remoteKey })
    await succeed(client.queue)
    const there = server.region.bytes()
    expect(marks.map((at) => there[at])).toEqual(marks.map((at) => 1 + (at % 251)))
  }, 120_000)

  test('a message longer than the device takes is refused, and the next one works', async () => {
    const { client, server } = await fabric.link()
    const { maxMessageBytes } = client.device.info
    // Pages that nobody touches cost nothing.
    const region = client.device.allocate(maxMessageBytes + 1)
    const error = thrown(() => client.pair.send({ local: region.bytes() }))
    expect(error).toMatchObject({ field: 'local.byteLength', value: maxMessageBytes + 1 })
    region.close()
    client.pair.write({ local: client.region.bytes(), remote: server.region.remoteKey })
    await succeed(client.queue)
  })
})
