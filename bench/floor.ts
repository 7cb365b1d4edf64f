// The floor: a ping-pong of two C++ processes over the same provider with the same bytes, and
// nothing else.
import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'

import type { Cores } from './cores.js'
import { root } from './machine.js'
import type { Summary } from './statistics.js'

const run = promisify(execFile)
const timeoutMs = 60_000

export interface FloorOptions {
  provider: string
  cores: Cores
  payloadBytes: number
  samples: number
}

export async function measureFloor(options: FloorOptions): Promise<Summary> {
  const { provider, cores, payloadBytes, samples } = options
  const kind = ['Release', 'Debug'].find((name) =>
    existsSync(join(root, 'build', name, 'rfaas-floor')),
  )
  if (kind === undefined) throw new Error('rfaas-floor is not built. Run: npm run build:native')
  const flags = {
    provider,
    bytes: payloadBytes,
    count: samples,
    warmup: Math.ceil(samples / 5),
    'client-core': cores.client,
    'server-core': cores.worker,
  }
  const args = Object.entries(flags).flatMap(([name, value]) => [`--${name}`, String(value)])
  const { stdout } = await run(join(root, 'build', kind, 'rfaas-floor'), args, {
    timeout: timeoutMs,
  })
  const { minNs, p50Ns, p99Ns, p999Ns, maxNs } = JSON.parse(stdout) as Summary
  return { samples, minNs, p50Ns, p99Ns, p999Ns, maxNs }
}
