// A process that measures one driver and nothing else, so that no other code shapes how its own is
// compiled. Started and asked by driver-process.ts.
import { drivers, type DriverName } from './drivers/index.js'
import { randomPayload, type DriverOptions, type Session } from './drivers/driver.js'
import { measure, type Limits, type Round } from './timing.js'

export interface OpenRequest {
  open: DriverName
  options: DriverOptions
}

export interface MeasureRequest extends Limits {
  payloadBytes: number
}

export type Request = OpenRequest | MeasureRequest | 'close'
export type Reply = { done: Round | null } | { failed: string }

let session: Session | undefined

async function handle(request: Request): Promise<Round | null> {
  if (request === 'close') {
    await session?.close()
    return null
  }
  if ('open' in request) {
    session = await drivers[request.open].open(request.options)
    return null
  }
  if (session === undefined) throw new Error('nothing was opened')
  const payload = randomPayload(request.payloadBytes)
  session.use(payload)
  const round = await measure(session.operation, request)
  // Fast and wrong is not fast.
  if (Buffer.compare(session.result(), payload) !== 0) {
    throw new Error(`an echo of ${request.payloadBytes} bytes brought something else back`)
  }
  return round
}

process.on('message', (request: Request) => {
  handle(request).then(
    (done) => process.send!({ done } satisfies Reply, () => request === 'close' && process.exit()),
    (error: unknown) =>
      process.send!({
        failed: error instanceof Error ? (error.stack ?? error.message) : String(error),
      } satisfies Reply),
  )
})
