// One worker: a process that runs a tenant's functions on one core. It is started before it is needed,
// or when it is, and then given its work, once. Everything that it sends is hostile until checked. It
// is configured through its stdin (nothing secret in argv or environment), which stays open: its end
// tells the worker that the manager is gone.
import { rmSync } from 'node:fs'
import type { Socket } from 'node:net'
import type { Logger } from '../../lib/control/log.js'
import { RfaasError } from '../../lib/errors.js'
import type { Child, ChildExit } from './child.js'
import type { Enclosure } from './enclosure.js'
import { RateLimit, readLines } from './lines.js'
import type { Program } from './paths.js'
import {
  encodeLines,
  spawnConfined,
  type Assignment,
  type Confined,
  type PlaceSettings,
} from './sandbox.js'
import { processCpuMs } from './usage.js'
import { parseWorkerEvent, type ServedCalls, type WorkerEvent } from './worker-events.js'

// 4096 names of 127 characters fit, JSON around them included.
const maxEventBytes = 1024 * 1024
const maxEventsPerSecond = 500
const maxOutputLineBytes = 8 * 1024
const maxOutputLinesPerSecond = 200
// After the exit, for what is still in the pipes. A process that the worker left behind may hold
// their other ends open for ever.
const drainMs = 250

// For a worker that is not needed, until it is killed.
const dismissMs = 1000

const inheritedEnvironment = ['PATH', 'LANG', 'TZ']

export interface WorkerSpec {
  program: Program
  enclosure: Enclosure
  place: PlaceSettings
  logger: Logger
}

export interface Work {
  index: number
  assignment: Assignment
  /** `key=value` lines on its stdin. */
  configuration: Readonly<Record<string, string | number>>
  readyTimeoutMs: number
  /** Calls that it has answered, as it says. */
  served(calls: ServedCalls): void
  logger: Logger
}

export interface WorkerReady {
  address: string
  functions: readonly string[]
}

export interface WorkerEnd {
  /** One sentence. */
  cause: string
  /** The request that was running. */
  requestId: string | undefined
  /** Requests with greater ids did not run; undefined: nobody knows. */
  lastStarted: string | undefined
  /** Asked for with `stop` or `kill`. */
  expected: boolean
  cpuMs: number
}

export class WorkerProcess {
  /** Rejects when the worker ends, or is ended, before it was ready. */
  readonly ready: Promise<WorkerReady>
  /** Resolves when the process is gone and measured; never rejects. */
  readonly ended: Promise<WorkerEnd>

  /** Where it listens; empty for RDMA. */
  readonly socket: string

  readonly #enclosure: Enclosure
  readonly #confined: Confined
  readonly #child: Child
  readonly #events = new RateLimit(maxEventsPerSecond)
  #logger: Logger
  #work: Work | undefined
  #readyTimer: NodeJS.Timeout | undefined
  /** Of its enclosure and of itself, when it was given its work. */
  #outOfMemory = 0
  #cpuMsBefore = 0
  #cpuMsSeen = 0
  #settleReady!: { resolve: (ready: WorkerReady) => void; reject: (error: RfaasError) => void }
  #isReady = false
  #expected = false
  #gone = false
  #failure: { cause: string; code: 'ERR_RFAAS_PACKAGE' | 'ERR_RFAAS_EXECUTOR' } | undefined
  #timedOut = false
  #functions: readonly string[] = []
  #lastStarted: string | undefined
  #running: { function: string | undefined; requestId: string | undefined } | undefined

