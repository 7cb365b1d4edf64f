// The floors: what the machine and the provider do without rfaas, in C++ and nothing else.
import { execFile, spawn, type ChildProcess } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'

import type { Cores } from './cores.js'
import { root } from './machine.js'
import { distributionOfCounts, type Distribution } from './statistics.js'
import type { RateRound } from './timing.js'

const run = promisify(execFile)
const timeoutMs = 120_000
const longestOutput = 256 * 1024 * 1024

export interface FloorOptions {
  cores: Cores
  provider?: string
  payloadBytes?: number
  samples: number
}

/** A ping-pong over the provider; with `echo` the other side copies what it received, as the function
 * does. */
export function roundTripFloor(options: FloorOptions & { echo?: boolean }): Promise<Distribution> {
  return times('round-trips', options, { echo: options.echo === true ? 1 : 0 })
}

/** The provider's own rate: `depth` messages in flight, each answered by one. */
export async function streamFloor(options: FloorOptions & { depth: number }): Promise<RateRound> {
  return JSON.parse(await output('stream', options, { depth: options.depth })) as RateRound
}

/** Two processes that sleep and wake each other: the floor of a warm call. */
export function eventfdFloor(options: FloorOptions): Promise<Distribution> {
  return times('eventfd', options, {})
}

/** One copy of the payload on the client's core. */
export function memcpyFloor(options: FloorOptions): Promise<Distribution> {
  return times('memcpy', options, {})
}

/** A noisy neighbour: copies memory on that core until it is killed. */
export function burn(core: number): ChildProcess {
  const args = ['burn', '--bytes', String(8 * 1024 * 1024), '--client-core', String(core)]
  return spawn(program(), args, { stdio: 'ignore' })
}

async function times(
  mode: string,
  options: FloorOptions,
  flags: Record<string, number>,
): Promise<Distribution> {
  const { times } = JSON.parse(await output(mode, options, flags)) as { times: [number, number][] }
  return distributionOfCounts(times)
}

async function output(
  mode: string,
  { cores, provider = 'shm', payloadBytes = 8, samples }: FloorOptions,
  flags: Record<string, number>,
): Promise<string> {
  const all = {
    provider,
    bytes: payloadBytes,
    count: samples,
    warmup: Math.ceil(samples / 4),
    'client-core': cores.client,
    'server-core': cores.workers[0],
    ...flags,
  }
  const args = Object.entries(all).flatMap(([name, value]) => [`--${name}`, String(value)])
  const { stdout } = await run(program(), [mode, ...args], {
    timeout: timeoutMs,
    maxBuffer: longestOutput,
  })
  return stdout
}

function program(): string {
  const kind = ['Release', 'Debug'].find((name) =>
    existsSync(join(root, 'build', name, 'rfaas-floor')),
  )
  if (kind === undefined) throw new Error('rfaas-floor is not built. Run: npm run build:native')
  return join(root, 'build', kind, 'rfaas-floor')
}
