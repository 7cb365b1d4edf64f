// One worker without an executor manager, and a client that is connected to it: the test itself
// says on the worker's stdin what a manager would say.
import { spawn, type ChildProcess } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import type { Readable, Writable } from 'node:stream'
import { afterEach } from 'vitest'

import { workerProgram } from '../../executor-manager/src/paths.js'
import { Functions } from '../../lib/client/functions.js'
import type { Runtime, WorkerEndpoint } from '../../lib/control/schemas.js'
import { native } from '../../lib/native.js'
import { nativePackage } from './support.js'

export const slots = 4
const bytes = 4096

export interface WorkerEvent {
  event: string
  reason?: string
  functions?: string[]
}

export class LoneWorker {
  readonly address: string
  /** What it reported so far. */
  readonly events: WorkerEvent[] = []
  readonly process: ChildProcess
  /** The names of its functions. */
  readonly ready: Promise<readonly string[]>
  /** Rejects unless it ends by itself and without an error. */
  readonly ended: Promise<void>
  readonly #folder: string
  readonly #runtime: Runtime
  readonly #ticket = randomBytes(32).toString('hex')
  #functions: Functions[] = []

  /** With `held` it waits to be let go, as one that a launcher starts; `orders` are on its stdin behind the
   * configuration. */
  constructor(runtime: Runtime, path: string, { held = false, orders = '' } = {}) {
    this.#runtime = runtime
    this.#folder = mkdtempSync(join(tmpdir(), 'rfaas-worker-'))
    this.address = join(this.#folder, 'worker.sock')
    const { command, args } = workerProgram(runtime)
    this.process = spawn(command, [...args, ...(held ? ['--go-fd=4'] : [])], {
      stdio: ['pipe', 'ignore', 'inherit', 'pipe', held ? 'pipe' : 'ignore'],
    })
    this.ready = new Promise((resolve, reject) => {
      createInterface({ input: this.process.stdio[3] as Readable }).on('line', (line) => {
        const event = JSON.parse(line) as WorkerEvent
        this.events.push(event)
        if (event.event === 'ready') resolve(event.functions ?? [])
      })
      this.process.once('exit', () => reject(new Error('the worker ended before it was ready')))
    })
    this.ready.catch(() => undefined)
    this.ended = new Promise((resolve, reject) => {
      this.process.once('exit', (code, signal) => {
        if (code === 0) resolve()
        else reject(new Error(`the worker ended with ${code ?? signal}`))
      })
    })
    this.ended.catch(() => undefined)
    const configuration = {
      provider: 'shm',
      device: '',
      address: this.address,
      ticket: this.#ticket,
      package: path,
      worker: 0,
      slots,
      payload_bytes: bytes,
      output_bytes: bytes,
      hot_timeout_us: 0,
    }
    const lines = Object.entries(configuration).map(([key, value]) => `${key}=${value}\n`)
    this.say(`${lines.join('')}\n${orders}`)
  }

  /** What a launcher does when all limits hold; without a byte, that it ends. */
  letGo(byte: string): void {
    ;(this.process.stdio[4] as Writable).end(byte)
  }

  /** A path in a folder that goes with the worker. */
  file(name: string): string {
    return join(this.#folder, name)
  }

  /** On its stdin, as it stands. */
  say(text: string): void {
    this.process.stdin?.write(text)
  }

  /** What an executor manager says of it. */
  endpoint(worker = 0): WorkerEndpoint {
    return { worker, core: worker, address: this.address, ticket: this.#ticket }
  }

  /** A client of this worker and `others`. */
  async connect(...others: LoneWorker[]): Promise<Functions> {
    const names = [...(await this.ready)]
    await Promise.all(others.map(({ ready }) => ready))
    const device = native.openDevice('shm', '')
    const functions = await Functions.connect(
      device,
      {
        id: 'x-0000000000000000',
        package: '0'.repeat(64),
        runtime: this.#runtime,
        provider: 'shm',
        functions: names,
        workers: [this, ...others].map((lone, index) => lone.endpoint(index)),
      },
      { slots, payloadBytes: bytes, outputBytes: bytes, hotWaitMs: 1 },
      () => true,
      () => Promise.resolve(device.close()),
    )
    this.#functions.push(functions)
    return functions
  }

  close(): void {
    for (const functions of this.#functions) functions.destroy()
    this.process.kill('SIGKILL')
    rmSync(this.#folder, { recursive: true })
  }
}

/** Starts native workers for the tests around the call; each ends with its test. */
export function nativeWorkers(): () => LoneWorker {
  const started: LoneWorker[] = []
  afterEach(() => {
    for (const worker of started.splice(0)) worker.close()
  })
  return () => {
    const worker = new LoneWorker('native', nativePackage())
    started.push(worker)
    return worker
  }
}