  constructor({ program, enclosure, place, logger }: WorkerSpec) {
    this.socket = place.socket ?? ''
    this.#enclosure = enclosure
    this.#logger = logger
    this.ready = new Promise((resolve, reject) => (this.#settleReady = { resolve, reject }))
    // Whoever only waits for the end must not die of the other promise.
    this.ready.catch(() => undefined)
    const env = environment(enclosure.temporaryFolder)
    this.#confined = spawnConfined(program, place, env, enclosure.held)
    this.#child = this.#confined.child
    this.ended = this.#watchEnd()
    this.#logOutput(this.#pipe(1), 'stdout')
    this.#logOutput(this.#pipe(2), 'stderr')
    this.#readEvents(this.#pipe(3))
  }

  /** Once. */
  begin(work: Work): void {
    this.#work = work
    this.#logger = work.logger
    this.#outOfMemory = this.#enclosure.outOfMemory
    // What came before is nobody's.
    if (this.#enclosure.cpuMs === undefined) this.#cpuMsBefore = this.cpuMs
    this.#readyTimer = setTimeout(() => {
      this.#fail(`was not ready within ${work.readyTimeoutMs} ms`)
    }, work.readyTimeoutMs)
    // It reads this when the launcher lets it go: the assignment is done by then.
    this.#pipe(0).write(encodeConfiguration(work.configuration))
    this.#confined.assign(work.assignment)
  }

  /** It has ended, though its last words may still be on their way. */
  get gone(): boolean {
    return this.#gone
  }

  get pid(): number {
    return this.#child.pid
  }

  /** So far; the whole is in `ended`. */
  get cpuMs(): number {
    if (this.#gone) return 0
    // A process below that ends while we look may be missing for once.
    this.#cpuMsSeen = Math.max(this.#cpuMsSeen, processCpuMs(this.#child.pid) ?? 0)
    return this.#cpuMsSeen - this.#cpuMsBefore
  }

  /** Once it has its work: new calls are refused from now on, as the lease is being revoked. Running ones
   * finish. */
  drain(): void {
    if (!this.#gone) this.#pipe(0).write('drain\n')
  }

  /** Lets the running call finish, for at most `graceMs`; then the process is killed. */
  async stop(graceMs: number): Promise<WorkerEnd> {
    this.#expected = true
    if (this.#isReady && graceMs > 0) this.#pipe(0).write('stop\n')
    else this.kill()
    const timer = setTimeout(() => this.kill(), graceMs)
    const end = await this.ended
    clearTimeout(timer)
    return end
  }

  /** One that was not given any work ends, in order. */
  async dismiss(): Promise<void> {
    this.#expected = true
    this.#confined.dismiss()
    const timer = setTimeout(() => this.kill(), dismissMs)
    await this.ended
    clearTimeout(timer)
  }

  kill(): void {
    this.#expected = true
    this.#child.kill()
  }

  #pipe(descriptor: 0 | 1 | 2 | 3): Socket {
    return this.#child.pipes[descriptor]!
  }

  #readEvents(stream: Socket): void {
    readLines(stream, maxEventBytes, {
      line: (text) => this.#takeLine(text),
      tooLong: () => {
        this.#fail(`sent an event longer than ${maxEventBytes} bytes`)
        return 'end'
      },
    })
  }

  #takeLine(text: string): void {
    if (this.#failure !== undefined) return
    if (!this.#events.take()) {
      this.#fail(`sent more than ${maxEventsPerSecond} events in a second`)
      return
    }
    const event = parseWorkerEvent(text)
    if (typeof event === 'string') this.#fail(event)
    else this.#take(event)
  }

  #take(event: WorkerEvent): void {
    const logger = this.#logger
    switch (event.event) {
      case 'ready':
        if (this.#work === undefined || this.#isReady) {
          return this.#fail('said at the wrong time that it is ready')
        }
        clearTimeout(this.#readyTimer)
        this.#isReady = true
        this.#functions = event.functions
        this.#settleReady.resolve({ address: event.address, functions: event.functions })
        return
      case 'unconfined': {
        const { layer, message } = event
        const cause = `cannot be confined (${oneLine(layer)}): ${oneLine(message)}`
        this.#failure ??= { cause, code: 'ERR_RFAAS_EXECUTOR' }
        return
      }
      case 'error':
        this.#failure ??= { cause: `failed: ${oneLine(event.message)}`, code: 'ERR_RFAAS_PACKAGE' }
        return
      case 'connected':
      case 'disconnected':
        logger.debug(`client ${event.event}`)
        return
      case 'served':
        this.#work?.served(event)
        return
      case 'refused':
        logger.warn({ reason: event.reason }, 'refused a client')
        return
      case 'last-started':
        this.#lastStarted = event.requestId
        return
      case 'timeout':
        this.#timedOut = true
        this.#setRunning(event.function, event.requestId)
        return
      case 'running':
        this.#setRunning(event.function, event.requestId)
    }
  }

  /** A name is repeated to people only if it is one of the package's functions. */
  #setRunning(name: string | undefined, request: string | undefined): void {
    const known = name !== undefined && this.#functions.includes(name)
    this.#running = { function: known ? name : undefined, requestId: request }
  }

  #logOutput(stream: Socket, name: 'stdout' | 'stderr'): void {
    const lines = new RateLimit(maxOutputLinesPerSecond)
    readLines(stream, maxOutputLineBytes, {
      line: (text) => {
        if (!lines.take()) return
        const dropped = lines.takeRefused()
        this.#logger.info({ stream: name, text, ...(dropped > 0 && { dropped }) }, 'worker output')
      },
      tooLong: () => 'cut',
    })
  }

