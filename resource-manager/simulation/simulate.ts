// One run of a simulation: the real manager with one policy, on a trace and a workload.
import { createLogger } from '../../lib/control/log.js'
import { schedulers, type SchedulerName } from '../schedulers/policies.js'
import { Manager } from '../src/manager.js'
import type { Trace } from '../traces/trace.js'
import { Batch } from './batch.js'
import { Client } from './client.js'
import { emptySnapshot, forgetfulStore } from './forgetful-store.js'
import { Tally, type Result } from './tally.js'
import { VirtualTime } from './virtual-time.js'
import { Work } from './work.js'
import type { Task } from './workload.js'

/** What is to be chosen well. */
export interface Policy {
  scheduler: SchedulerName
  /** Of the leases that clients request. */
  leaseMs: number
  /** Idle cores that are left to the batch system. */
  reserve: number
  noticeMs: number
}

/** What is the same for every policy. */
export interface Conditions {
  trace: Trace
  /** In the trace, in core-ms. */
  idleCoreMs: number
  tasks: () => Iterable<Task>
  pollMs: number
  coldStartMs: number
  callMs: number
  waitMs: number
  nodesPerSwitch: number
}

// Nodes do not beat here, and none is lost.
const never = 10 * 365 * 24 * 3_600_000
const lookMs = 24 * 3_600_000

/** `progress` hears now and then which share is done. */
export async function simulate(
  policy: Policy,
  conditions: Conditions,
  progress: (share: number) => void,
): Promise<Result> {
  const { trace, idleCoreMs, tasks } = conditions
  const time = new VirtualTime(trace.fromMs)
  const manager = new Manager({
    ...{ store: forgetfulStore(), snapshot: emptySnapshot, clock: time, after: time.after },
    // Nobody here checks it.
    sign: () => '',
    scheduler: schedulers[policy.scheduler],
    logger: createLogger({ name: 'simulation', level: 'silent' }),
    ...{ heartbeatMs: lookMs, nodeTimeoutMs: never, maxLeaseMs: never },
  })
  const tally = new Tally(idleCoreMs)
  const work = new Work()
  const batch = new Batch(trace, { ...conditions, ...policy }, { manager, time, tally, work })
  const world = { manager, time, tally, work, node: (name: string) => batch.node(name) }
  const options = { ...conditions, ...policy }
  const arrivals = tasks()[Symbol.iterator]()
  const arrive = (index: number): void => {
    const next = arrivals.next()
    if (next.done === true) return
    const task = next.value
    time.at(task.atMs, () => {
      new Client(task, index, options, world)
      arrive(index + 1)
    })
  }
  arrive(0)
  const wholeMs = trace.untilMs - trace.fromMs
  await time.run(trace.untilMs, (nowMs) => {
    work.check()
    progress((nowMs - trace.fromMs) / wholeMs)
  })
  work.check()
  manager.stop()
  return tally.result(trace.untilMs)
}
