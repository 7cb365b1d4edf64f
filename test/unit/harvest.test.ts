// What is harvested, and what is made of the answers of a batch system.
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'

import type { SlurmJob, SlurmNode } from '../../resource-manager/sources/slurm/batch-system.js'
import { jobScript } from '../../resource-manager/sources/slurm/job-script.js'
import { commentOf, observe } from '../../resource-manager/sources/slurm/observation.js'
import { resolveSlurmConfig } from '../../resource-manager/sources/slurm/options.js'
import {
  plan,
  type BatchNode,
  type HarvestJob,
  type Limits,
} from '../../resource-manager/sources/slurm/planning.js'

const always = { free: () => true, ready: () => true }
const noLimits: Limits = { cap: Infinity, reserve: 0, memoryReserveMiB: 0, shared: false }

function batchNode(name: string, allocated = 0, more: Partial<BatchNode> = {}): BatchNode {
  return {
    name,
    address: name,
    usable: true,
    responds: true,
    draining: false,
    cores: 8,
    allocatedCores: allocated,
    memoryMiB: 16_000,
    allocatedMemoryMiB: allocated * 1000,
    ...more,
  }
}

function job(id: number, on: string, cores: number, state: HarvestJob['state']): HarvestJob {
  return { id, batchNode: on, node: on, cores, state }
}

function started(nodes: BatchNode[], jobs: HarvestJob[], limits: Partial<Limits> = {}) {
  return plan(nodes, jobs, { ...noLimits, ...limits }, always).start.map(
    ({ node, cores, memoryMiB }) => [node, cores, memoryMiB],
  )
}

function givenBack(nodes: BatchNode[], jobs: HarvestJob[], limits: Partial<Limits>): number[] {
  return plan(nodes, jobs, { ...noLimits, ...limits }, always).giveBack.map(({ id }) => id)
}

