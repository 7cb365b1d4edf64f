// What leases are charged adds up with what Slurm charges the job that they ran in.
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, expect, test } from 'vitest'

import { request } from '../../lib/control/http.js'
import { UsageEntries } from '../../lib/control/schemas.js'
import { bytes, deployOptions, nativePackage } from '../integration/support.js'
import { cleanUp, node, startHarvest, startSlurm } from './support.js'

afterEach(cleanUp)

const lease = { memory: '256MiB', duration: '10m', wait: '30s' }

test('the core-time of the leases in a job is at most its elapsed time times its cores', async () => {
  const slurm = await startSlurm([node('n1'), node('n2', 1)])
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
    await slurm.eventually('the job is over', async () => {
      return (await slurm.job(Number(job))).job_state === 'COMPLETED'
    })
    const { start_time, end_time, cpus } = await slurm.job(Number(job))
    // Slurm counts whole seconds.
    const coreMs = (end_time - start_time + 1) * 1000 * cpus
    const used = charged.reduce((sum, entry) => sum + entry.coreMs, 0)
    expect(used).toBeGreaterThan(0)
    expect(used).toBeLessThanOrEqual(coreMs)
    for (const { start, end } of charged) {
      expect(Date.parse(start)).toBeGreaterThanOrEqual(start_time * 1000)
      expect(Date.parse(end)).toBeLessThanOrEqual((end_time + 1) * 1000)
    }
  }
})
