import { once } from 'node:events'
import { existsSync, readdirSync } from 'node:fs'
import { Worker } from 'node:worker_threads'
import { expect, test } from 'vitest'

import { RemoteKey, type CompletionQueue } from '../../lib/fabric/index.js'
import { conformance, deadlineMs, take, within, type TestFabric } from './support.js'

const slots = 32
const bytes = 64

async function echoing(fabric: TestFabric, mode: 'spin' | 'wait') {
  const peer = await fabric.peer('echo', [mode])
  const device = fabric.open()
  const queue = device.createCompletionQueue(1024)
  const region = device.allocate(65536)
  const pair = await device.connect(peer.first, {
    completionQueue: queue,
    sendDepth: 2 * slots,
    timeoutMs: deadlineMs,
    prepare: (made) => {
      for (let id = 0; id < slots; id++) {
        made.postReceive({ id, local: region.bytes(4096 + id * bytes, bytes) })
      }
    },
  })
  return { peer, queue, region, pair }
}

/** A device in a worker thread that is busy with a queue pair of this thread. */
async function workerPeer(fabric: TestFabric, mode: 'spin' | 'wait') {
  const device = fabric.open()
  const completionQueue = device.createCompletionQueue(256)
  const listener = fabric.listen(device)
  const worker = new Worker(new URL('peers/worker-thread.mjs', import.meta.url), {
    workerData: { provider: fabric.provider, address: listener.address, mode },
  })
  const busy = once(worker, 'message')
  const request = await listener.next({ timeoutMs: deadlineMs })
  const pair = await request.accept({ completionQueue })
  await within(busy, 'the worker')
  return { worker, pair, device, listener }
}

/** Hot for a moment, then warm: two spinning processes would only take the cores from each other. */
async function poll(queue: CompletionQueue) {
  const completions = queue.spin({ budgetNs: 200_000 })
  return completions.length > 0 ? completions : await queue.wait({ timeoutMs: deadlineMs })
}

