// Unary calls with @grpc/grpc-js, one HTTP/2 connection per server.
import { Client, credentials } from '@grpc/grpc-js'

import type { AsyncOperation } from '../timing.js'
import type { Driver } from './driver.js'
import { methodOf, unlimited } from './grpc-method.js'
import { startServers } from './servers.js'

export const grpc: Driver = {
  description: 'unary call with @grpc/grpc-js to another process',
  kind: 'peer',
  open: async (options, step) => {
    const servers = await startServers('grpc', options, step)
    const clients = servers.ports.map(
      (port) => new Client(`127.0.0.1:${port}`, credentials.createInsecure(), unlimited),
    )
    const { path, requestSerialize, responseDeserialize } = methodOf(options.function)
    let next = 0
    let input = Buffer.alloc(0)
    const call = (): Promise<Uint8Array> =>
      new Promise((resolve, reject) => {
        const client = clients[next++ % clients.length]!
        client.makeUnaryRequest(
          path,
          requestSerialize,
          responseDeserialize,
          input,
          (error, answer) => {
            if (error !== null) return reject(error)
            resolve(answer!)
          },
        )
      })
    const operation: AsyncOperation = { kind: 'async', call, output: input }
    return {
      operation,
      use: (payload) => {
        input = Buffer.from(payload)
      },
      result: () => operation.output,
      servers: servers.pids,
      close: async () => {
        for (const client of clients) client.close()
        await servers.close()
      },
    }
  },
}
