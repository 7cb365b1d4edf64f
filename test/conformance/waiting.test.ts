import { expect, test } from 'vitest'

import { conformance, deadlineMs, failure, succeed, take, thrown, within } from './support.js'

conformance('waiting', (fabric) => {
  test('a wait sleeps until a completion comes', async () => {
    const { client, server } = await fabric.link()
    server.pair.postReceive({ id: 1 })
    const waiting = server.queue.wait({ timeoutMs: deadlineMs })
    setTimeout(() => client.pair.send({ immediate: 7 }), 20)
    expect(await waiting).toMatchObject([{ id: 1, immediate: 7, status: 'success' }])
  })

  test('a wait returns at once with what is already there', async () => {
    const { client, server } = await fabric.link()
    client.pair.write({ id: 1, remote: server.region.remoteKey })
    client.pair.write({ id: 2, remote: server.region.remoteKey })
    expect((await take(client.queue, 2)).map(({ id }) => id)).toEqual([1, 2])
  })

  test('no wake-up is lost when completions race with going to sleep', async () => {
    const { client, server } = await fabric.link()
    for (let i = 0; i < 1000; i++) {
      server.pair.postReceive({ id: i })
      const received = server.queue.wait({ timeoutMs: deadlineMs })
      // From the same turn of the loop to some turns later.
      for (let turn = 0; turn < i % 4; turn++) {
        await (turn % 2 === 0 ? null : new Promise((resolve) => setImmediate(resolve)))
      }
      client.pair.send({ id: i })
      expect(await received).toMatchObject([{ id: i, status: 'success' }])
      expect(await succeed(client.queue)).toMatchObject({ id: i })
    }
  })

  test('a spin returns the completion, or nothing when its time is over', async () => {
    const { client, server } = await fabric.link()
    client.pair.write({ id: 1, remote: server.region.remoteKey })
    expect(client.queue.spin({ timeoutMs: deadlineMs })).toMatchObject([{ id: 1 }])
    const began = process.hrtime.bigint()
    expect(client.queue.spin({ timeoutMs: 5 })).toEqual([])
    expect(process.hrtime.bigint() - began).toBeGreaterThanOrEqual(5_000_000n)
    expect(client.queue.spin({ budgetNs: 0 })).toEqual([])
  })

  test('a spin without a budget or with two is refused', async () => {
    const queue = fabric.open().createCompletionQueue(16)
    expect(thrown(() => queue.spin({})).code).toBe('ERR_RFAAS_INVALID_ARGUMENT')
    expect(thrown(() => queue.spin({ timeoutMs: 1, budgetNs: 1 })).code).toBe(
      'ERR_RFAAS_INVALID_ARGUMENT',
    )
    expect(thrown(() => queue.spin({ timeoutMs: -1 }))).toMatchObject({ field: 'timeoutMs' })
  })

  test('a wait gives up at its deadline, and the next one works', async () => {
    const { client, server } = await fabric.link()
    const error = await failure(server.queue.wait({ timeoutMs: 10 }))
    expect(error.code).toBe('ERR_RFAAS_DEADLINE')
    server.pair.postReceive({ id: 3 })
    client.pair.send({})
    expect(await succeed(server.queue)).toMatchObject({ id: 3 })
  })

  test('an aborted wait fails with the reason, before or while it waits', async () => {
    const queue = fabric.open().createCompletionQueue(16)
    const reason = new Error('changed my mind')
    const early = await failure(queue.wait({ signal: AbortSignal.abort(reason) }))
    expect(early).toMatchObject({ code: 'ERR_RFAAS_ABORTED', cause: reason })
    const controller = new AbortController()
    setTimeout(() => controller.abort(reason), 10)
    const late = await failure(queue.wait({ signal: controller.signal }))
    expect(late).toMatchObject({ code: 'ERR_RFAAS_ABORTED', cause: reason })
  })

  test('a second wait of the same queue is refused, the first goes on', async () => {
    const { client, server } = await fabric.link()
    server.pair.postReceive({ id: 1 })
    const first = server.queue.wait({ timeoutMs: deadlineMs })
    expect((await failure(server.queue.wait())).message).toContain('another wait')
    client.pair.send({})
    expect(await first).toMatchObject([{ id: 1 }])
  })

  test.each(['the queue', 'the device'])('closing %s ends a pending wait', async (what) => {
    const device = fabric.open()
    const queue = device.createCompletionQueue(16)
    const waiting = failure(queue.wait())
    await new Promise((resolve) => setImmediate(resolve))
    if (what === 'the queue') queue.close()
    else device.close()
    expect((await waiting).code).toBe('ERR_RFAAS_CLOSED')
    expect((await failure(queue.wait())).code).toBe('ERR_RFAAS_CLOSED')
    expect(thrown(() => queue.poll()).code).toBe('ERR_RFAAS_CLOSED')
    expect(thrown(() => queue.spin({ timeoutMs: 1 })).code).toBe('ERR_RFAAS_CLOSED')
  })

  test('a wait hears of a peer that goes away', async () => {
    const { client, server } = await fabric.link()
    server.pair.postReceive({ id: 1 })
    const waiting = server.queue.wait({ timeoutMs: deadlineMs })
    client.pair.close()
    expect(await waiting).toMatchObject([{ id: 1, status: 'flushed' }])
    await within(server.pair.disconnected, 'disconnected')
  })
})
