// What the batch system charges for harvest jobs is what leases had of them and what was idle.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import type { Principal } from '../../lib/control/principal.js'
import type { JobUsage } from '../../lib/control/report-schemas.js'
import type { SeenJob } from '../../resource-manager/sources/source.js'
import { MiB, Model, nodeMemoryBytes, operator, tenants } from './model.js'
import { startStores, stopStores, stores } from './stores.js'
import { System, type OpenStore } from './system.js'
import { cleanUp, onCleanUp } from './support.js'

beforeAll(startStores)
afterAll(stopStores)
afterEach(cleanUp)

const [small, large] = tenants as [Principal, Principal]
const beginMs = 2_000_000
let sequence = 0

/** A resource manager whose time the test moves, and a node of two cores that is a batch job. */
class Cluster {
  readonly model = new Model()
  #system: System | undefined

  static async start(open: OpenStore): Promise<Cluster> {
    const folder = mkdtempSync(join(tmpdir(), 'rfaas-jobs-'))
    const cluster = new Cluster()
    cluster.at(0)
    const system = await System.start({ open, folder, scheduler: 'first-fit' }, cluster.model)
    cluster.#system = system
    onCleanUp(async () => {
      await system.close()
      rmSync(folder, { recursive: true, force: true })
    })
    return cluster
  }

  get manager() {
    return this.#system!.manager
  }

  restart(): Promise<void> {
    return this.#system!.restart()
  }

  /** Milliseconds after the first job has begun. */
  at(afterMs: number): void {
    this.model.nowMs = beginMs + afterMs
  }

  async register(job: string, { cores = [0, 1], leases = [] as string[] } = {}): Promise<void> {
    await this.manager.register(operator, {
      ...{ name: 'n1', url: 'http://127.0.0.1:7071', hostId: 'host', providers: [], job },
      ...{ cores, memoryBytes: nodeMemoryBytes, sequence: (sequence += 1), leases },
    })
  }

  async lease(tenant: Principal, cores = 1): Promise<string> {
    const request = { cores, memoryBytes: MiB, durationMs: 3_600_000 }
    return (await this.manager.grant(tenant, request)).lease.id
  }

  /** The tenant gives it back, and the node confirms. */
  async close(tenant: Principal, id: string): Promise<void> {
    await this.manager.release(tenant, id)
    await this.manager.closed(operator, 'n1', id, { heldMs: 0, cpuMs: 0 })
  }

  async jobs(): Promise<JobUsage[]> {
    const { jobs, tenants: sums } = await this.manager.jobs.usage(operator, {})
    const shares = jobs.flatMap((job) => job.tenants)
    for (const job of jobs) {
      expect(job.leasedCoreMs + job.idleCoreMs).toBe(job.elapsedMs * job.cores)
      expect(job.leasedCoreMs).toBe(job.tenants.reduce((sum, { coreMs }) => sum + coreMs, 0))
      expect(job.idleCoreMs).toBeGreaterThanOrEqual(0)
    }
    for (const { tenant, coreMs } of sums) {
      const own = shares.filter((share) => share.tenant === tenant)
      expect(own.reduce((sum, share) => sum + share.coreMs, 0)).toBe(coreMs)
    }
    return jobs
  }
}

function job(more: Partial<SeenJob> = {}): SeenJob {
  const seen = { id: '7', node: 'n1', partition: 'faas', cores: 2, state: 'running', beginMs }
  return { ...seen, ...more }
}

function ended(afterMs: number, more: Partial<SeenJob> = {}): SeenJob {
  return job({ state: 'preempted', endMs: beginMs + afterMs, ...more })
}

