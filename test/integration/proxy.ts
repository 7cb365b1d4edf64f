// A wire that a test can cut: TCP between a client and a manager.
import { once } from 'node:events'
import { connect, createServer, type AddressInfo, type Socket } from 'node:net'

export interface Proxy {
  url: string
  /** What becomes of the bytes that the manager sends: `drop` cuts the connection instead, `hold`
   * keeps them until it is `pass` again. */
  answers: 'pass' | 'drop' | 'hold'
  /** Connections on which the manager has answered. */
  answered: number
  /** Lets go of what is held. */
  pass(): void
  close(): Promise<void>
}

export async function startProxy(target: string): Promise<Proxy> {
  const { hostname, port } = new URL(target)
  const open = new Set<Socket>()
  const held: (() => void)[] = []
  const server = createServer((client) => {
    const manager = connect(Number(port), hostname)
    for (const [socket, other] of [
      [client, manager],
      [manager, client],
    ] as const) {
      open.add(socket)
      socket.on('error', () => undefined) // it was cut; `close` follows
      socket.on('close', () => {
        open.delete(socket)
        other.destroy()
      })
    }
    client.on('data', (bytes) => manager.write(bytes))
    manager.on('data', (bytes) => {
      proxy.answered += 1
      if (proxy.answers === 'drop') client.destroy()
      else if (proxy.answers === 'hold') held.push(() => client.write(bytes))
      else client.write(bytes)
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const proxy: Proxy = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    answers: 'pass',
    answered: 0,
    pass() {
      proxy.answers = 'pass'
      for (const write of held.splice(0)) write()
    },
    async close() {
      for (const socket of open) socket.destroy()
      server.close()
      await once(server, 'close')
    },
  }
  return proxy
}
