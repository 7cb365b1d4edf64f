// What leases had of harvest jobs, and what was idle, adds up with Slurm's own accounts.
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, describe, expect, test } from 'vitest'

import { request } from '../../lib/control/http.js'
import {
  UsageEntries,
  type JobUsage,
  type JobUsageReport,
} from '../../lib/control/report-schemas.js'
import type { Analysis } from '../../resource-manager/utilization/analysis.js'
import { rfaas } from '../cli/support.js'
import { bytes, deployOptions, nativePackage } from '../integration/support.js'
import { AccountingDatabase } from './accounting-database.js'
import type { BatchCluster } from './batch-cluster.js'
import { cleanUp, node, onCleanUp, startHarvest, startSlurm, temporaryFolder } from './support.js'

afterEach(cleanUp)

const lease = { memory: '256MiB', duration: '10m', wait: '30s' }

/** What holds for every harvest job, whatever became of it. */
function addsUp({ elapsedMs, cores, coreMs, leasedCoreMs, idleCoreMs, tenants }: JobUsage): void {
  expect(coreMs).toBe(elapsedMs * cores)
  expect(leasedCoreMs + idleCoreMs).toBe(coreMs)
  expect(tenants.reduce((sum, tenant) => sum + tenant.coreMs, 0)).toBe(leasedCoreMs)
  expect(idleCoreMs).toBeGreaterThanOrEqual(0)
}

describe("the harvest jobs of Slurm's record of completed jobs", () => {
  test('are those of the resource manager, and what leases had is that of the ledger', async () => {
    const record = join(temporaryFolder(), 'jobs.txt')
    const lines = `JobCompType=jobcomp/filetxt\nJobCompLoc=${record}\n`
    const slurm = await startSlurm([node('n1'), node('n2', 1)], { lines })
    const { client, manager } = await startHarvest(slurm)
    const large = await client.lease({ ...lease, cores: 2 })
    const small = await client.lease({ ...lease, cores: 1 })
    const leases = [large, small]
    for (const each of leases) {
      const functions = await each.deploy(nativePackage(), deployOptions)
      await functions.invoke('echo', bytes(1))
    }
    await sleep(1000)
    await small.release()
    // The other one lasts until a job takes its node.
    await slurm.submit('true', { cores: 2, node: 'n1' })
    await slurm.eventually('every lease is closed', async () => {
      return (await client.leases()).every(({ state }) => state === 'closed')
    })
    for (const { job_id } of await slurm.harvestJobs('RUNNING')) {
      // It may have ended meanwhile.
      const ended = slurm.run('scancel', ['--batch', '--signal=TERM', `${job_id}`])
      await ended.catch(() => undefined)
    }
    const { entries } = await request(`${manager.url}/v1/usage/entries`, { schema: UsageEntries })
    expect(entries.map(({ id }) => id).sort()).toEqual(leases.map(({ id }) => id).sort())
    const ids = [...new Set(entries.map((entry) => entry.job))]
    await slurm.eventually('the jobs have ended in both records', async () => {
      const { jobs } = await client.jobUsage()
      const ended = jobs.filter(({ end }) => end !== undefined).map(({ id }) => id)
      return ids.every((id) => ended.includes(id!) && recorded(record, id) !== undefined)
    })
    const { jobs, tenants } = await client.jobUsage()
    for (const job of jobs) addsUp(job)
    for (const id of ids) {
      const { state, startMs, endMs, cores } = recorded(record, id)!
      const job = jobs.find((each) => each.id === id)!
      expect(job).toMatchObject({ state: state.toLowerCase(), cores, elapsedMs: endMs - startMs })
      expect([job.begin, job.end].map((at) => Date.parse(at!))).toEqual([startMs, endMs])
      expect(job.leasedCoreMs).toBeGreaterThan(0)
      const charged = entries.filter((entry) => entry.job === id)
      const had = charged.reduce((sum, each) => {
        // Slurm counts whole seconds: a job may be over in the middle of its last one.
        const lastedMs = Math.min(Date.parse(each.end), endMs) - Date.parse(each.start)
        return sum + lastedMs * each.cores.length
      }, 0)
      expect(job.leasedCoreMs).toBe(had)
    }
    const had = jobs.reduce((sum, { leasedCoreMs }) => sum + leasedCoreMs, 0)
    expect(tenants).toEqual([{ tenant: 'default', coreMs: had }])
  })
})