describe('what is harvested', () => {
  it('is all of the nodes that run nothing, and nothing of others', () => {
    const drained = batchNode('n3', 0, { usable: false })
    const nodes = [batchNode('n1'), batchNode('n2', 3), drained, batchNode('n4', 8)]
    expect(started(nodes, [])).toEqual([['n1', 8, 16_000]])
  })

  it('is also what other jobs leave, where nodes may be shared', () => {
    const nodes = [batchNode('n1', 3)]
    expect(started(nodes, [], { shared: true })).toEqual([['n1', 5, 13_000]])
    expect(started(nodes, [], { shared: true, memoryReserveMiB: 3000 })).toEqual([
      ['n1', 5, 10_000],
    ])
  })

  it('is one job at a time on a node, and a further one when more is idle', () => {
    const nodes = [batchNode('n1', 4)]
    expect(started(nodes, [job(1, 'n1', 4, 'pending')])).toEqual([])
    expect(started(nodes, [job(1, 'n1', 4, 'ending')])).toEqual([])
    expect(started(nodes, [job(1, 'n1', 4, 'running')])).toEqual([['n1_2', 4, 12_000]])
  })

  it('is nothing of a job that started after Slurm was asked for its nodes', () => {
    expect(started([batchNode('n1')], [job(1, 'n1', 8, 'running')])).toEqual([])
    expect(started([batchNode('n1')], [job(1, 'n1', 6, 'running')])).toEqual([['n1_2', 2, 4000]])
  })

  it('does not take a name that a node has, nor a node that is not ready', () => {
    const may = { free: (name: string) => name !== 'n1', ready: (name: string) => name !== 'n2' }
    const { start } = plan([batchNode('n1'), batchNode('n2')], [], noLimits, may)
    expect(start.map(({ node }) => node)).toEqual(['n1_2'])
  })

  it('is no more than the cap, and leaves the reserve with its share of memory', () => {
    const nodes = [batchNode('n1'), batchNode('n2')]
    expect(started(nodes, [], { cap: 10 })).toEqual([
      ['n1', 8, 16_000],
      ['n2', 2, 4000],
    ])
    expect(started(nodes, [], { reserve: 12 })).toEqual([['n1', 4, 8000]])
    expect(started(nodes, [], { reserve: 16 })).toEqual([])
  })

  it('is given back, the newest first, when it is more than the cap or the reserve is used', () => {
    const nodes = [batchNode('n1', 8), batchNode('n2', 8), batchNode('n3', 8)]
    const jobs = [
      job(1, 'n1', 8, 'running'),
      job(3, 'n3', 8, 'running'),
      job(2, 'n2', 8, 'running'),
    ]
    expect(givenBack(nodes, jobs, { cap: 24 })).toEqual([])
    expect(givenBack(nodes, jobs, { cap: 15 })).toEqual([3, 2])
    expect(givenBack(nodes, jobs, { reserve: 8 })).toEqual([3])
    // What ends already counts.
    const ending = [jobs[0]!, job(3, 'n3', 8, 'ending'), jobs[2]!]
    expect(givenBack(nodes, ending, { reserve: 8 })).toEqual([])
  })

  it('is given back where the operator drains a node', () => {
    const nodes = [batchNode('n1', 8, { usable: false, draining: true }), batchNode('n2', 8)]
    const jobs = [job(1, 'n1', 8, 'running'), job(2, 'n2', 8, 'running')]
    expect(givenBack(nodes, jobs, {})).toEqual([1])
    expect(givenBack(nodes, [job(1, 'n1', 8, 'ending')], {})).toEqual([])
    // Others wait for none of that.
    const more = [...nodes, batchNode('n3')]
    expect(givenBack(more, jobs, {})).toEqual([1])
    expect(started(more, jobs)).toEqual([['n3', 8, 16_000]])
  })

  it('is not what has too little memory', () => {
    expect(started([batchNode('n1', 0, { cores: 1, memoryMiB: 511 })], [])).toEqual([])
    expect(started([batchNode('n1', 0, { cores: 1, memoryMiB: 512 })], [])).toEqual([
      ['n1', 1, 512],
    ])
    // Each worker takes some beside its lease's.
    expect(started([batchNode('n1', 0, { memoryMiB: 512 })], [])).toEqual([])
  })
})

const anyNodes = fc.uniqueArray(
  fc.record({
    name: fc.constantFrom('n1', 'n2', 'n3', 'n4', 'n5'),
    cores: fc.integer({ min: 0, max: 64 }),
    batch: fc.integer({ min: 0, max: 64 }),
    ours: fc.array(fc.tuple(fc.integer({ min: 1, max: 16 }), fc.integer({ min: 0, max: 2 })), {
      maxLength: 3,
    }),
    memoryMiB: fc.integer({ min: 0, max: 64_000 }),
    allocatedMemoryMiB: fc.integer({ min: 0, max: 64_000 }),
    usable: fc.boolean(),
  }),
  { selector: ({ name }) => name },
)
const anyLimits = fc.record({
  cap: fc.oneof(fc.constant(Infinity), fc.integer({ min: 0, max: 128 })),
  reserve: fc.integer({ min: 0, max: 128 }),
  memoryReserveMiB: fc.integer({ min: 0, max: 8000 }),
  shared: fc.boolean(),
})

