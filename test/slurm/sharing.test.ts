// What is idle on a node that runs other jobs, and how much of the cluster is taken at all.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, describe, expect, test } from 'vitest'

import { deployOptions, nativePackage } from '../integration/support.js'
import { parseCoreList } from '../../executor-manager/src/node.js'
import { childrenOf } from '../executor-manager/support.js'
import { FalseCommands } from './false-commands.js'
import { cleanUp, node, startHarvest, startSlurm, temporaryFolder } from './support.js'

afterEach(cleanUp)

const oneCore = { cores: 1, memory: '256MiB', duration: '10m', wait: '30s' }
const cores = 'grep Cpus_allowed_list: /proc/self/status'

describe('a node that runs a job', () => {
  test('is left alone', async () => {
    const slurm = await startSlurm([node('n1'), node('n2')])
    await slurm.submit('sleep 600', { cores: 1, node: 'n1' })
    await slurm.eventually('the job runs', async () =>
      (await slurm.jobs()).some(({ job_state }) => job_state === 'RUNNING'),
    )
    const { client, info, metric } = await startHarvest(slurm)
    expect((await client.lease(oneCore)).nodes).toEqual(['n2'])
    const looks = await metric('rfaas_slurm_polls_total{outcome="ok"}')
    await slurm.eventually('it has looked twice more', async () => {
      return (await metric('rfaas_slurm_polls_total{outcome="ok"}')) > looks + 1
    })
    expect((await info()).jobs.map((job) => job.node)).toEqual(['n2'])
    expect(await metric('rfaas_slurm_cores{state="batch"}')).toBe(1)
    expect(await metric('rfaas_slurm_cores{state="harvested"}')).toBe(2)
    expect(await metric('rfaas_slurm_cores{state="idle"}')).toBe(1)
  })

  test('lends the cores that the job does not have, at the lowest priority, where that is allowed', async () => {
    const slurm = await startSlurm([node('n1')])
    const job = await slurm.submit(`${cores}; sleep 600`, { cores: 1, memoryMiB: 500 })
    await slurm.eventually('the job runs', async () => slurm.output(job) !== '')
    const { client, info } = await startHarvest(slurm, {
      '--slurm-shared': '',
      '--slurm-nice': '19',
    })
    const lease = await client.lease(oneCore)
    await lease.deploy(nativePackage(), deployOptions)
    const taken = parseCoreList(slurm.output(job).split(':')[1] ?? '')
    expect(taken).toHaveLength(1)
    expect(lease.cores).toHaveLength(1)
    expect(taken).not.toContain(lease.cores[0])
    const { jobs, nodes } = await info()
    expect(nodes).toMatchObject([{ name: 'n1', batchCores: 1, harvestedCores: 1, idleCores: 0 }])
    expect(jobs).toMatchObject([{ cores: 1, memoryBytes: 1500 * 2 ** 20 }])
    const [manager] = slurm.processes('executor-manager/src/main.js')
    for (const pid of [manager!, ...childrenOf(manager!)]) {
      expect(niceOf(pid)).toBe(19)
      expect(await slurm.run('ionice', ['-p', `${pid}`])).toBe('idle')
    }
    await lease.release()
  })

  test('has no core for a second harvest job when the first starts while Slurm is asked', async () => {
    const slurm = await startSlurm([node('n1')])
    await slurm.submit('sleep 600', { cores: 1 })
    await slurm.eventually('the job runs', async () =>
      (await slurm.jobs()).some(({ job_state }) => job_state === 'RUNNING'),
    )
    const commands = new FalseCommands(join(temporaryFolder(), 'bin'))
    // Long enough for a job to start.
    commands.answer('squeue', 'sleep 2\nexec /usr/bin/squeue "$@"')
    const { env } = commands
    const { client, metric } = await startHarvest(slurm, { '--slurm-shared': '' }, { env })
    await slurm.eventually('its node is there', async () => (await client.nodes()).length === 1)
    const looks = await metric('rfaas_slurm_polls_total{outcome="ok"}')
    await slurm.eventually('it has looked twice more', async () => {
      return (await metric('rfaas_slurm_polls_total{outcome="ok"}')) > looks + 1
    })
    expect(await slurm.harvestJobs()).toHaveLength(1)
  })
})

describe('the operator', () => {
  test('says how many cores are taken, and how many stay idle', async () => {
    const slurm = await startSlurm([node('n1'), node('n2')])
    const limits = { '--slurm-cap': '3', '--slurm-reserve': '1' }
    const { client, info } = await startHarvest(slurm, limits)
    await slurm.eventually('two nodes are there', async () => (await client.nodes()).length === 2)
    const taken = (await info()).jobs.reduce((sum, job) => sum + job.cores, 0)
    expect(taken).toBe(3)
    expect((await client.nodes()).map((each) => each.cores).sort()).toEqual([1, 2])
    // A job takes what was kept idle: as much is given back.
    const { job_id } = (await slurm.harvestJobs()).at(-1)!
    const { nodes } = await info()
    const idle = nodes.find(({ idleCores }) => idleCores > 0)!.name
    await slurm.submit('sleep 600', { cores: 1, node: idle })
    await slurm.eventually('the newest job has ended', async () => {
      return (await slurm.job(job_id)).job_state === 'COMPLETED'
    })
  })
})

/** As ps shows it. */
function niceOf(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
  return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[16])
}