  /** The worker broke the protocol or a limit: it ends, and `cause` is why. */
  #fail(cause: string): void {
    this.#failure ??= { cause, code: 'ERR_RFAAS_EXECUTOR' }
    this.#child.kill()
  }

  async #watchEnd(): Promise<WorkerEnd> {
    const exit = await this.#child.exited
    this.#gone = true
    clearTimeout(this.#readyTimer)
    await this.#drain()
    if (this.socket !== '') rmSync(this.socket, { force: true })
    const end: WorkerEnd = {
      cause: `${this.#name} ${this.#causeOf(exit)}`,
      requestId: this.#running?.requestId,
      lastStarted: this.#lastStarted,
      expected: this.#expected,
      cpuMs: Math.max(0, exit.cpuMs - this.#cpuMsBefore),
    }
    const code = this.#failure?.code ?? 'ERR_RFAAS_EXECUTOR'
    this.#settleReady.reject(new RfaasError(code, end.cause))
    return end
  }

  /** What the worker said last is still in the pipe when its exit is reported. */
  async #drain(): Promise<void> {
    const streams = [this.#pipe(1), this.#pipe(2), this.#pipe(3)]
    const timer = setTimeout(() => streams.forEach((s) => s.destroy()), drainMs)
    await Promise.all(
      streams.map((s) =>
        s.closed || s.destroyed ? undefined : new Promise((resolve) => s.once('close', resolve)),
      ),
    )
    clearTimeout(timer)
    this.#pipe(0).destroy()
  }

  get #name(): string {
    return this.#work === undefined ? 'a waiting worker' : `worker ${this.#work.index}`
  }

  #causeOf({ code, signal }: ChildExit): string {
    const name = this.#running?.function
    if (this.#failure !== undefined) return this.#failure.cause
    if (this.#timedOut) return `ran past its deadline${name === undefined ? '' : ` in '${name}'`}`
    const place = name === undefined ? '' : ` in function '${name}'`
    if (signal === 'SIGKILL' && this.#enclosure.outOfMemory > this.#outOfMemory) {
      return `was killed by SIGKILL, because the lease is out of memory${place}`
    }
    if (signal !== null) return `was killed by ${signal}${place}`
    return `exited with code ${code}${place}`
  }
}

function environment(folder: string): Record<string, string> {
  const kept: Record<string, string> = { HOME: folder, TMPDIR: folder }
  for (const key of inheritedEnvironment) {
    const value = process.env[key]
    if (value !== undefined) kept[key] = value
  }
  return kept
}

function encodeConfiguration(configuration: Readonly<Record<string, string | number>>): string {
  const entries = Object.entries(configuration)
  return `${entries.map(([key, value]) => encodeLines(key, [value])).join('')}\n`
}

function oneLine(text: string): string {
  return text.replace(/[\u0000-\u001f\u007f\u2028\u2029]+/g, ' ').trim()
}
