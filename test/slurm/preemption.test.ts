// Idle cores of a batch system become leases, and go back the moment a job wants them.
import { once } from 'node:events'
import { afterEach, describe, expect, test } from 'vitest'

import { bytes, deployOptions, nativePackage, sleeps } from '../integration/support.js'
import { cleanUp, node, startHarvest, startSlurm } from './support.js'

afterEach(cleanUp)

const oneCore = { cores: 1, memory: '256MiB', duration: '10m', wait: '30s' }
const refused = /^ERR_RFAAS_LEASE_(REVOKED|ENDED)$/

describe('a node that Slurm leaves idle', () => {
  test('can be leased after one look, and goes back to a job that wants it', async () => {
    const slurm = await startSlurm([node('n1')])
    const { client, info, manager } = await startHarvest(slurm)
    const lease = await client.lease(oneCore)
    const functions = await lease.deploy(nativePackage(), deployOptions)
    expect(await functions.invoke('echo', bytes(7))).toEqual(bytes(7))

    const heard: string[] = []
    lease.on('revoking', () => heard.push('revoking')).on('ended', () => heard.push('ended'))
    const running = functions.invoke('sleep_ms', sleeps(1000))
    const revoking = once(lease, 'revoking')
    const ended = once(lease, 'ended')
    const job = await slurm.submit('echo here', { cores: 2, node: 'n1' })
    await revoking
    // As Slurm does at the end of the grace: it changes nothing.
    for (const pid of slurm.processes('executor-manager/src/main.js')) process.kill(pid, 'SIGTERM')
    // No call is lost: those that ran have answers, all others say why they did not run.
    const outcomes = Array.from({ length: 20 }, () => functions.invoke('echo', bytes(1)))
    for (const outcome of await Promise.allSettled(outcomes)) {
      if (outcome.status === 'fulfilled') expect(outcome.value).toEqual(bytes(1))
      else expect(outcome.reason).toMatchObject({ code: expect.stringMatching(refused) })
    }
    expect((await running).length).toBe(0)
    await ended
    expect(heard).toEqual(['revoking', 'ended'])
    await slurm.eventually('the job has run', async () => {
      return (await slurm.job(job)).job_state === 'COMPLETED'
    })
    expect(slurm.output(job)).toBe('here\n')
    // It went before Slurm had to kill it.
    expect((await slurm.harvestJobs())[0]).toMatchObject({ job_state: 'COMPLETED' })

    // What is idle again is harvested again.
    const next = await client.lease(oneCore)
    expect(next.nodes).toEqual(['n1'])
    expect((await info()).jobs).toHaveLength(1)
    await next.release()
    expect(manager.complaints).toEqual([])
  })
})

describe('a lease over two nodes of which Slurm wants one back', () => {
  test('loses no call: they go to the other node', async () => {
    const slurm = await startSlurm([node('n1', 1), node('n2', 1)])
    const { client } = await startHarvest(slurm)
    const lease = await client.lease({ ...oneCore, cores: 2, nodes: 2 })
    const functions = await lease.deploy(nativePackage(), deployOptions)
    const lost = once(lease, 'partLost')
    const job = await slurm.submit('echo here', { cores: 1, node: 'n1' })
    let over = false
    void lost.then(() => (over = true))
    for (let i = 0; !over; i = (i + 1) % 256) {
      expect(await functions.invoke('echo', bytes(i))).toEqual(bytes(i))
    }
    expect((await lost).slice(0, 1)).toEqual(['n1'])
    await slurm.eventually('the job has run', async () => {
      return (await slurm.job(job)).job_state === 'COMPLETED'
    })
    expect(await functions.invoke('echo', bytes(9))).toEqual(bytes(9))
    await lease.release()
  })
})
