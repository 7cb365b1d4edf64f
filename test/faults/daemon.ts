// A manager in a process of its own, as an operator runs it.
import assert from 'node:assert/strict'
import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { createInterface } from 'node:readline'

import { packageRoot } from '../../lib/package-root.js'

const startWithinMs = 30_000
const maxLogChars = 64 * 1024

export interface DaemonOptions {
  /** What stands before the command: `nsenter ...`. It must become the manager, not its parent. */
  wrap?: readonly string[]
  env?: Readonly<Record<string, string>>
}

/** One after the other, in good order. */
export async function endAll(daemons: readonly Daemon[]): Promise<void> {
  for (const daemon of daemons) {
    if (!daemon.running) continue
    assert.equal(await daemon.end('SIGTERM'), 0, `a manager ended badly: ${daemon.log}`)
  }
}

export type Ended = number | NodeJS.Signals | null

export class Daemon {
  readonly #child: ChildProcess
  readonly #ended: Promise<Ended>
  #log = ''
  #url = ''

  private constructor(args: readonly string[], { wrap = [], env = {} }: DaemonOptions) {
    const main = join(packageRoot(), 'dist/lib/cli/main.js')
    const [command = '', ...rest] = [...wrap, process.execPath, main, ...args]
    this.#child = spawn(command, rest, {
      env: { ...process.env, ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    this.#child.stderr?.on('data', (chunk: Buffer) => {
      this.#log = (this.#log + chunk.toString()).slice(-maxLogChars)
    })
    this.#ended = once(this.#child, 'close').then(([code, by]) => (code ?? by) as Ended)
  }

  /** `args` of the command `rfaas`. Resolves when the manager has said where it listens; rejects
   * with its log when it ends before. */
  static async start(args: readonly string[], options: DaemonOptions = {}): Promise<Daemon> {
    const daemon = new Daemon(args, options)
    const ended = await daemon.#started()
    if (ended === undefined) return daemon
    throw new Error(`${args[0]} ended with ${ended}: ${daemon.log}`)
  }

  /** The same, of a manager that is expected to refuse: how it ended. */
  static async startAndEnd(
    args: readonly string[],
    options: DaemonOptions = {},
  ): Promise<{ ended: Ended; log: string }> {
    const daemon = new Daemon(args, options)
    const ended = await daemon.#started()
    if (ended !== undefined) return { ended, log: daemon.log }
    await daemon.end('SIGKILL')
    return { ended: null, log: daemon.log }
  }

  get url(): string {
    return this.#url
  }

  get port(): string {
    return new URL(this.#url).port
  }

  get pid(): number {
    return this.#child.pid ?? 0
  }

  get running(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null
  }

  /** What it wrote to standard error, the end of it. */
  get log(): string {
    return this.#log
  }

  /** Its last warnings and errors. */
  get complaints(): string[] {
    return this.#log
      .split('\n')
      .filter((line) => /"level":"(warn|error|fatal)"/.test(line))
      .slice(-8)
  }

  signal(name: NodeJS.Signals): void {
    this.#child.kill(name)
  }

  /** Sends the signal and waits for the end. */
  end(name: NodeJS.Signals): Promise<Ended> {
    this.signal(name)
    return this.#ended
  }

  /** Undefined: it runs. */
  async #started(): Promise<Ended | undefined> {
    const line = once(createInterface({ input: this.#child.stdout! }), 'line') as Promise<[string]>
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<never>((_resolve, reject) => {
      timer = setTimeout(() => {
        this.signal('SIGKILL')
        reject(new Error(`a manager said nothing for ${startWithinMs} ms: ${this.#log}`))
      }, startWithinMs)
    })
    try {
      const first = await Promise.race([line, this.#ended, late])
      if (!Array.isArray(first)) return first
      this.#url = first[0]
      return undefined
    } finally {
      clearTimeout(timer)
    }
  }
}
