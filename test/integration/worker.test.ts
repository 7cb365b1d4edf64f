import { execFileSync, spawn, type ChildProcess } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import type { Readable } from 'node:stream'
import { afterEach, expect, test } from 'vitest'

import { nativePackage } from './support.js'

const program = join(import.meta.dirname, '..', '..', 'build', 'Release', 'rfaas-executor')
const strangers = `
import socket, sys
for _ in range(3):
    stranger = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    stranger.connect(sys.argv[1])
    stranger.send(b"GET / HTTP/1.1\\r\\n\\r\\n")
    assert stranger.recv(100) == b""
`

let worker: ChildProcess | undefined
let folder: string | undefined

afterEach(() => {
  worker?.kill('SIGKILL')
  if (folder !== undefined) rmSync(folder, { recursive: true })
})

test('a worker drops strangers on its socket and says so once', async () => {
  folder = mkdtempSync(join(tmpdir(), 'rfaas-worker-'))
  const address = join(folder, 'worker.sock')
  worker = spawn(program, { stdio: ['pipe', 'ignore', 'inherit', 'pipe'] })
  const events: { event: string; reason?: string }[] = []
  const lines = createInterface({ input: worker.stdio[3] as Readable })
  lines.on('line', (line) => events.push(JSON.parse(line) as (typeof events)[number]))
  const configuration = {
    provider: 'shm',
    address,
    ticket: '07'.repeat(32),
    package: nativePackage(),
    slots: 2,
    payload_bytes: 4096,
    output_bytes: 4096,
    hot_timeout_us: 0,
  }
  const text = Object.entries(configuration).map(([key, value]) => `${key}=${value}\n`)
  worker.stdin?.write(`${text.join('')}\n`)
  await expect.poll(() => events.map(({ event }) => event)).toContain('ready')
  execFileSync('python3', ['-c', strangers, address])
  execFileSync('python3', ['-c', strangers, address])
  await expect.poll(() => events.map(({ event }) => event)).toContain('refused')
  expect(events.filter(({ event }) => event === 'refused')).toEqual([
    { event: 'refused', reason: "it does not speak the fabric's protocol (unknown)" },
  ])
})
