import { execFileSync } from 'node:child_process'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, describe, expect, test } from 'vitest'

import type { Runtime } from '../../lib/control/schemas.js'
import { LoneWorker } from './lone-worker.js'
import { bytes, marks, marksIn, nativePackage, nodePackage, sleeps } from './support.js'

const strangers = `
import socket, sys
for _ in range(3):
    stranger = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    stranger.connect(sys.argv[1])
    stranger.send(b"GET / HTTP/1.1\\r\\n\\r\\n")
    assert stranger.recv(100) == b""
`

let worker: LoneWorker | undefined

function start(runtime: Runtime, options?: { held: boolean; orders?: string }): LoneWorker {
  worker = new LoneWorker(runtime, runtime === 'native' ? nativePackage() : nodePackage, options)
  return worker
}

afterEach(() => {
  worker?.close()
  worker = undefined
})

test('a worker drops strangers on its socket and says so once', async () => {
  const { address, events, ready } = start('native')
  await ready
  execFileSync('python3', ['-c', strangers, address])
  execFileSync('python3', ['-c', strangers, address])
  await expect.poll(() => events.map(({ event }) => event)).toContain('refused')
  expect(events.filter(({ event }) => event === 'refused')).toEqual([
    { event: 'refused', reason: "it does not speak the fabric's protocol (unknown)" },
  ])
})

describe.each(['native', 'node'] as const)('a %s worker that waits to be let go', (runtime) => {
  test('does nothing of what it was told before, and all of it then', async () => {
    const lone = start(runtime, { held: true, orders: 'drain\n' })
    await sleep(300)
    expect(lone.events).toEqual([])
    lone.letGo('g')
    const functions = await lone.connect()
    await expect(functions.invoke('echo', bytes(1))).rejects.toMatchObject({
      code: 'ERR_RFAAS_LEASE_REVOKED',
    })
    lone.say('stop\n')
    await lone.ended
  })

  test('ends when its launcher does, without a word', async () => {
    const lone = start(runtime, { held: true })
    lone.letGo('')
    await expect(lone.ended).rejects.toThrow('the worker ended with 1')
    expect(lone.events).toEqual([])
  })
})

describe.each(['native', 'node'] as const)('a %s worker that is told to drain', (runtime) => {
  const outcome = (call: Promise<unknown>): Promise<unknown> =>
    call.catch((error: unknown) => error)

  test('lets the call that runs finish and refuses those after it', async () => {
    const lone = start(runtime)
    const functions = await lone.connect()
    const running = functions.invoke('sleep_ms', sleeps(300))
    // A line that it does not know, and a half one.
    lone.say('something else\ndra')
    expect(await functions.invoke('echo', bytes(1))).toEqual(bytes(1))
    lone.say('in\n')
    await expect
      .poll(() => outcome(functions.invoke('echo', bytes(2))))
      .toMatchObject({ code: 'ERR_RFAAS_LEASE_REVOKED', mayHaveRun: false })
    expect(() => functions.invokeSync('echo', bytes(2), bytes(0))).toThrow('being revoked')
    expect(await running).toEqual(bytes())
    lone.say('stop\n')
    await lone.ended
  })

  test('and to stop at once ends when the call that runs has finished', async () => {
    const lone = start(runtime)
    const functions = await lone.connect()
    const running = functions.invoke('mark', marks(lone.file('ran'), 400))
    await expect.poll(() => marksIn(lone.file('ran'))).toBe(1)
    lone.say('drain\nstop\n')
    expect(await running).toEqual(bytes())
    await lone.ended
  })

  test('does so too when its stdin ends', async () => {
    const lone = start(runtime)
    await lone.ready
    lone.say('drain\n')
    lone.process.stdin?.end()
    await lone.ended
  })
})
