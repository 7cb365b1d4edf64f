// Where Slurm holds jobs to their cores and memory by control groups, all that a harvest job runs is in its
// group, and what leases may take lies within.
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { afterEach, expect, test } from 'vitest'

import { parseCoreList } from '../../executor-manager/src/node.js'
import { outcomeOf, word } from '../faults/calls.js'
import { workersOf } from '../faults/proc.js'
import { bytes, deployOptions, nativePackage } from '../integration/support.js'
import { groupOf, lackOfControlGroups } from './control-groups.js'
import { cleanUp, startHarvest, startSlurm, temporaryFolder } from './support.js'

afterEach(cleanUp)

const MiB = 2 ** 20
const timeoutMs = 20_000

/** Of the group, and of those above it that are Slurm's. */
function limits(folder: string): number[] {
  if (!folder.includes('/slurm_')) return []
  const limit = Number(readFileSync(join(folder, 'memory.limit_in_bytes'), 'utf8'))
  return [limit, ...limits(dirname(folder))]
}

const coresOf = (folder: string): number[] =>
  parseCoreList(readFileSync(join(folder, 'cpuset.cpus'), 'utf8').trim())

test.skipIf(lackOfControlGroups !== undefined)(
  'a harvest job beside another one is held to its cores and memory, and a lease on all of it to less',
  async () => {
    const name = `held${process.pid}`
    const slurm = await startSlurm([{ name, cores: 2, memoryMiB: 1500 }], { constrained: true })
    const regular = await slurm.submit('echo here; sleep 600', { cores: 1, memoryMiB: 500 })
    await slurm.eventually('the job runs', async () => slurm.output(regular) !== '')
    const nodeConfig = join(temporaryFolder(), 'node.json')
    writeFileSync(nodeConfig, JSON.stringify({ pool: 0 })) // each worker is the lease's
    const flags = { '--slurm-shared': '', '--slurm-node-config': nodeConfig }
    const { client, info, manager } = await startHarvest(slurm, flags)
    const free = async () => (await client.nodes()).map(({ freeMemoryBytes }) => freeMemoryBytes)
    await slurm.eventually('the node is there', async () => (await free()).length === 1)
    const [memory = 0] = await free()
    const lease = await client.lease({ cores: 1, memory, duration: '10m' })
    const functions = await lease.deploy(nativePackage(), deployOptions)

    const [job] = await slurm.harvestJobs('RUNNING')
    const [executorManager = 0] = slurm.processes('executor-manager/src/main.js')
    const [worker = 0] = workersOf(executorManager)
    const [memoryGroup, coresGroup] = [groupOf(worker, 'memory'), groupOf(worker, 'cpuset')]
    const slurms = `/slurm_${name}/uid_0/job_${job!.job_id}/`
    expect(memoryGroup).toContain(slurms)
    expect(coresGroup).toContain(slurms)
    expect(coresOf(coresGroup)).toEqual([...lease.cores])
    expect(coresOf(groupOf(executorManager, 'cpuset'))).toEqual([...lease.cores])
    const [ofLease = 0] = limits(memoryGroup)
    const ofJob = Math.min(...limits(groupOf(executorManager, 'memory')))
    expect(ofJob).toBe(1000 * MiB)
    expect((await info()).jobs).toMatchObject([{ cores: 1, memoryBytes: ofJob }])
    // The rest is for the executor manager.
    expect(ofLease).toBeGreaterThan(memory)
    expect(ofLease).toBeLessThan(ofJob - 128 * MiB)

    // A function that wants more ends with its call, and takes nothing else along.
    const lost: string[] = []
    for (let calls = 0; calls < 16 && lost.length === 0; calls += 1) {
      const call = functions.invoke('allocate', word(128), { timeoutMs })
      const { code } = await outcomeOf(call, timeoutMs)
      if (code !== 'ok') lost.push(code)
    }
    expect(lost).toEqual([expect.stringMatching(/^ERR_RFAAS_(WORKER_LOST|FUNCTION)$/)])
    expect(await functions.invoke('echo', bytes(1), { timeoutMs })).toEqual(bytes(1))
    expect(slurm.processes('executor-manager/src/main.js')).toEqual([executorManager])
    expect((await slurm.job(regular)).job_state).toBe('RUNNING')
    await lease.release()

    // Nothing that Slurm would have to complain of, and nothing of it is left.
    await slurm.run('scancel', ['--batch', '--signal=TERM', `${job!.job_id}`])
    await slurm.eventually('the harvest job has ended', async () => {
      return (await slurm.job(job!.job_id)).job_state === 'COMPLETED'
    })
    expect(existsSync(memoryGroup.slice(0, memoryGroup.indexOf(slurms) + slurms.length))).toBe(
      false,
    )
    expect(manager.complaints).toEqual([])
  },
)