it('whatever Slurm says, no more is taken than is idle, within the cap and beyond the reserve', () => {
  fc.assert(
    fc.property(anyNodes, anyLimits, (drawn, limits) => {
      let id = 0
      const jobs = drawn.flatMap(({ name, ours }) =>
        ours.map(([cores, state]) =>
          job((id += 1), name, cores, (['pending', 'running', 'ending'] as const)[state]!),
        ),
      )
      const coresOf = (some: readonly HarvestJob[]): number =>
        some.reduce((sum, { cores }) => sum + cores, 0)
      const nodes = drawn.map(({ batch, ours: _, ...node }): BatchNode => {
        const present = jobs.filter((one) => one.batchNode === node.name && one.state !== 'pending')
        const up = { address: node.name, responds: true, draining: false }
        return { ...node, ...up, allocatedCores: batch + coresOf(present) }
      })
      const { start, giveBack } = plan(nodes, jobs, limits, always)
      const held = coresOf(jobs.filter(({ state }) => state !== 'ending'))
      const started = start.reduce((sum, { cores }) => sum + cores, 0)
      if (started > 0) expect(held + started).toBeLessThanOrEqual(limits.cap)
      expect(giveBack.every(({ state }) => state !== 'ending')).toBe(true)
      let left = nodes.reduce(
        (sum, { usable, cores, allocatedCores }) =>
          sum + (usable ? Math.max(0, cores - allocatedCores) : 0),
        0,
      )
      left -= started
      if (started > 0) expect(left).toBeGreaterThanOrEqual(limits.reserve)
      for (const { batchNode, cores, memoryMiB, node } of start) {
        expect(batchNode.usable).toBe(true)
        expect(cores).toBeLessThanOrEqual(batchNode.cores - batchNode.allocatedCores)
        const idleMiB = batchNode.memoryMiB - batchNode.allocatedMemoryMiB
        expect(memoryMiB).toBeLessThanOrEqual(idleMiB - limits.memoryReserveMiB)
        expect(jobs.map((one) => one.node)).not.toContain(node)
      }
    }),
    { numRuns: 500 },
  )
})

const mine = { user: 'rfaas', partition: 'faas', resourceManager: 'http://10.0.0.1:7070' }

function slurmNode(more: Partial<SlurmNode> = {}): SlurmNode {
  return {
    name: 'n1',
    address: '10.0.1.1',
    state: 'idle',
    state_flags: [],
    cpus: 8,
    alloc_cpus: 0,
    real_memory: 16_000,
    alloc_memory: 0,
    partitions: ['batch', 'faas'],
    active_features: 'fast,gpu',
    ...more,
  }
}

function slurmJob(more: Partial<SlurmJob> = {}): SlurmJob {
  return {
    job_id: 7,
    job_state: 'RUNNING',
    state_reason: 'None',
    partition: 'faas',
    name: 'rfaas-harvest',
    comment: commentOf(mine.resourceManager, 'n1'),
    user_name: 'rfaas',
    nodes: 'n1',
    required_nodes: 'n1',
    node_count: 1,
    cpus: 4,
    memory_per_node: 1000,
    start_time: 1000,
    end_time: 2000,
    preempt_time: 0,
    ...more,
  }
}