describe.each(stores)(
  'on the store %s, what leases had of a harvest job and what was idle',
  (...kind) => {
    const [, open, lack] = kind
    const test = it.skipIf(lack !== undefined)

    test('is its elapsed time times its cores, while it runs and when it is over', async () => {
      const cluster = await Cluster.start(open)
      cluster.at(1000)
      await cluster.register('7')
      const first = await cluster.lease(small)
      cluster.at(3000)
      await cluster.lease(large)
      await cluster.close(small, first)
      cluster.at(4500)
      await cluster.manager.jobs.saw([job()], 500)
      expect(await cluster.jobs()).toEqual([
        {
          ...{ id: '7', node: 'n1', partition: 'faas', state: 'running', cores: 2 },
          ...{ begin: new Date(beginMs).toISOString(), elapsedMs: 4000, coreMs: 8000 },
          ...{ leasedCoreMs: 3000, idleCoreMs: 5000 },
          tenants: [
            { tenant: 'large', coreMs: 1000 },
            { tenant: 'small', coreMs: 2000 },
          ],
        },
      ])

      // The second lease outlives the job: nobody has heard from its node.
      cluster.at(9000)
      await cluster.manager.jobs.saw([ended(6000)], 0)
      cluster.at(60_000)
      const over = [{ state: 'preempted', elapsedMs: 6000, leasedCoreMs: 5000, idleCoreMs: 7000 }]
      expect(await cluster.jobs()).toMatchObject(over)
      await cluster.restart()
      expect(await cluster.jobs()).toMatchObject(over)
      await cluster.register('8')
      expect(await cluster.jobs()).toMatchObject(over)
    })

    test('counts a lease for each of the jobs that its node was', async () => {
      const cluster = await Cluster.start(open)
      await cluster.register('7')
      const id = await cluster.lease(large, 2)
      cluster.at(4000)
      await cluster.register('8')
      await cluster.manager.jobs.saw([ended(3000), job({ id: '8', beginMs: beginMs + 3500 })], 0)
      cluster.at(5000)
      await cluster.close(large, id)
      cluster.at(6000)
      await cluster.manager.jobs.saw([ended(3000), job({ id: '8', beginMs: beginMs + 3500 })], 0)
      expect(await cluster.jobs()).toMatchObject([
        { id: '7', elapsedMs: 3000, leasedCoreMs: 6000, idleCoreMs: 0 },
        { id: '8', elapsedMs: 2500, leasedCoreMs: 3000, idleCoreMs: 2000 },
      ])
    })

    test('is that of a job that ended while nobody looked, as Slurm tells', async () => {
      const cluster = await Cluster.start(open)
      await cluster.manager.jobs.saw([job()], 0)
      await cluster.restart()
      cluster.at(9000)
      await cluster.manager.jobs.saw([ended(5000)], 0)
      expect(await cluster.jobs()).toMatchObject([{ state: 'preempted', elapsedMs: 5000 }])
    })

    test('ends with the last look at a job that is told of no more, unless it is told of again', async () => {
      const cluster = await Cluster.start(open)
      await cluster.manager.jobs.saw([job()], 0)
      cluster.at(5000)
      await cluster.manager.jobs.saw([job()], 0)
      cluster.at(8000)
      await cluster.manager.jobs.saw([], 0)
      const end = new Date(beginMs + 5000).toISOString()
      expect(await cluster.jobs()).toMatchObject([{ state: 'unknown', end, elapsedMs: 5000 }])
      cluster.at(9000)
      await cluster.manager.jobs.saw([job()], 0)
      const [again] = await cluster.jobs()
      expect(again).toMatchObject({ state: 'running', elapsedMs: 9000 })
      expect(again).not.toHaveProperty('end')
    })

    test('is kept of the last ten thousand jobs that ended', async () => {
      const cluster = await Cluster.start(open)
      const many = Array.from({ length: 10_003 }, (_, index) =>
        ended(1000 + index, { id: `${index + 1}`, node: `n${index % 100}` }),
      )
      cluster.at(20_000)
      await cluster.manager.jobs.saw([...many, job({ id: '20000' })], 0)
      const ids = async () =>
        (await cluster.jobs()).map(({ id }) => Number(id)).sort((a, b) => a - b)
      const kept = [...many.slice(3).map(({ id }) => Number(id)), 20_000]
      expect(await ids()).toEqual(kept)
      // The batch system may remember them for longer.
      await cluster.manager.jobs.saw([...many, job({ id: '20000' })], 0)
      await cluster.restart()
      expect(await ids()).toEqual(kept)
    })
  },
)

describe('what leases had of a harvest job', () => {
  it('is asked for by a range of time, and by operators', async () => {
    const cluster = await Cluster.start(stores[0]![1])
    await cluster.manager.jobs.saw([ended(1000), job({ id: '8', beginMs: beginMs + 2000 })], 0)
    const instant = (afterMs: number) => new Date(beginMs + afterMs).toISOString()
    const ids = async (range: { from?: string; to?: string }) =>
      (await cluster.manager.jobs.usage(operator, range)).jobs.map(({ id }) => id)
    expect(await ids({})).toEqual(['7', '8'])
    expect(await ids({ from: instant(1001) })).toEqual(['8'])
    expect(await ids({ to: instant(2000) })).toEqual(['7'])
    await expect(cluster.manager.jobs.usage(large, {})).rejects.toThrow(/is not an operator/)
  })

  it('is never more than the job, whatever its node lends and whenever it was', async () => {
    const moment = fc.integer({ min: 0, max: 10_000 })
    const leased = fc.record({ from: moment, forMs: moment, cores: fc.integer({ min: 1, max: 4 }) })
    const run = fc.asyncProperty(
      fc.array(leased, { maxLength: 12 }),
      ...([moment, moment, fc.integer({ min: 1, max: 6 })] as const),
      async (leases, from, forMs, cores) => {
        const cluster = await Cluster.start(stores[0]![1])
        await cluster.register('7', { cores: [0, 1, 2, 3] })
        const held: { id: string; untilMs: number; fromMs: number; cores: number }[] = []
        let nowMs = 0
        const closeUntil = async (atMs: number): Promise<void> => {
          const due = held.filter(({ untilMs }) => untilMs > nowMs && untilMs <= atMs)
          for (const each of due.sort((a, b) => a.untilMs - b.untilMs)) {
            cluster.at(each.untilMs)
            await cluster.close(large, each.id)
          }
          nowMs = atMs
          cluster.at(nowMs)
        }
        for (const each of leases.sort((a, b) => a.from - b.from)) {
          await closeUntil(Math.max(nowMs, each.from))
          const id = await cluster.lease(large, each.cores).catch(() => undefined)
          if (id === undefined) continue
          held.push({ id, fromMs: nowMs, untilMs: nowMs + each.forMs + 1, cores: each.cores })
        }
        await closeUntil(20_000)
        const toMs = from + forMs
        const times = { beginMs: beginMs + from, endMs: beginMs + toMs }
        await cluster.manager.jobs.saw([ended(0, { ...times, cores })], 0)
        const [account] = await cluster.jobs()
        const had = held.reduce((sum, each) => {
          const lastedMs = Math.min(each.untilMs, toMs) - Math.max(each.fromMs, from)
          return sum + Math.max(0, lastedMs) * each.cores
        }, 0)
        expect(account!.coreMs).toBe(forMs * cores)
        if (cores >= 4) expect(account!.leasedCoreMs).toBe(had)
        else expect(account!.leasedCoreMs).toBeLessThanOrEqual(had)
        await cleanUp()
      },
    )
    await fc.assert(run, { numRuns: 25 })
  })
})
