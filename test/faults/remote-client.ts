// The scenario's side of client-process.ts: a client in a process of its own.
import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'

import type { LeaseOptions } from '../../lib/index.js'
import type { Answer, Notice, Order, TrafficReport } from './client-process.js'
import { outcomeTimeoutMs, patienceMs, slackMs, type Outcome } from './calls.js'
import { isAlive, until } from './proc.js'

export interface RemoteOptions {
  url: string
  lease: LeaseOptions
  /** What stands before the command: `nsenter ...`. It must become the client, not its parent. */
  wrap: readonly string[]
}

const startWithinMs = 30_000

export class RemoteClient {
  /** What became of its lease, in order: 'renewed', 'renewalFailed', 'ended: ...' */
  readonly events: string[] = []
  readonly #child: ChildProcess
  readonly #waiting = new Map<number, (answer: Answer) => void>()
  #orders = 0
  #lease = ''

  private constructor({ wrap }: RemoteOptions) {
    const script = join(import.meta.dirname, 'client-process.js')
    const [command, ...args] = [...wrap, process.execPath, script] as const
    this.#child = spawn(command, args, { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] })
    this.#child.on('message', (message: Answer | Notice) => {
      if ('event' in message) this.events.push(message.event)
      else this.#waiting.get(message.id)?.(message)
    })
  }

  /** Resolves when it has a lease and functions. */
  static async start(options: RemoteOptions): Promise<RemoteClient> {
    const remote = new RemoteClient(options)
    const { url, lease } = options
    remote.#lease = (await remote.#ask({ open: { url, lease } }, startWithinMs)) as string
    return remote
  }

  get lease(): string {
    return this.#lease
  }

  get pid(): number {
    return this.#child.pid ?? 0
  }

  async call(name: string, input: Uint8Array, timeoutMs = patienceMs): Promise<Outcome> {
    const order = { call: { name, input: [...input], timeoutMs } }
    return (await this.#ask(order, outcomeTimeoutMs(timeoutMs) + slackMs)) as Outcome
  }

  async startTraffic(): Promise<void> {
    await this.#ask('startTraffic', startWithinMs)
  }

  async stopTraffic(): Promise<TrafficReport> {
    return (await this.#ask('stopTraffic', outcomeTimeoutMs(patienceMs))) as TrafficReport
  }

  signal(name: NodeJS.Signals): void {
    this.#child.kill(name)
  }

  async kill(): Promise<void> {
    this.signal('SIGKILL')
    await until('the client is dead', () => !isAlive(this.pid))
  }

  /** Releases the lease and ends the process, if it is there. */
  async close(): Promise<void> {
    if (!this.#child.connected || !isAlive(this.pid)) return
    await this.#ask('close', startWithinMs)
    if (this.#child.exitCode === null) await once(this.#child, 'exit')
  }

  #ask(order: Order, withinMs: number): Promise<unknown> {
    const id = (this.#orders += 1)
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        reject(
          new Error(`the client did not answer within ${withinMs} ms: ${JSON.stringify(order)}`),
        )
      }, withinMs)
      this.#waiting.set(id, (answer) => {
        clearTimeout(timer)
        this.#waiting.delete(id)
        if ('failed' in answer) reject(new Error(answer.failed))
        else resolve(answer.done)
      })
      this.#child.send({ id, order })
    })
  }
}
