// Many calls of one function, in lanes: one `Waiting` stands for all calls that follow each other in a
// slot. One for each call is a third of what short calls cost.
import { invalidArgument } from '../errors.js'
import type { AwaitedCalls } from './awaited-calls.js'
import type { Records } from './records.js'
import { waitingCall, type Request, type Waiting } from './waiting.js'

const noInput = new Uint8Array(0)

export interface Many {
  count: number
  /** Makes `call` the one number `index`; throws if that cannot be sent. */
  begin(call: Waiting, index: number): void
  /** Takes its result, of `length` bytes. */
  took(call: Waiting, length: number): void
  /** Results are written to the caller's memory. */
  records?: Records
}

/** Resolves when all are done. The first failure rejects: at once, or if results are written to the
 * caller's memory, as soon as no other call is on its way there. No further call is sent. */
export function callMany(
  awaited: AwaitedCalls,
  request: Request,
  concurrency: number,
  { count, begin, took, records }: Many,
): Promise<void> {
  if (!Number.isInteger(concurrency) || concurrency < 1) {
    throw invalidArgument('concurrency', concurrency, 'a whole number of at least 1')
  }
  return new Promise((resolve, reject) => {
    const lanes: Waiting[] = []
    let next = 0
    let open = 1 // until all lanes have begun
    let failure: { error: unknown } | undefined
    const fail = (error: unknown): void => {
      next = count
      failure ??= { error }
      if (records === undefined) reject(error as Error)
      for (const lane of lanes) awaited.withdraw(lane)
    }
    const end = (): void => {
      open -= 1
      if (open > 0) return
      if (failure === undefined) resolve()
      else reject(failure.error as Error)
    }
    const takeNext = (call: Waiting): boolean => {
      if (next >= count) return false
      try {
        begin(call, next)
      } catch (error) {
        fail(error)
        return false
      }
      call.tag = next++
      return true
    }
    const goOn = (call: Waiting, length: number): boolean => {
      took(call, length)
      return takeNext(call)
    }
    const failed = (error: unknown): void => {
      fail(error)
      end()
    }
    while (lanes.length < concurrency) {
      const call = waitingCall(request, noInput, end, failed)
      if (!takeNext(call)) break
      call.goOn = goOn
      call.records = records
      lanes.push(call)
      open += 1
      awaited.begin(call)
    }
    end()
    awaited.sendQueued()
  })
}
