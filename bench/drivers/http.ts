// Functions behind HTTP, as fast as Node makes them without a gateway: a server in its own process,
// connections that are kept open. The client is node:http with an agent: the global fetch took four
// times as long for small payloads and twice as long for large ones.
import { Agent, request } from 'node:http'

import type { AsyncOperation } from '../timing.js'
import type { Driver, OpenOptions, Session } from './driver.js'
import { startServers, type Servers } from './servers.js'

export const fastify: Driver = {
  description: 'POST to a Fastify server in another process, connections kept open',
  kind: 'peer',
  open: async (options, step) => session(await startServers('fastify', options, step), options),
}

export const functionsFramework: Driver = {
  description: 'POST to @google-cloud/functions-framework, connections kept open',
  kind: 'peer',
  open: async (options, step) =>
    session(await startServers('functions-framework', options, step), options),
}

function session(servers: Servers, options: OpenOptions): Session {
  const { ports } = servers
  const agent = new Agent({ keepAlive: true, maxSockets: Math.max(1, options.depth) })
  const path = `/${options.function}`
  let next = 0
  let input: Uint8Array = new Uint8Array(0)
  const post = (): Promise<Uint8Array> =>
    new Promise((resolve, reject) => {
      const port = ports[next++ % ports.length]
      const headers = {
        'content-type': 'application/octet-stream',
        'content-length': input.byteLength,
      }
      const sent = request(
        { host: '127.0.0.1', port, path, method: 'POST', agent, headers },
        (response) => {
          const chunks: Buffer[] = []
          response.on('data', (chunk: Buffer) => chunks.push(chunk))
          response.on('end', () => {
            const output = chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks)
            if (response.statusCode === 200) resolve(output)
            else reject(new Error(`the server answered ${response.statusCode}: ${String(output)}`))
          })
          response.on('error', reject)
        },
      )
      sent.on('error', reject)
      sent.end(input)
    })
  const operation: AsyncOperation = { kind: 'async', call: post, output: input }
  return {
    operation,
    use: (payload) => {
      input = payload
    },
    result: () => operation.output,
    servers: servers.pids,
    close: async () => {
      agent.destroy()
      await servers.close()
    },
  }
}
