import { describe, expect, test } from 'vitest'
import { comparisonCsv, comparisonPage } from '../../resource-manager/simulation/report.js'
import { simulate, type Policy } from '../../resource-manager/simulation/simulate.js'
import type { Result } from '../../resource-manager/simulation/tally.js'
import { VirtualTime } from '../../resource-manager/simulation/virtual-time.js'
import { randomTasks, readTasks, type Task } from '../../resource-manager/simulation/workload.js'
import { schedulerNames } from '../../resource-manager/schedulers/policies.js'
import { traceOfJobs } from '../../resource-manager/traces/jobs.js'
import { syntheticTrace } from '../../resource-manager/traces/synthetic.js'
import type { Trace } from '../../resource-manager/traces/trace.js'
import { idleCoreMsOf } from '../../resource-manager/utilization/analysis.js'

const second = 1000
const policy: Policy = {
  ...{ scheduler: 'first-fit', leaseMs: 60 * second, reserve: 0, noticeMs: 5 * second },
}
const terms = {
  ...{ pollMs: second, coldStartMs: 100, callMs: second, waitMs: 60 * second, nodesPerSwitch: 8 },
}

function run(trace: Trace, tasks: () => Iterable<Task>, of: Partial<Policy & typeof terms> = {}) {
  const idleCoreMs = idleCoreMsOf(trace)
  return simulate(
    { ...policy, ...of },
    { ...terms, ...of, trace, idleCoreMs, tasks },
    () => undefined,
  )
}

/** Two nodes of four cores; `busy` says from when to when in seconds, node by node. */
function twoNodes(busy: readonly (readonly [number, number, number])[], seconds: number): Trace {
  const nodes = ['a', 'b'].map((name) => ({ name, cores: 4, memoryBytes: 2 ** 30 }))
  const jobs = busy.map(([node, from, until]) => ({
    ...{ submitMs: 0, startMs: from * second, endMs: until * second, nodes: [node] },
    ...{ coresPerNode: 4, memoryBytesPerNode: 0 },
  }))
  const trace = traceOfJobs({ source: 'test', nodes, jobs, remarks: [] })
  return { ...trace, fromMs: 0, untilMs: seconds * second }
}

const task = (atSeconds: number, workSeconds: number, cores = 4): Task => ({
  ...{
    atMs: atSeconds * second,
    workMs: workSeconds * second,
    cores,
    nodes: 1,
    memoryBytes: 2 ** 20,
  },
})

describe('a simulation', () => {
  test('of one task on one idle node counts every call and second', async () => {
    const trace = twoNodes([[0, 0, 1000]], 1000)
    const result = await run(trace, () => [task(10, 100)])
    // Leases of 60 s hold 59 calls beside the cold start.
    expect(result).toMatchObject({ leases: 2, preempted: 0, calls: 400, callsLost: 0, refused: 0 })
    expect(result.leasedCoreHours * 3600).toBeCloseTo(4 * 100.2)
    expect(result.usefulCoreHours * 3600).toBeCloseTo(400)
    expect(result.wait.max).toBe(0)
  })

  test('a job takes its node back: running calls finish within the notice, the others move', async () => {
    const trace = twoNodes(
      [
        [0, 0, 1000],
        [1, 40, 100],
      ],
      1000,
    )
    const result = await run(trace, () => [task(10, 50)])
    // At 40 s 29.9 s of work are done: the call that runs ends 0.1 s later, and the job waits for that.
    expect(result).toMatchObject({ preempted: 1, callsLost: 0, callsMoved: 4 * 20, calls: 4 * 50 })
    expect(result).toMatchObject({ jobsWaited: 1, jobWait: { max: 100 } })
    expect(result.wait.max).toBe(59.9 * second)
  })

  test('without notice calls are lost and run again, and no job waits', async () => {
    const trace = twoNodes(
      [
        [0, 0, 1000],
        [1, 40, 100],
      ],
      1000,
    )
    const result = await run(trace, () => [task(10, 50)], { noticeMs: 0, waitMs: 70 * second })
    expect(result).toMatchObject({ preempted: 1, callsLost: 4, callsMoved: 4 * 20, calls: 4 * 50 })
    expect(result.jobsWaited).toBe(0)
  })

  test('a job gets a node that nobody has before one with leases: that is what a reserve is for', async () => {
    const trace = twoNodes(
      [
        [0, 0, 5],
        [1, 40, 100],
      ],
      200,
    )
    const without = await run(trace, () => [task(10, 50)])
    expect(without).toMatchObject({ preempted: 1, jobsWaited: 1 })
    const reserved = await run(trace, () => [task(10, 50)], { reserve: 4 })
    expect(reserved.jobsWaited).toBe(0)
  })

  test('a job that the batch system has planned takes no lease from who places by idle time', async () => {
    const trace = twoNodes(
      [
        [0, 60, 200],
        [1, 0, 1],
      ],
      200,
    )
    const of = { leaseMs: 200 * second }
    const anywhere = await run(trace, () => [task(10, 100)], of)
    const spared = await run(trace, () => [task(10, 100)], { ...of, scheduler: 'idle-time' })
    expect([anywhere.preempted, spared.preempted]).toEqual([1, 0])
  })

  test('who waits for too long is refused', async () => {
    const result = await run(
      twoNodes(
        [
          [0, 0, 500],
          [1, 0, 500],
        ],
        500,
      ),
      () => [task(10, 60)],
    )
    expect(result).toMatchObject({ refused: 1, leases: 0 })
    expect(result.refusedCoreHours * 3600).toBe(240)
  })
})

