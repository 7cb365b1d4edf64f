// A process that measures one driver and nothing else, so that no other code shapes how its own is
// compiled. Started and asked by driver-process.ts.
import { drivers, type DriverName } from './drivers/index.js'
import type { OpenOptions, Session } from './drivers/driver.js'
import { makeInput, verify, type FunctionName } from './functions/functions.js'
import { cpuNsOf, ownCpuNs } from './processes.js'
import {
  measureLatency,
  measureRate,
  once,
  type LatencyRound,
  type Limits,
  type RateRound,
} from './timing.js'

/** What the parent may ask, and what it gets. */
export interface Commands {
  open: { ask: { driver: DriverName; options: OpenOptions }; answer: { servers: number[] } }
  /** Calls one after the other. */
  latency: { ask: Limits & { payloadBytes: number }; answer: LatencyRound }
  /** Many calls at a time; the CPU time is that of this process and of the other side. */
  rate: {
    ask: Limits & { payloadBytes: number; depth: number; others: readonly number[] }
    answer: RateRound & { cpuNs: number }
  }
  /** From nothing to the first result and back to nothing. */
  cold: {
    ask: { driver: DriverName; options: OpenOptions; payloadBytes: number }
    answer: Part[]
  }
  close: { ask: null; answer: null }
}

/** A part of a cold start, and how long it took. */
export interface Part {
  name: string
  ns: number
}

export type Request = {
  [Name in keyof Commands]: { command: Name; ask: Commands[Name]['ask'] }
}[keyof Commands]
export type Reply = { answer: unknown } | { failed: string }

let session: Session | undefined
let opened: FunctionName = 'echo'

async function handle(request: Request): Promise<unknown> {
  switch (request.command) {
    case 'open': {
      const { driver, options } = request.ask
      opened = options.function
      session = await drivers[driver].open(options, () => undefined)
      return { servers: [...session.servers] } satisfies Commands['open']['answer']
    }
    case 'latency':
      return checked(request.ask.payloadBytes, ({ operation }) =>
        measureLatency(operation, request.ask),
      )
    case 'rate':
      return checked(request.ask.payloadBytes, async ({ operation, servers }) => {
        const cpuNs = (): number => ownCpuNs() + cpuNsOf([...servers, ...request.ask.others])
        let before = 0
        const round = await measureRate(operation, request.ask.depth, request.ask, () => {
          before = cpuNs()
        })
        return { ...round, cpuNs: cpuNs() - before }
      })
    case 'cold':
      return coldStart(request.ask)
    case 'close':
      await session?.close()
      return null
  }
}

async function checked<T>(payloadBytes: number, measure: (session: Session) => Promise<T>) {
  if (session === undefined) throw new Error('nothing was opened')
  const input = makeInput(opened, payloadBytes)
  session.use(input)
  const measured = await measure(session)
  verify(opened, input, session.result())
  return measured
}

async function coldStart({
  driver,
  options,
  payloadBytes,
}: Commands['cold']['ask']): Promise<Part[]> {
  const input = makeInput(options.function, payloadBytes)
  const parts: Part[] = []
  let last = 0n
  const step = (name: string): void => {
    const now = process.hrtime.bigint()
    // Reading and hashing the code before it starts is no part of it.
    if (name !== 'begin') parts.push({ name, ns: Number(now - last) })
    last = now
  }
  const cold = await drivers[driver].open(options, step)
  try {
    cold.use(input)
    await once(cold.operation)
    step('first call')
    verify(options.function, input, cold.result())
  } finally {
    await cold.close()
  }
  return parts
}

process.on('message', (request: Request) => {
  handle(request).then(
    // Ends when its parent says so, also after `close`: an exit could overtake the answer.
    (answer) => process.send!({ answer } satisfies Reply),
    (error: unknown) =>
      process.send!({
        failed: error instanceof Error ? (error.stack ?? error.message) : String(error),
      } satisfies Reply),
  )
})
process.on('disconnect', () => process.exit(1))