describe('what Slurm says', () => {
  const jobsOf = (more: Partial<SlurmJob>) =>
    observe({ nodes: [slurmNode()], jobs: [slurmJob(more)] }, mine).jobs

  it('is about a job of ours only if it is of our user and names this resource manager', () => {
    expect(jobsOf({})).toMatchObject([{ id: 7, node: 'n1', state: 'running', over: false }])
    expect(jobsOf({ user_name: 'mallory' })).toEqual([])
    expect(jobsOf({ comment: commentOf('http://10.0.0.2:7070', 'n1') })).toEqual([])
    expect(jobsOf({ comment: commentOf(mine.resourceManager, '../n1') })).toEqual([])
    expect(jobsOf({ comment: null, user_name: null })).toEqual([])
  })

  it('tells jobs that wait, run, have to go and are over apart', () => {
    expect(jobsOf({ job_state: 'PENDING' })).toMatchObject([{ state: 'pending', over: false }])
    expect(jobsOf({ preempt_time: 1500 })).toMatchObject([{ state: 'ending', over: false }])
    expect(jobsOf({ job_state: 'COMPLETING' })).toMatchObject([{ state: 'ending', over: false }])
    for (const job_state of ['COMPLETED', 'PREEMPTED', 'FAILED', 'CANCELLED', 'NODE_FAIL']) {
      expect(jobsOf({ job_state })).toMatchObject([{ state: 'ending', over: true }])
    }
  })

  it('tells what can be used from what cannot', () => {
    const usable = (more: Partial<SlurmNode>) =>
      observe({ nodes: [slurmNode(more)], jobs: [] }, mine).nodes.map((node) => node.usable)
    expect(usable({})).toEqual([true])
    expect(usable({ state: 'mixed', state_flags: ['PLANNED'] })).toEqual([true])
    for (const flag of ['DRAIN', 'NOT_RESPONDING', 'POWERED_DOWN', 'RESERVED', 'A_NEW_ONE']) {
      expect(usable({ state_flags: [flag] })).toEqual([false])
    }
    expect(usable({ state: 'down' })).toEqual([false])
    expect(usable({ partitions: ['batch'] })).toEqual([])
  })

  it('tells a machine that is silent from one that is to be empty', () => {
    const seen = (more: Partial<SlurmNode>) =>
      observe({ nodes: [slurmNode(more)], jobs: [] }, mine).nodes[0]
    expect(seen({})).toMatchObject({ responds: true, draining: false })
    expect(seen({ state_flags: ['NOT_RESPONDING'] })).toMatchObject({ responds: false })
    expect(seen({ state: 'down' })).toMatchObject({ responds: false })
    expect(seen({ state_flags: ['DRAIN'] })).toMatchObject({ responds: true, draining: true })
  })

  it('shows who has which cores, and what is planned', () => {
    const planned = slurmJob({
      job_id: 9,
      name: 'big',
      comment: '',
      job_state: 'PENDING',
      partition: 'batch',
      node_count: 2,
      cpus: 16,
      start_time: 1600,
    })
    const nodes = [slurmNode({ state: 'mixed', state_flags: ['PLANNED'], alloc_cpus: 6 })]
    const seen = observe({ nodes, jobs: [slurmJob(), planned] }, mine)
    expect(seen.shown).toMatchObject([
      {
        state: 'mixed+planned',
        batchCores: 2,
        harvestedCores: 4,
        idleCores: 2,
        features: ['fast', 'gpu'],
      },
    ])
    expect(seen.planned).toEqual([
      { job: '9', partition: 'batch', nodes: 2, cores: 16, at: '1970-01-01T00:26:40.000Z' },
    ])
    expect(seen.jobs[0]?.idleUntilMs).toBe(1_600_000)
  })
})

describe('a harvest job', () => {
  it('quotes what a shell would take apart, and shares a node only when it is bound', () => {
    const config = resolveSlurmConfig({ slurmDataDir: "/var/o'clock" })
    const part = { batchNode: batchNode('n1'), node: 'n1', cores: 4, memoryMiB: 8000, whole: false }
    const script = jobScript(part, mine.resourceManager, config)
    expect(script).toContain(`--data-dir '/var/o'\\''clock/n1'`)
    expect(script).toContain('--memory-bytes 7552MiB')
    expect(script).toMatch(/^bound=.*nproc/)
    expect(jobScript({ ...part, whole: true }, mine.resourceManager, config)).toMatch(/^exec nice/)
  })
})

describe('options for Slurm', () => {
  it('are refused by name', () => {
    for (const [options, what] of [
      [{ slurmPartition: '--all' }, /slurmPartition is "--all"/],
      [{ slurmCap: -1 }, /slurmCap is -1/],
      [{ slurmNice: 20 }, /slurmNice is 20/],
      [{ slurmPollMs: '1ms' }, /slurmPollMs is "1ms"/],
      [{ slurmNodeConfig: 'node.json' }, /slurmNodeConfig is "node.json"/],
      [{ slurmUrl: 'manager' }, /slurmUrl is "manager"/],
    ] as const) {
      expect(() => resolveSlurmConfig(options)).toThrow(what)
    }
  })
})