describe('on a made-up cluster', () => {
  const trace = syntheticTrace({
    ...{ seed: 5, nodes: 40, coresPerNode: 8, nodeMemoryBytes: 2 ** 34, days: 0.3 },
  })
  const tasks = () =>
    randomTasks(
      {
        ...{ seed: 6, perSecond: 0.05, cores: [1, 4, 12], memoryBytesPerCore: 2 ** 28, nodes: 3 },
        meanWorkMs: 300 * second,
      },
      trace.fromMs,
      trace.untilMs,
    )
  const results = new Map<string, Result>()

  test.each(schedulerNames)('%s uses part of what is idle, and no more', async (scheduler) => {
    const result = await run(trace, tasks, { scheduler, leaseMs: 600 * second })
    results.set(scheduler, result)
    expect(result.leases).toBeGreaterThan(50)
    expect(result.usefulCoreHours).toBeGreaterThan(0)
    expect(result.usefulCoreHours).toBeLessThanOrEqual(result.leasedCoreHours)
    expect(result.shareOfIdle).toBeLessThan(1)
    expect(result.preempted).toBeLessThanOrEqual(result.leases)
    expect(result.calls * second).toBeCloseTo(result.usefulCoreHours * 3_600_000, -3)
  })

  test('the same seed gives the same figures', async () => {
    const again = await run(trace, tasks, { scheduler: 'locality', leaseMs: 600 * second })
    expect(again).toEqual(results.get('locality'))
  })

  test('the comparison has a row for each policy, and a page that needs nothing else', () => {
    const runs = schedulerNames.map((scheduler) => ({
      ...{ policy: { ...policy, scheduler }, result: results.get(scheduler)! },
    }))
    expect(comparisonCsv(runs).trim().split('\n')).toHaveLength(6)
    const page = comparisonPage({ facts: ['a <fast> one'], runs })
    expect(page.match(/<svg /g)).toHaveLength(4)
    expect(page).toContain('a &lt;fast&gt; one')
    expect(page).not.toMatch(/NaN|Infinity|undefined|<script|\b(src|href)="(?!#)/)
  })
})

describe('virtual time', () => {
  test('what is due at the same moment happens in the order in which it was asked for', async () => {
    const time = new VirtualTime(0)
    const seen: string[] = []
    for (const [name, at] of Object.entries({ c: 5, a: 1, d: 5, b: 1 })) {
      time.at(at, () => seen.push(`${name}${time.now()}`))
    }
    time.after(3, () => seen.push('never'))()
    time.at(11, () => seen.push('late'))
    await time.run(10, () => undefined)
    expect(seen).toEqual(['a1', 'b1', 'c5', 'd5'])
    expect(time.now()).toBe(10)
  })
})

test('tasks may come from a file', () => {
  const text = 'at,cores,work\n20,2,1.5\n10,4,60,512,2\n'
  expect(readTasks(text, 'tasks.csv', 1000)).toEqual([
    { atMs: 11_000, cores: 4, workMs: 60_000, memoryBytes: 2 ** 29, nodes: 2 },
    { atMs: 21_000, cores: 2, workMs: 1500, memoryBytes: 2 ** 31, nodes: 1 },
  ])
  expect(() => readTasks('1,0,5', 'tasks.csv', 0)).toThrow('tasks.csv, line 1')
})
