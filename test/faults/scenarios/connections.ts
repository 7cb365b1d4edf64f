// The fabric's connection between a client and a worker, cut while both live.
import assert from 'node:assert/strict'
import { execFile, execFileSync } from 'node:child_process'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'

import { packageRoot } from '../../../lib/package-root.js'
import { invoke, recovered, sleepers, summary, Traffic, type Outcome } from '../calls.js'
import { isAlive, workersOf } from '../proc.js'
import type { Scenario } from '../scenario.js'
import type { Deployed } from '../stage.js'

const script = join(packageRoot(), 'test/faults/sever.py')
const execute = promisify(execFile)

/** Cuts the connection of one worker; returns its process id. */
function sever({ cluster }: Deployed): number {
  const worker = workersOf(cluster.node().pid)[0]!
  const cut = execFileSync('python3', [script, String(worker)], { encoding: 'utf8' })
  assert.equal(cut.trim(), '1')
  return worker
}

export const connections: Scenario[] = [
  {
    name: 'connection-cut-idle',
    fault: 'the fabric connection to a worker is cut, nothing in flight',
    promise: 'No call fails; the client connects again to the same worker, which was never gone.',
    async run(stage) {
      const deployed = await stage.deployed()
      const worker = sever(deployed)
      await sleep(50)
      const cut = performance.now()
      const outcomes = await sleepers(deployed.functions, 16, 1)
      const recoveredMs = performance.now() - cut
      assert.equal(summary(outcomes), '16 ok')
      assert(isAlive(worker))
      const traffic = new Traffic(deployed.functions)
      await sleep(500)
      const { answered, failures } = await traffic.stop()
      assert.deepEqual(failures, [])
      return { seen: `${answered} ok, same worker`, recoveredMs }
    },
  },
  {
    name: 'connection-cut-in-flight',
    fault: 'the fabric connection to a worker is cut, calls in flight',
    promise:
      'No call fails and none runs twice: the client connects again to the same worker and asks for the results.',
    async run(stage) {
      const deployed = await stage.deployed()
      const calls = sleepers(deployed.functions, 4, 500)
      await sleep(100)
      const worker = sever(deployed)
      const cut = performance.now()
      const outcomes = await calls
      assert.equal(summary(outcomes), '4 ok')
      await recovered(deployed.functions)
      assert(isAlive(worker))
      return { seen: `${summary(outcomes)}, same worker`, recoveredMs: performance.now() - cut }
    },
  },
  {
    name: 'connection-cut-again-and-again',
    fault: 'the fabric connections to all workers are cut 20 times, under a stream of short calls',
    promise: 'No call fails, and each runs once: every worker has run as often as it was answered.',
    async run(stage) {
      const { cluster, functions } = await stage.deployed()
      const workers = workersOf(cluster.node().pid)
      const outcomes: Outcome[] = []
      let over = false
      // More than there are slots: some always wait.
      const lanes = Array.from({ length: 40 }, async () => {
        while (!over) {
          outcomes.push(await invoke(functions, 'count', new Uint8Array(4), { timeoutMs: 10_000 }))
        }
      })
      for (let round = 0; round < 20; round += 1) {
        await Promise.all(workers.map((pid) => execute('python3', [script, String(pid)])))
      }
      over = true
      await Promise.all(lanes)
      assert.equal(summary(outcomes), `${outcomes.length} ok`)
      assert.deepEqual(workersOf(cluster.node().pid), workers)
      const answered = Array.from(workers, () => 0)
      const ran = Array.from(workers, () => 0)
      for (const { result } of outcomes) {
        const words = new DataView(result!.buffer, result!.byteOffset)
        const worker = words.getUint32(0, true)
        answered[worker]! += 1
        ran[worker] = Math.max(ran[worker]!, words.getUint32(4, true))
      }
      assert.deepEqual(ran, answered)
      return { seen: `${summary(outcomes)}, runs: ${ran.join(' and ')}` }
    },
  },
]
