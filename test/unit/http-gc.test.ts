import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { expect, it } from 'vitest'

const module = join(import.meta.dirname, '../../dist/lib/control/http.js')

const child = `
import { createServer } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import { events, request } from ${JSON.stringify(module)}

const server = createServer((call, reply) => {
  if (call.url !== '/events') return // never answered
  reply.writeHead(200, { 'content-type': 'text/event-stream' })
  reply.write('data: 1\\n\\n')
}).listen(0, '127.0.0.1', async () => {
  const url = 'http://127.0.0.1:' + server.address().port
  const controller = new AbortController()
  const { signal } = controller
  const reading = (async () => {
    for await (const event of events(url + '/events', { signal })) console.log(event.data)
    console.log('stream ended')
  })()
  const asking = request(url, { signal, timeoutMs: 60_000 }).catch((error) => console.log(error.code))
  await sleep(200)
  for (let round = 0; round < 10; ++round) {
    Array.from({ length: 20_000 }, () => ({ list: new Array(20) }))
    gc()
    await sleep(10)
  }
  controller.abort()
  await Promise.all([reading, asking])
  process.exit(0)
})
`

it('events() and request() end at an abort after any number of garbage collections', async () => {
  const args = ['--expose-gc', '--input-type=module', '--eval', child]
  const options = { timeout: 10_000, killSignal: 'SIGKILL' } as const
  const { error, lines } = await new Promise<{ error: unknown; lines: string[] }>((resolve) => {
    execFile(process.execPath, args, options, (failed, stdout) => {
      resolve({ error: failed, lines: stdout.trim().split('\n').sort() })
    })
  })
  expect(lines).toEqual(['1', 'ERR_RFAAS_ABORTED', 'stream ended'])
  expect(error).toBeNull()
})
