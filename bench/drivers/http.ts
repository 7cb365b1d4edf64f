// A function behind HTTP, as fast as Node makes it without a gateway: Fastify in its own process,
// one connection that is kept open. The client is node:http with an agent: the global fetch took four
// times as long for small payloads and twice as long for large ones.
import { fork, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { Agent, request } from 'node:http'
import { join } from 'node:path'

import { pin } from '../cores.js'
import type { Driver, Session } from './driver.js'

export const http: Driver = {
  description: 'POST to a Fastify server in another process, connection kept open',
  open: async ({ workerCore, maxPayloadBytes }) => {
    const server = fork(join(import.meta.dirname, 'http-server.js'), [String(maxPayloadBytes)])
    const [port] = (await once(server, 'message')) as [number]
    pin(server.pid!, workerCore)
    return session(server, port)
  },
}

function session(server: ChildProcess, port: number): Session {
  const agent = new Agent({ keepAlive: true, maxSockets: 1 })
  let input: Uint8Array = new Uint8Array(0)
  let output: Uint8Array = new Uint8Array(0)
  const post = (): Promise<void> =>
    new Promise((resolve, reject) => {
      const headers = {
        'content-type': 'application/octet-stream',
        'content-length': input.byteLength,
      }
      const sent = request(
        { host: '127.0.0.1', port, path: '/echo', method: 'POST', agent, headers },
        (response) => {
          const chunks: Buffer[] = []
          response.on('data', (chunk: Buffer) => chunks.push(chunk))
          response.on('end', () => {
            output = chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks)
            if (response.statusCode === 200) resolve()
            else reject(new Error(`the server answered ${response.statusCode}: ${String(output)}`))
          })
          response.on('error', reject)
        },
      )
      sent.on('error', reject)
      sent.end(input)
    })
  return {
    operation: { kind: 'async', call: post },
    use: (payload) => {
      input = payload
    },
    result: () => output,
    close: async () => {
      agent.destroy()
      const exited = once(server, 'exit')
      server.disconnect()
      await exited
    },
  }
}
