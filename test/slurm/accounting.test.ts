// What leases are charged adds up with what Slurm's own record of completed jobs says of the job that
// they ran in.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, expect, test } from 'vitest'

import { request } from '../../lib/control/http.js'
import { UsageEntries } from '../../lib/control/schemas.js'
import { bytes, deployOptions, nativePackage } from '../integration/support.js'
import { cleanUp, node, startHarvest, startSlurm, temporaryFolder } from './support.js'

afterEach(cleanUp)

const lease = { memory: '256MiB', duration: '10m', wait: '30s' }

test('the core-time of the leases in a job is at most its elapsed time times its cores', async () => {
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
  for (const job of new Set(entries.map((entry) => entry.job))) {
    const charged = entries.filter((entry) => entry.job === job)
    await slurm.eventually('Slurm has recorded the job', () =>
      Promise.resolve(recorded(record, job) !== undefined),
    )
    const { state, startMs, endMs, cores } = recorded(record, job)!
    expect(state).toBe('COMPLETED')
    // Slurm counts whole seconds.
    const coreMs = (endMs - startMs + 1000) * cores
    const used = charged.reduce((sum, entry) => sum + entry.coreMs, 0)
    expect(used).toBeGreaterThan(0)
    expect(used).toBeLessThanOrEqual(coreMs)
    for (const { start, end } of charged) {
      expect(Date.parse(start)).toBeGreaterThanOrEqual(startMs)
      expect(Date.parse(end)).toBeLessThanOrEqual(endMs + 1000)
    }
  }
})

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