describe('what sacct says of harvest jobs', () => {
  test('is what rfaas usage --jobs says, also of shared nodes and after a manager was killed', async () => {
    const database = await AccountingDatabase.start()
    onCleanUp(() => database.stop())
    const { lines, munge } = database
    const slurm = await startSlurm([node('n1'), node('n2')], { lines, munge })
    await slurm.submit('sleep 600', { cores: 1, node: 'n2' })
    await slurm.eventually('the job runs', async () =>
      (await slurm.jobs()).some(({ job_state }) => job_state === 'RUNNING'),
    )
    const folder = temporaryFolder()
    const flags = {
      '--data-dir': join(folder, 'manager'),
      '--slurm-data-dir': join(folder, 'nodes'),
      '--slurm-shared': '',
    }
    const first = await startHarvest(slurm, flags)
    await slurm.eventually('both nodes are there', async () => {
      return (await first.client.nodes()).length === 2
    })
    await first.client.lease({ ...lease, cores: 2, node: 'n1' })
    await first.client.lease({ ...lease, cores: 1, node: 'n2' })
    // Longer than the second at the end of a job of which Slurm counts nothing.
    await sleep(1100)
    await first.manager.end('SIGKILL')

    // While nobody looks, a job takes a node back.
    const before = (await slurm.harvestJobs()).map(({ job_id }) => job_id)
    const job = await slurm.submit('true', { cores: 2, node: 'n1' })
    await slurm.eventually('the job has run', async () => {
      return (await slurm.job(job)).job_state === 'COMPLETED'
    })
    const second = await startHarvest(slurm, { ...flags, '--port': first.manager.port })
    await slurm.eventually('the node is harvested again', async () => {
      const running = await slurm.harvestJobs('RUNNING')
      return running.length === 2 && running.some(({ job_id }) => !before.includes(job_id))
    })
    for (const { job_id } of await slurm.harvestJobs('RUNNING')) {
      if (!before.includes(job_id)) continue
      await slurm.run('scancel', ['--batch', '--signal=TERM', `${job_id}`])
    }
    const { url } = second.manager
    const ended = async () => (await jobsOf(url)).filter(({ end }) => end !== undefined)
    await slurm.eventually('those of before have ended', async () => {
      const told = [await ended(), (await sacct(slurm)).filter(({ end }) => end !== 'Unknown')]
      return told.every((jobs) => before.every((id) => jobs.some((one) => one.id === `${id}`)))
    })

    const ours = await ended()
    for (const each of ours) addsUp(each)
    const theirs = (await sacct(slurm)).filter(({ id }) => before.includes(Number(id)))
    expect(theirs.map(({ cores }) => cores).sort()).toEqual([1, 2])
    for (const { id, state, start, end, elapsed, cores, partition, nodes } of theirs) {
      const account = ours.find((each) => each.id === id)!
      const begin = new Date(start * 1000).toISOString()
      expect(account).toMatchObject({ state, cores, partition, node: nodes, begin })
      expect(account).toMatchObject({ elapsedMs: elapsed * 1000, coreMs: elapsed * cores * 1000 })
      expect(Date.parse(account.end!)).toBe(Number(end) * 1000)
      expect(account.leasedCoreMs).toBeGreaterThan(0)
    }

    // The same record says what was idle while the cluster ran.
    const path = join(folder, 'sacct.txt')
    const table = await sacctTable(slurm, traceColumns, ['-a'])
    writeFileSync(path, table.map((cells) => `${cells.join('|')}\n`).join(''))
    const report = await rfaas(['utilization', 'report', path, '--format', 'json'])
    const { cores, knownMs, until, idleCoreHours } = JSON.parse(report.stdout) as Analysis
    expect(cores).toBe(4)
    const busySeconds = table.slice(1).reduce((sum, [, , start, end, , allocated]) => {
      const untilSeconds = end === 'Unknown' ? Date.parse(until) / 1000 : Number(end)
      return sum + (start === 'Unknown' ? 0 : untilSeconds - Number(start)) * Number(allocated)
    }, 0)
    expect(idleCoreHours * 3600).toBeCloseTo((cores * knownMs) / 1000 - busySeconds, 0)
  })
})

async function jobsOf(url: string): Promise<JobUsage[]> {
  const { stdout } = await rfaas(['usage', '--jobs', '--json', '--url', url])
  return (JSON.parse(stdout) as JobUsageReport).jobs
}

interface Accounted {
  id: string
  state: string
  start: number
  end: string
  elapsed: number
  cores: number
  partition: string
  nodes: string
}

async function sacct(slurm: BatchCluster): Promise<Accounted[]> {
  const [, ...rows] = await sacctTable(slurm, jobColumns, ['--name=rfaas-harvest'])
  return rows.map(
    ([id = '', state = '', start, end = '', elapsed, cores, partition = '', nodes = '']) => ({
      ...{ id, state: state.toLowerCase(), start: Number(start), end },
      ...{ elapsed: Number(elapsed), cores: Number(cores), partition, nodes },
    }),
  )
}

const jobColumns = 'JobIDRaw,State,Start,End,ElapsedRaw,AllocCPUS,Partition,NodeList'
// As the documentation of `rfaas utilization` has it.
const traceColumns = 'JobID,Submit,Start,End,NodeList,AllocCPUS,ReqMem,State'

/** Its names and its rows. Times are in seconds. */
async function sacctTable(slurm: BatchCluster, columns: string, more: readonly string[]) {
  const args = ['-X', '-P', '--starttime=now-1hour', `--format=${columns}`, ...more]
  const text = await slurm.run('env', ['SLURM_TIME_FORMAT=%s', 'sacct', ...args])
  return text.split('\n').map((line) => line.split('|'))
}

/** What Slurm's record of completed jobs says of one that is over. Times have no zone: they are local. */
function recorded(
  path: string,
  job: string | undefined,
): { state: string; startMs: number; endMs: number; cores: number } | undefined {
  // The last one may not be complete yet.
  const lines = readFileSync(path, 'utf8').split('\n').slice(0, -1)
  const line = lines.find((one) => one.startsWith(`JobId=${job} `))
  if (line === undefined) return undefined
  const field = (name: string): string => new RegExp(` ${name}=(\\S+)`).exec(line)?.[1] ?? ''
  return {
    state: field('JobState'),
    startMs: Date.parse(field('StartTime')),
    endMs: Date.parse(field('EndTime')),
    cores: Number(field('ProcCnt')),
  }
}
