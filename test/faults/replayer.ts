// A proxy in front of a resource manager that repeats what it hears: every request that changes
// something is sent on twice at once, and can be sent again long after.
import { createServer, request as send, type IncomingMessage, type Server } from 'node:http'
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'

interface Recorded {
  method: string
  path: string
  headers: IncomingMessage['headers']
  body: Buffer
}

export interface Answer {
  request: string
  status: number
}

export class Replayer {
  /** What the copies were answered with. */
  readonly answers: Answer[] = []
  readonly #target: string
  readonly #server: Server
  readonly #recorded: Recorded[] = []

  private constructor(target: string) {
    this.#target = target
    this.#server = createServer((incoming, outgoing) => {
      // It repeats requests of HTTP: whoever would have a session is told that there is none.
      if (incoming.headers.upgrade !== undefined) {
        outgoing.writeHead(501).end()
        return
      }
      this.#handle(incoming)
        .then((answer) => {
          outgoing.writeHead(answer.statusCode ?? 502, answer.headers)
          answer.pipe(outgoing)
          outgoing.on('close', () => answer.destroy())
          answer.on('error', () => outgoing.destroy())
        })
        .catch(() => outgoing.destroy())
    })
  }

  static async start(target: string): Promise<Replayer> {
    const replayer = new Replayer(target)
    replayer.#server.listen(0, '127.0.0.1')
    await once(replayer.#server, 'listening')
    return replayer
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`
  }

  /** All that was ever recorded, once more and in order. */
  async replay(): Promise<void> {
    for (const recorded of [...this.#recorded]) await this.#repeat(recorded)
  }

  async #handle(incoming: IncomingMessage): Promise<IncomingMessage> {
    const chunks: Buffer[] = []
    for await (const chunk of incoming) chunks.push(chunk as Buffer)
    const { method = 'GET', url: path = '/', headers } = incoming
    const recorded = { method, path, headers, body: Buffer.concat(chunks) }
    const answer = await this.#forward(recorded)
    if (method !== 'GET') {
      this.#recorded.push(recorded)
      await this.#repeat(recorded)
    }
    return answer
  }

  async #repeat(recorded: Recorded): Promise<void> {
    const answer = await this.#forward(recorded)
    answer.resume()
    const request = `${recorded.method} ${recorded.path}`
    this.answers.push({ request, status: answer.statusCode ?? 0 })
  }

  async #forward({ method, path, headers, body }: Recorded): Promise<IncomingMessage> {
    const outgoing = send(new URL(path, this.#target), { method, headers, agent: false })
    outgoing.end(body)
    const [answer] = (await once(outgoing, 'response')) as [IncomingMessage]
    return answer
  }
}