conformance('processes', (fabric) => {
  test('70,000 messages go through one queue pair in both directions, in order', async () => {
    const { queue, region, pair, peer } = await echoing(fabric, 'spin')
    const count = 70_000
    const outgoing = new Uint32Array(region.buffer, 0, 1024)
    const incoming = new Uint32Array(region.buffer, 4096)
    let sent = 0
    let received = 0
    while (received < count) {
      while (sent < count && sent - received < 16) {
        const slot = (sent % slots) * (bytes / 4)
        outgoing[slot] = sent
        const local = region.bytes(slot * 4, bytes)
        pair.send({ id: 1000, local, immediate: sent, signaled: sent % slots === 0 })
        sent++
      }
      for (const { id, status, opcode, byteLength, immediate } of await poll(queue)) {
        if (status !== 'success') expect.fail(`message ${received}: ${status}`)
        if (opcode !== 'receive') continue
        if (immediate !== received || byteLength !== bytes) {
          expect.fail(`message ${received} came back as ${immediate} with ${byteLength} bytes`)
        }
        if (incoming[id * (bytes / 4)] !== received) expect.fail(`${received}: wrong bytes`)
        pair.postReceive({ id, local: region.bytes(4096 + id * bytes, bytes) })
        received++
      }
    }
    pair.close()
    expect(await within(peer.exited, 'the peer’s end')).toEqual({ code: 0, signal: null })
  }, 300_000)

  test('two processes that sleep wake each other', async () => {
    const { queue, region, pair, peer } = await echoing(fabric, 'wait')
    for (let i = 0; i < 300; i++) {
      region.bytes(0, 4).fill(i)
      const signaled = i % 16 === 15
      expect(pair.send({ local: region.bytes(0, 4), immediate: i, signaled })).toBe(true)
      const completions = await take(queue, signaled ? 2 : 1)
      expect(completions.every(({ status }) => status === 'success')).toBe(true)
      const echo = completions.find(({ opcode }) => opcode === 'receive')
      expect(echo?.immediate).toBe(i)
      const id = echo?.id ?? 0
      pair.postReceive({ id, local: region.bytes(4096 + id * bytes, bytes) })
      // Some time for the peer to fall asleep.
      if (i % 10 === 0) await new Promise((resolve) => setTimeout(resolve, 2))
    }
    pair.close()
    expect((await within(peer.exited, 'the peer’s end')).code).toBe(0)
  })

  test.each(['spin', 'wait'] as const)(
    'a killed peer flushes all that is outstanding (%s)',
    async (mode) => {
      const peer = await fabric.peer('silent')
      const device = fabric.open()
      const queue = device.createCompletionQueue(256)
      const region = device.allocate(65536)
      const pair = await device.connect(peer.first, { completionQueue: queue })
      expect(await peer.line()).toBe('connected')
      const remote = RemoteKey.fromBytes(pair.privateData.slice(0, RemoteKey.byteLength))
      for (let id = 0; id < 8; id++) pair.postReceive({ id, local: region.bytes(id * 64, 64) })
      // Two find a receive, the others stay in flight.
      for (let id = 10; id < 16; id++) pair.send({ id, local: region.bytes(1024, 64) })
      const early = await take(queue, 2)
      expect(early.map(({ id, status }) => [id, status])).toEqual([
        [10, 'success'],
        [11, 'success'],
      ])
      peer.child.kill('SIGKILL')
      const ended = []
      while (ended.length < 12) {
        ended.push(
          ...(mode === 'spin' ? await poll(queue) : await queue.wait({ timeoutMs: deadlineMs })),
        )
      }
      const sends = ended.filter(({ id }) => id >= 10)
      const receives = ended.filter(({ id }) => id < 10)
      expect(sends.map(({ id }) => id)).toEqual([12, 13, 14, 15])
      expect(receives.map(({ id }) => id)).toEqual([0, 1, 2, 3, 4, 5, 6, 7])
      expect(['flushed', 'transport-retry-exceeded', 'rnr-retry-exceeded']).toContain(
        sends[0]?.status,
      )
      for (const { status } of [...sends.slice(1), ...receives]) expect(status).toBe('flushed')
      await within(pair.disconnected, 'disconnected')
      expect(pair.state).toBe('error')
      pair.encode(0, { opcode: 'write', local: region.bytes(0, 8), remote })
      expect(pair.submit(1)).toBe(-107)
    },
  )

  test.each(['exit', 'exit-at-once'])(
    'a process ends cleanly with work outstanding (%s)',
    async (how) => {
      const shared = readdirSync('/dev/shm')
      const peer = await fabric.peer('unfinished', [how])
      expect(await within(peer.exited, 'its end')).toEqual({ code: 0, signal: null })
      if (fabric.isShm) expect(existsSync(peer.first)).toBe(false)
      const mine = readdirSync('/dev/shm').filter((name) => !shared.includes(name))
      expect(mine.filter((name) => name.includes('rfaas'))).toEqual([])
    },
  )

  test('an idle connection does not keep a process alive', async () => {
    const peer = await fabric.peer('unfinished', ['idle'])
    expect(await peer.line()).toBe('idle')
    expect(await within(peer.exited, 'its end')).toEqual({ code: 0, signal: null })
  })

  test('a pending wait keeps a process alive', async () => {
    const peer = await fabric.peer('unfinished', ['waiting'])
    expect(await peer.line()).toBe('waited for 5')
    expect(await within(peer.exited, 'its end')).toEqual({ code: 0, signal: null })
  })

  test('objects that are forgotten are collected without harm to what is in use', async () => {
    const peer = await fabric.peer('unfinished', ['forget'], ['--expose-gc'])
    expect(await peer.line()).toBe('whole')
    expect(await within(peer.exited, 'its end')).toEqual({ code: 0, signal: null })
  })

  test.each(['spin', 'wait'] as const)(
    'a terminated worker thread is a dead peer (%s)',
    async (mode) => {
      for (let i = 0; i < 5; i++) {
        const { worker, pair, device } = await workerPeer(fabric, mode)
        expect(pair.state).toBe('connected')
        await within(worker.terminate(), 'the end of the worker')
        await within(pair.disconnected, 'disconnected')
        device.close()
      }
    },
  )

  test('a worker thread ends by itself when its connection does', async () => {
    const { worker, pair } = await workerPeer(fabric, 'spin')
    const exited = once(worker, 'exit')
    pair.close()
    expect(await within(exited, 'the end of the worker')).toEqual([0])
  })
})
