// The RDMA network between a client and its workers, cut without a word to either, and its healing. The
// control plane goes another way.
import assert from 'node:assert/strict'
import { setTimeout as sleep } from 'node:timers/promises'

import { recovered, sleepers, summary, Traffic } from '../calls.js'
import { workersOf } from '../proc.js'
import type { Scenario } from '../scenario.js'
import { deployOptions, type Deployed, type Stage } from '../stage.js'
import { far, near, Wire } from '../wire.js'

interface Wired extends Deployed {
  wire: Wire
  workers: number[]
}

async function wired(stage: Stage): Promise<Wired> {
  const wire = Wire.lay()
  const args = ['--verbs-address', `${far.address}:0`, '--device', far.device]
  const options = { ...deployOptions, provider: 'verbs', device: near.device } as const
  const deployed = await stage.deployed({ executorManager: { args }, deploy: options })
  await recovered(deployed.functions)
  return { ...deployed, wire, workers: workersOf(deployed.cluster.node().pid) }
}

/** The same workers serve again; with the time since then. */
async function healed({ wire, functions, cluster, workers }: Wired): Promise<number> {
  wire.heal()
  const recoveredMs = await recovered(functions)
  assert.deepEqual(workersOf(cluster.node().pid), workers)
  return recoveredMs
}

export const wires: Scenario[] = [
  {
    name: 'wire-cut-idle',
    fault: 'the RDMA network between client and workers is cut, nothing in flight, and heals',
    promise: 'Nobody notices: lease, workers and connections are as they were.',
    needs: 'wire',
    async run(stage) {
      const played = await wired(stage)
      played.wire.cut()
      await sleep(5000)
      assert.equal((await played.client.nodes())[0]?.freeCores, 0)
      const recoveredMs = await healed(played)
      const traffic = new Traffic(played.functions)
      await sleep(1000)
      const { answered, failures } = await traffic.stop()
      assert.deepEqual(failures, [])
      return { seen: `${answered} ok, same workers`, recoveredMs }
    },
  },
  {
    name: 'wire-cut-in-flight',
    fault: 'the RDMA network between client and workers is cut, calls in flight, and heals',
    promise:
      'Calls end with ERR_RFAAS_DEADLINE and `mayHaveRun` at their deadline, the lease stays; healed, the client connects to the same workers.',
    needs: 'wire',
    async run(stage) {
      const played = await wired(stage)
      const timeoutMs = 5000
      const calls = sleepers(played.functions, 4, 500, timeoutMs)
      await sleep(100)
      played.wire.cut()
      const outcomes = await calls
      assert.equal(summary(outcomes), '4 ERR_RFAAS_DEADLINE')
      assert(outcomes.every(({ mayHaveRun }) => mayHaveRun === true))
      const [lease] = await played.client.leases()
      assert.equal(lease?.state, 'active')
      const recoveredMs = await healed(played)
      return { seen: `${summary(outcomes)}, same workers`, recoveredMs }
    },
  },
  {
    name: 'wire-cut-briefly',
    fault: 'the RDMA network between client and workers is cut and heals before calls are due',
    promise: 'No call fails and none runs twice.',
    needs: 'wire',
    async run(stage) {
      const played = await wired(stage)
      const calls = sleepers(played.functions, 4, 500)
      await sleep(100)
      played.wire.cut()
      await sleep(2000)
      const recoveredMs = await healed(played)
      const outcomes = await calls
      assert.equal(summary(outcomes), '4 ok')
      return { seen: `${summary(outcomes)}, same workers`, recoveredMs }
    },
  },
]
