// Several resource managers harvest one Slurm: the one that leads does, and its successor goes on with
// the jobs that it finds.
import { afterEach, expect, test } from 'vitest'

import { Client } from '../../lib/index.js'
import { bytes, deployOptions, nativePackage } from '../integration/support.js'
import { EtcdCluster, lackOfEtcd } from '../resource-manager/etcd-cluster.js'
import { freePorts } from '../free-ports.js'
import { cleanUp, node, onCleanUp, startHarvest, startSlurm, temporaryFolder } from './support.js'

afterEach(cleanUp)

const oneCore = { cores: 1, memory: '256MiB', duration: '10m', wait: '30s' }

test.skipIf(lackOfEtcd !== undefined)(
  'the successor of a manager that is killed goes on with its harvest jobs and leases',
  async () => {
    const slurm = await startSlurm([node('n1'), node('n2')])
    const etcd = await EtcdCluster.start({ hasty: true })
    onCleanUp(() => etcd.stop())
    const [port = 0, otherPort = 0] = await freePorts(2)
    const urls = [port, otherPort].map((each) => `http://127.0.0.1:${each}`)
    const flags = {
      '--store': 'etcd',
      '--etcd': etcd.urls.join(),
      '--leader-timeout-ms': '2s',
      '--slurm-url': urls.join(),
      '--slurm-data-dir': temporaryFolder(),
    }
    const first = await startHarvest(slurm, { ...flags, '--port': `${port}` })
    const second = await startHarvest(slurm, { ...flags, '--port': `${otherPort}` })
    const client = await Client.connect(urls.join())
    onCleanUp(() => client.close())
    const lease = await client.lease({ ...oneCore, cores: 4, nodes: 2 })
    const functions = await lease.deploy(nativePackage(), deployOptions)
    // Of the two only the leader has looked at Slurm.
    expect(await first.metric('rfaas_leader')).toBe(1)
    expect(await second.metric('rfaas_leader')).toBe(0)
    expect(await second.metric('rfaas_slurm_polls_total{outcome="ok"}')).toBeNaN()
    const jobs = (await slurm.harvestJobs('RUNNING')).map(({ job_id }) => job_id)
    expect(jobs).toHaveLength(2)

    await first.manager.end('SIGKILL')
    const taken = slurm.eventually('the other one has looked twice, all nodes are up', async () => {
      const states = (await second.client.nodes()).map(({ state }) => state)
      const looks = await second.metric('rfaas_slurm_polls_total{outcome="ok"}')
      return looks > 1 && states.join() === 'up,up'
    })
    let over = false
    const done = taken.finally(() => (over = true))
    // No call is lost meanwhile.
    for (let i = 0; !over; i = (i + 1) % 256) {
      expect(await functions.invoke('echo', bytes(i))).toEqual(bytes(i))
    }
    await done
    expect(await second.metric('rfaas_leader')).toBe(1)
    expect((await slurm.harvestJobs()).map(({ job_id }) => job_id)).toEqual(jobs)
    expect(await slurm.harvestJobs('RUNNING')).toHaveLength(2)
    expect((await client.leases()).map(({ id }) => id)).toEqual([lease.id])
    expect(await functions.invoke('echo', bytes(2))).toEqual(bytes(2))
    // Both have looked at the jobs; what they are charged for is still one account for each.
    const accounts = (await second.client.jobUsage()).jobs
    expect(accounts.map(({ id, state }) => [Number(id), state])).toEqual(
      jobs.map((id) => [id, 'running']),
    )
    for (const { elapsedMs, cores, leasedCoreMs, idleCoreMs } of accounts) {
      expect(leasedCoreMs).toBeGreaterThan(0)
      expect(leasedCoreMs + idleCoreMs).toBe(elapsedMs * cores)
    }
    await lease.release()

    // It gives back what it did not start, and harvests what is idle again.
    const job = await slurm.submit('true', { cores: 2, node: 'n1' })
    await slurm.eventually('the job has run, and its node is harvested again', async () => {
      const running = await slurm.harvestJobs('RUNNING')
      const over = (await slurm.job(job)).job_state === 'COMPLETED'
      return over && running.length === 2 && (await slurm.harvestJobs()).length === 3
    })
  },
)
