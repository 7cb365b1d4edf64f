// What `rfaas utilization` sees of a real batch system.
import { appendFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { execFile } from 'node:child_process'
import { afterEach, describe, expect, test } from 'vitest'

import { root } from '../cli/support.js'
import { readTrace } from '../../resource-manager/traces/read.js'
import type { Trace } from '../../resource-manager/traces/trace.js'
import type { BatchCluster } from './batch-cluster.js'
import { cleanUp, node, startSlurm, temporaryFolder } from './support.js'

afterEach(cleanUp)

async function record(slurm: BatchCluster, path: string, samples: number): Promise<string> {
  const main = join(root, 'dist/lib/cli/main.js')
  const args = [main, 'utilization', 'record', path, '--every', '100ms', '--samples', `${samples}`]
  const env = { ...process.env, ...slurm.env }
  return (await promisify(execFile)(process.execPath, args, { env })).stderr
}

const traceOf = (path: string): Trace => readTrace(path, { nodeMemoryBytes: 0 })

/** Idle cores by node, as the last sample has them. */
function idle(trace: Trace): Record<string, number> {
  const now: Record<string, number> = {}
  for (const { node: index, idleCores } of trace.changes()) {
    now[trace.nodes[index]!.name] = idleCores
  }
  return now
}

describe('rfaas utilization record', () => {
  test('writes what Slurm leaves idle, run after run, also after one that was killed', async () => {
    const slurm = await startSlurm([node('n1'), node('n2', 4)])
    const path = join(temporaryFolder(), 'idle.samples')
    expect(await record(slurm, path, 2)).toContain('2 nodes, 6 of 6 cores idle')
    expect(idle(traceOf(path))).toEqual({ n1: 2, n2: 4 })

    const job = await slurm.submit('sleep 60', { cores: 3, node: 'n2' })
    await slurm.eventually('the job runs', async () => {
      return (await slurm.job(job)).job_state === 'RUNNING'
    })
    appendFileSync(path, '01234567 {"at":17')
    const remarks = await record(slurm, path, 1)
    expect(remarks).toContain('was not written to its end: removed')
    expect(remarks).toContain('2 nodes, 3 of 6 cores idle')
    const trace = traceOf(path)
    expect(idle(trace)).toEqual({ n1: 2, n2: 1 })
    expect(trace.nodes).toEqual([
      { name: 'n1', cores: 2, memoryBytes: 2000 * 2 ** 20 },
      { name: 'n2', cores: 4, memoryBytes: 2000 * 2 ** 20 },
    ])
  })
})
