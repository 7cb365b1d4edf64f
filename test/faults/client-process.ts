// A client that can be killed, stopped or cut off. Does what remote-client.ts asks for.
import { Client, type Functions, type Lease, type LeaseOptions } from '../../lib/index.js'
import { invoke, patienceMs, Traffic, type Outcome } from './calls.js'
import { nativePackage } from './packages.js'
import { deployOptions } from './stage.js'

export type Order =
  | { open: { url: string; lease: LeaseOptions } }
  | { call: { name: string; input: number[]; timeoutMs: number } }
  | 'startTraffic'
  | 'stopTraffic'
  | 'close'
export type Answer = { id: number; done: unknown } | { id: number; failed: string }
export interface Notice {
  event: string
}
export interface TrafficReport {
  answered: number
  longestGapMs: number
  failures: Outcome[]
}

let client: Client | undefined
let lease: Lease | undefined
let functions: Functions | undefined
let traffic: Traffic | undefined

async function follow(order: Order): Promise<unknown> {
  if (order === 'stopTraffic') {
    const { answered, longestGapMs, failures } = await traffic!.stop()
    return { answered, longestGapMs, failures } satisfies TrafficReport
  }
  if (order === 'startTraffic') {
    traffic = new Traffic(functions!)
    return undefined
  }
  if (order === 'close') return client?.close()
  if ('open' in order) {
    client = await Client.connect(order.open.url, { timeoutMs: patienceMs })
    lease = await client.lease(order.open.lease)
    const tell = (event: string): void => void process.send?.({ event } satisfies Notice)
    lease.on('ended', (reason) => tell(`ended: ${reason}`))
    lease.on('renewed', () => tell('renewed'))
    lease.on('renewalFailed', () => tell('renewalFailed'))
    functions = await lease.deploy(nativePackage(), { ...deployOptions, provider: 'shm' })
    return lease.id
  }
  const { name, input, timeoutMs } = order.call
  return invoke(functions!, name, Uint8Array.from(input), { timeoutMs })
}

process.on('message', ({ id, order }: { id: number; order: Order }) => {
  follow(order).then(
    (done) => answer({ id, done }, order),
    (error: unknown) => answer({ id, failed: String(error) }, order),
  )
})
// Nobody is left to work for.
process.on('disconnect', () => process.exit())

function answer(message: Answer, order: Order): void {
  process.send?.(message, () => order === 'close' && process.exit())
}
