// The floor of a start for which a worker waits: a client that has a connection to one server has its request
// made durable there, and sends another to a second server. Both do nothing else.
import { mkdtemp, rm } from 'node:fs/promises'
import { Agent, request } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import type { Driver } from './driver.js'
import { startServer } from './servers.js'

const body = JSON.stringify({ ask: 'x'.repeat(500) })

export const bareRequests: Driver = {
  description: 'two HTTP requests to two servers that do nothing, the first made durable',
  kind: 'floor',
  open: async ({ url }, step) => {
    const [manager, node] = url.split(' ')
    const agent = new Agent({ keepAlive: true })
    await post(agent, manager!)
    step('begin')
    await post(agent, manager!)
    step('lease')
    await post(agent, node!)
    step('spawn')
    let input: Uint8Array = new Uint8Array(0)
    return {
      operation: { kind: 'sync', call: () => undefined },
      use: (payload) => {
        input = payload
      },
      result: () => input,
      servers: [],
      close: () => Promise.resolve(agent.destroy()),
    }
  },
}

/** `url` is for the driver. */
export async function withBareServers<T>(
  cores: readonly number[],
  use: (url: string) => Promise<T>,
): Promise<T> {
  const folder = await mkdtemp(join(tmpdir(), 'rfaas-bench-'))
  const servers = [
    await startServer('bare', cores, [join(folder, 'requests')]),
    await startServer('bare', cores, []),
  ]
  try {
    return await use(servers.map(({ port }) => `http://127.0.0.1:${port}`).join(' '))
  } finally {
    for (const server of servers) await server.close()
    await rm(folder, { recursive: true })
  }
}

function post(agent: Agent, url: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const headers = { 'content-type': 'application/json', 'content-length': body.length }
    const sent = request(url, { method: 'POST', agent, headers }, (response) => {
      const chunks: Buffer[] = []
      response.on('data', (chunk: Buffer) => chunks.push(chunk))
      response.on('end', () => {
        JSON.parse(Buffer.concat(chunks).toString())
        resolve()
      })
      response.on('error', reject)
    })
    sent.on('error', reject)
    sent.end(body)
  })
}
