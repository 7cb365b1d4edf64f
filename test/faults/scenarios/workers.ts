// Workers and whole executors, struck from outside.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'

import { invoke, recovered, sleepers, summary, Traffic, word } from '../calls.js'
import { signal, workersOf } from '../proc.js'
import type { Scenario } from '../scenario.js'
import type { Deployed } from '../stage.js'

/** Kills what `victims` chooses three times, which is as often as a worker may die young before it is
 * made to wait; the least of the times until all are ready again: what else this machine does is not
 * part of the promise. */
async function recovery(
  { cluster, lease }: Deployed,
  victims: (workers: number[]) => number[],
): Promise<number> {
  const times: number[] = []
  for (let round = 0; round < 3; round += 1) {
    const chosen = victims(workersOf(cluster.node().pid))
    let missing = chosen.length
    const ready = new Promise<void>((resolve) => {
      lease.on('workerReady', () => (missing -= 1) === 0 && resolve())
    })
    const began = performance.now()
    signal(chosen, 'SIGKILL')
    await ready
    times.push(performance.now() - began)
    lease.removeAllListeners('workerReady')
  }
  return Math.min(...times)
}

export const workers: Scenario[] = [
  {
    name: 'worker-killed-idle',
    fault: 'SIGKILL of an idle worker',
    promise: 'No call fails; a new worker takes its place within 100 ms.',
    recoversWithinMs: 100,
    async run(stage) {
      const deployed = await stage.deployed()
      const recoveredMs = await recovery(deployed, ([first]) => [first!])
      const outcomes = await sleepers(deployed.functions, 4, 10)
      assert.equal(summary(outcomes), '4 ok')
      return { seen: summary(outcomes), recoveredMs }
    },
  },
  {
    name: 'worker-killed-in-flight',
    fault: 'SIGKILL of a worker, calls in flight',
    promise:
      'The call that it ran ends at once with ERR_RFAAS_WORKER_LOST, the signal and `mayHaveRun`; those behind it run on another worker, calls of others go on; a new worker takes its place within 100 ms.',
    recoversWithinMs: 100,
    async run(stage) {
      const deployed = await stage.deployed()
      const { cluster, functions, lease } = deployed
      const sleepMs = 2000
      // Two for each of the two workers: one runs, one waits behind it.
      const calls = sleepers(functions, 4, sleepMs)
      await sleep(100)
      const ready = once(lease, 'workerReady')
      signal(workersOf(cluster.node().pid).slice(0, 1), 'SIGKILL')
      const outcomes = await calls
      const lost = outcomes.filter(({ code }) => code === 'ERR_RFAAS_WORKER_LOST')
      assert.equal(summary(outcomes.filter(({ code }) => code === 'ok')), '3 ok')
      assert.equal(lost.length, 1, summary(outcomes))
      for (const { message, mayHaveRun, ms } of lost) {
        assert.match(message, /SIGKILL/)
        assert.equal(mayHaveRun, true)
        assert(ms < sleepMs, `a lost call ended only after ${ms} ms`)
      }
      await ready
      return {
        seen: summary(outcomes),
        recoveredMs: await recovery(deployed, ([first]) => [first!]),
      }
    },
  },
  {
    name: 'worker-stopped-in-flight',
    fault: 'SIGSTOP of a worker, calls in flight',
    promise:
      'Its calls end at their deadline with ERR_RFAAS_DEADLINE, calls of other workers go on; after SIGCONT it, or its successor, serves again.',
    async run(stage) {
      const { cluster, functions } = await stage.deployed()
      const calls = sleepers(functions, 4, 1000, 5000)
      await sleep(100)
      const stopped = workersOf(cluster.node().pid).slice(0, 1)
      signal(stopped, 'SIGSTOP')
      const outcomes = await calls
      assert.equal(outcomes.filter(({ code }) => code === 'ok').length, 2, summary(outcomes))
      assert.equal(outcomes.filter(({ code }) => code === 'ERR_RFAAS_DEADLINE').length, 2)
      signal(stopped, 'SIGCONT')
      return { seen: summary(outcomes), recoveredMs: await recovered(functions) }
    },
  },
  {
    name: 'worker-stopped-idle',
    fault: 'SIGSTOP of an idle worker',
    promise:
      'Calls that reach it end at their deadline with ERR_RFAAS_DEADLINE, never later; after SIGCONT it serves again.',
    async run(stage) {
      const { cluster, functions } = await stage.deployed()
      const stopped = workersOf(cluster.node().pid).slice(0, 1)
      signal(stopped, 'SIGSTOP')
      const outcomes = await sleepers(functions, 4, 1, 2000)
      assert.equal(outcomes.filter(({ code }) => code === 'ok').length, 2, summary(outcomes))
      signal(stopped, 'SIGCONT')
      return { seen: summary(outcomes), recoveredMs: await recovered(functions) }
    },
  },
  {
    name: 'executor-killed-idle',
    fault: 'SIGKILL of an idle executor (all workers of a lease)',
    promise: 'No call fails; calls that come meanwhile wait; all workers are back within 200 ms.',
    recoversWithinMs: 200,
    async run(stage) {
      const deployed = await stage.deployed()
      const { cluster, functions, lease } = deployed
      const recoveredMs = await recovery(deployed, (all) => all)
      const workers = workersOf(cluster.node().pid)
      let lost = 0
      const known = new Promise<void>((resolve) => {
        lease.on('workerLost', () => (lost += 1) === workers.length && resolve())
      })
      signal(workers, 'SIGKILL')
      // A call that is made before the loss is known here is a call in flight.
      await known
      const outcomes = await sleepers(functions, 4, 1)
      assert.equal(summary(outcomes), '4 ok')
      return { seen: summary(outcomes), recoveredMs }
    },
  },
  {
    name: 'executor-killed-in-flight',
    fault: 'SIGKILL of an executor, calls in flight',
    promise:
      'The calls that it ran end at once with ERR_RFAAS_WORKER_LOST and `mayHaveRun`, those behind them run when workers are back; that is within 200 ms.',
    recoversWithinMs: 200,
    async run(stage) {
      const deployed = await stage.deployed()
      const calls = sleepers(deployed.functions, 4, 5000)
      await sleep(100)
      signal(workersOf(deployed.cluster.node().pid), 'SIGKILL')
      const outcomes = await calls
      const lost = outcomes.filter(({ code }) => code === 'ERR_RFAAS_WORKER_LOST')
      assert.equal(summary(outcomes.filter(({ code }) => code === 'ok')), '2 ok')
      assert.equal(lost.length, 2, summary(outcomes))
      for (const { mayHaveRun } of lost) assert.equal(mayHaveRun, true)
      await recovered(deployed.functions)
      await sleep(1100) // to be of age: those that die young are made to wait
      return { seen: summary(outcomes), recoveredMs: await recovery(deployed, (all) => all) }
    },
  },
  {
    name: 'executor-stopped-in-flight',
    fault: 'SIGSTOP of an executor, calls in flight and after it',
    promise:
      'Every call ends at its deadline with ERR_RFAAS_DEADLINE; after SIGCONT its workers, or their successors, serve again.',
    async run(stage) {
      const { cluster, functions } = await stage.deployed()
      const inFlight = sleepers(functions, 4, 1000, 3000)
      await sleep(100)
      const all = workersOf(cluster.node().pid)
      signal(all, 'SIGSTOP')
      const outcomes = [...(await inFlight), ...(await sleepers(functions, 4, 1, 500))]
      assert.equal(summary(outcomes), '8 ERR_RFAAS_DEADLINE')
      signal(all, 'SIGCONT')
      return { seen: summary(outcomes), recoveredMs: await recovered(functions) }
    },
  },
  {
    name: 'executor-stopped-idle',
    fault:
      'SIGSTOP of an idle executor, continued before the deadline of calls that come meanwhile',
    promise: 'No call fails; those that came meanwhile are answered after SIGCONT.',
    async run(stage) {
      const { cluster, functions } = await stage.deployed()
      const all = workersOf(cluster.node().pid)
      signal(all, 'SIGSTOP')
      const calls = sleepers(functions, 4, 1)
      await sleep(500)
      signal(all, 'SIGCONT')
      const continued = performance.now()
      const outcomes = await calls
      assert.equal(summary(outcomes), '4 ok')
      const recoveredMs = performance.now() - continued
      assert.deepEqual(workersOf(cluster.node().pid), all)
      return { seen: `${summary(outcomes)}, same workers`, recoveredMs }
    },
  },
  {
    name: 'worker-dies-again-and-again',
    fault: 'a worker that is killed as soon as it is back',
    promise:
      'The other worker answers every call meanwhile; the node is not kept busy by restarts.',
    async run(stage) {
      const { cluster, functions, lease } = await stage.deployed()
      const traffic = new Traffic(functions, { lanes: 1 })
      let kills = 0
      const until = performance.now() + 4000
      const [victim, other] = workersOf(cluster.node().pid)
      signal([victim!], 'SIGKILL')
      lease.on('workerReady', () => {
        kills += 1
        const again = workersOf(cluster.node().pid).filter((pid) => pid !== other)
        if (performance.now() < until) signal(again, 'SIGKILL')
      })
      await sleep(4000)
      const { answered, failures } = await traffic.stop()
      assert(kills <= 10, `${kills} restarts in 4 s`)
      assert(answered > failures.length, `only ${answered} calls were answered`)
      for (const { code } of failures) assert.equal(code, 'ERR_RFAAS_WORKER_LOST')
      assert.equal((await invoke(functions, 'echo', word(1))).code, 'ok')
      return { seen: `${answered} ok, ${failures.length} lost, ${kills} restarts` }
    },
  },
]
