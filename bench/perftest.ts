// perftest's ib_write_lat and ib_write_bw on the device of the run: what everybody else measures
// RDMA with. Both ends on this host; only for verbs.
import { execFile, spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { promisify } from 'node:util'

import type { Cores } from './cores.js'

const run = promisify(execFile)
const timeoutMs = 20_000
const port = 18_515
const connectRetryMs = 100

/** Why perftest cannot be run; undefined: it can. */
export function perftestMissing(provider: string): string | undefined {
  if (provider !== 'verbs') return 'perftest measures verbs devices only'
  const { error } = spawnSync('ib_write_lat', ['--version'], { stdio: 'ignore' })
  return error === undefined ? undefined : 'perftest is not installed (Debian: perftest)'
}

/** The reason, in a line, why a run of it failed. */
export function perftestFailure(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error)
  return `it failed: ${text.split('\n')[0]}`
}

/** Typical time one way, in ns. */
export async function writeLatencyNs(
  device: string,
  cores: Cores,
  bytes: number,
  samples: number,
): Promise<number> {
  const row = await measure('ib_write_lat', device, cores, bytes, samples)
  return row[4]! * 1000 // #bytes #iterations t_min t_max t_typical [usec] …
}

/** Bytes per second one way. */
export async function writeBandwidth(
  device: string,
  cores: Cores,
  bytes: number,
  samples: number,
): Promise<number> {
  const row = await measure('ib_write_bw', device, cores, bytes, samples)
  return row[3]! * 2 ** 20 // #bytes #iterations peak average [MiB/s] …
}

async function measure(
  program: string,
  device: string,
  { client, workers }: Cores,
  bytes: number,
  samples: number,
): Promise<number[]> {
  // perftest wants at least five iterations.
  const flags = ['-d', device, '-s', String(bytes), '-n', String(Math.max(5, samples)), '-F', '-R']
  const args = [program, ...flags, '-p', String(port)]
  const address = deviceAddress(device)
  const server = spawn('taskset', ['-c', String(workers[0]), ...args], { stdio: 'ignore' })
  try {
    const stdout = await connect(server, ['-c', String(client), ...args, address])
    const row = stdout.split('\n').find((line) => new RegExp(`^\\s*${bytes}\\s+\\d`).test(line))
    if (row === undefined) throw new Error(`${program} printed no result:\n${stdout}`)
    return row.trim().split(/\s+/).map(Number)
  } finally {
    if (server.exitCode === null && server.signalCode === null) {
      const exited = once(server, 'exit')
      server.kill('SIGKILL')
      await exited
    }
  }
}

/** The server says nowhere that it listens: the client is started until it can connect. */
async function connect(server: ChildProcess, args: string[]): Promise<string> {
  const end = performance.now() + timeoutMs
  for (;;) {
    try {
      return (await run('taskset', args, { timeout: timeoutMs, killSignal: 'SIGKILL' })).stdout
    } catch (error) {
      if (performance.now() >= end || server.exitCode !== null) throw error
      await new Promise((resolve) => setTimeout(resolve, connectRetryMs))
    }
  }
}

/** An address of the network interface behind the device: connections are made through it. */
function deviceAddress(device: string): string {
  const links = JSON.parse(
    spawnSync('rdma', ['-j', 'link', 'show'], { encoding: 'utf8' }).stdout || '[]',
  ) as { ifname: string; netdev?: string }[]
  const netdev = links.find(({ ifname }) => ifname === device)?.netdev
  if (netdev === undefined) throw new Error(`no network interface belongs to ${device}`)
  const [shown] = JSON.parse(
    spawnSync('ip', ['-j', '-4', 'address', 'show', netdev], { encoding: 'utf8' }).stdout || '[]',
  ) as { addr_info: { local: string }[] }[]
  const address = shown?.addr_info[0]?.local
  if (address === undefined) throw new Error(`${netdev} has no IPv4 address`)
  return address
}
